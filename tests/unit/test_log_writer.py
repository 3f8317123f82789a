"""The master's side of the process that writes logs; without the process."""

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from prefork import logs
from prefork.channel import LogPipeOrder
from prefork.config import Config, Log, Server
from prefork.master.processes.log_writer import LogWriter


class FullChannel:
    """Takes orders only when it has room."""

    def __init__(self) -> None:
        self.room = False
        self.sent: list[tuple[int, int]] = []

    def send(self, order: LogPipeOrder, fds: Sequence[int]) -> bool:
        if self.room:
            self.sent.append((order.number, os.fstat(fds[0]).st_ino))
        return self.room

    def fileno(self) -> int:
        return -1


@pytest.fixture
def config(tmp_path: Path) -> Config:
    log = Log(error=str(tmp_path / "log"), writer="process")
    return Config(server=Server(app="x:app"), log=log)


@pytest.fixture
def writer(config: Config) -> Iterator[LogWriter]:
    writer = LogWriter("shop", logs.Logs(config.log, lambda *_: None), lambda: ())
    yield writer
    writer.channel = None
    writer.close()


def test_a_pipe_that_ended_before_the_process_took_it_is_not_sent_by_its_old_number(
    writer: LogWriter, config: Config
) -> None:
    channel: Any = FullChannel()
    writer.channel = channel
    writer.pid = os.getpid()  # there is a process, so that none is started
    first = writer.pipes(config)
    first.close()  # its worker is gone, and has written nothing
    writer.run(float("inf"))
    second = writer.pipes(config)  # by now with the number of the first
    channel.room = True
    writer.run(float("inf"))
    with contextlib.closing(second):
        sent = [inode for _, inode in channel.sent]
        assert sent == [os.fstat(fd).st_ino for fd in second.fds]
