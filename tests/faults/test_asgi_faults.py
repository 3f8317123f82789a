"""Reloads, upgrades, a kill and a stop of ASGI workers under load lose nothing that need not be."""

import contextlib
import os
import signal
import socket
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.path_load import PathLoad, tcp
from tests.support.raw_http import Raw
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE

WORKERS = 2


def serve(start: Start, loop: str = "auto") -> Server:
    settings = (
        *("server.protocol=asgi", f"workers.count={WORKERS}", f"workers.loop={loop}"),
        "workers.graceful_timeout=4",
    )
    given = [part for setting in settings for part in ("--set", setting)]
    return start("tests.apps.async_basic:app", *given).wait_ready(WORKERS)


class Streams:
    """Clients with a stream of events each; one that ends is asked for anew."""

    def __init__(self, server: Server, path: str, number: int) -> None:
        self.ended = 0
        """Streams that the server has ended as it should."""
        self.failures: Counter[str] = Counter()
        self._server = server
        self._ask = f"GET /events?path={path} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        self._over = threading.Event()
        self._socks: dict[int, socket.socket] = {}
        self._threads = [
            threading.Thread(target=self._run, args=(each,), daemon=True) for each in range(number)
        ]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        while not self._over.is_set():
            try:
                with self._server.connect() as sock:
                    self._socks[number] = sock
                    raw = Raw(sock)
                    raw.send(self._ask)
                    assert raw.head().status == 200
                    assert b"".join(raw.chunks()) == b"data: 1\n\ndata: 2\n\n"
                    self.ended += 1
            except (OSError, AssertionError) as problem:
                if not self._over.is_set():
                    self.failures[f"{type(problem).__name__}: {problem}"] += 1

    def end(self) -> None:
        self._over.set()
        for sock in self._socks.values():
            with contextlib.suppress(OSError):
                sock.shutdown(2)
        for thread in self._threads:
            thread.join(PATIENCE)
        assert not self.failures, self.failures


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_reloads_under_load_lose_nothing(start: Start, tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(start, loop)
    load = PathLoad(tcp(server.port), one_shot=2, kept=3)
    streams = Streams(server, f"{tmp_path}/stream", 4)
    for number in range(2, 12):
        load.wait_answers(20)
        server.command("reload")
        server.wait("generation settled", generation=number)
    load.wait_answers(20)
    load.end()
    server.wait("worker exited", WORKERS * 10)
    streams.end()
    assert streams.ended >= 4
    assert not server.find("worker killed")


def test_upgrades_under_load_lose_nothing(start: Start, tmp_path: Path) -> None:
    server = serve(start)
    load = PathLoad(tcp(server.port), one_shot=2, kept=3)
    streams = Streams(server, f"{tmp_path}/stream", 4)
    for _ in range(3):
        load.wait_answers(20)
        server.command("upgrade")
    load.wait_answers(20)
    load.end()
    streams.end()


def test_a_worker_that_is_killed_costs_only_what_it_had(start: Start) -> None:
    server = serve(start)
    server.expected_errors.add("worker died")
    load = PathLoad(tcp(server.port), one_shot=2, kept=3)
    for number in range(3):
        load.wait_answers(20)
        os.kill(server.ready_pids()[0], signal.SIGKILL)
        server.wait("worker ready", WORKERS + number + 1)
    load.wait_answers(20)
    load.end_with_losses(3 * 5)


def test_a_stop_under_load_answers_all_that_was_accepted(start: Start) -> None:
    server = serve(start)
    load = PathLoad(tcp(server.port), one_shot=3, kept=3)
    load.wait_answers(100)
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    load.join()
    assert not load.failures
