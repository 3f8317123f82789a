"""The process that copies the lines of workers to the log files (prefork.logs.log_pipe).

It has the rights of the master, runs no code of the application, and knows only pipes and files.
It ends when the master ends its channel, or with it: after a stop, and when the master is dead, it
copies what is left first.  After an exec of the master it leaves at once, since its successor has
the same pipes.
"""

import os
import select
import signal
import time
from collections.abc import Iterable
from typing import NoReturn

import setproctitle
from msgspec import Struct

from prefork import logs
from prefork.channel import Channel, LogPipeOrder, ReopenedReport, ReopenOrder, StopOrder
from prefork.logs.log_pipe import CopyJournal, LogPipe, create_pipe
from prefork.worker.boot.fork_protection import drop_master_state, unblock_signals

_NAP = 0.01
"""Seconds between two looks at the pipes, so that many lines are copied at once."""

_TRY_AGAIN = 1.0
"""Seconds until a file that cannot be opened is tried again; its lines wait in their pipes."""


class PipeToCopy(Struct, frozen=True):
    """The end of a pipe that belongs to this process."""

    number: int
    target: str
    fd: int


class LogProcessArgs(Struct, frozen=True):
    """What the process gets."""

    name: str
    """Of the server."""
    master: int
    """Process id of the master."""
    channel: Channel
    pipes: tuple[PipeToCopy, ...]
    journal: CopyJournal
    logs: logs.Logs
    foreign: tuple[int, ...]
    """Descriptors that are the master's alone."""


def run_log_process(args: LogProcessArgs) -> NoReturn:
    """The whole life of the process, in the child of a fork with all signals blocked."""
    status = 1
    try:
        drop_master_state(args.foreign)
        # The service manager sends it to all processes; this one has to be the last.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        signal.signal(signal.SIGQUIT, signal.SIG_IGN)
        logs.set_role("log process")
        setproctitle.setproctitle(f"prefork: logs [{args.name}]")
        unblock_signals()
        _LogProcess(args).run()
        status = 0
    except BaseException as problem:
        logs.event("error", "log process failed", traceback=logs.traceback_of(problem))
    finally:
        os._exit(status)


class _LogProcess:
    def __init__(self, args: LogProcessArgs) -> None:
        self._master = args.master
        self._channel = args.channel
        self._journal = args.journal
        self._logs = args.logs
        self._sinks: dict[str, logs.LogSink] = {}
        self._pipes: dict[int, LogPipe] = {}  # by descriptor
        self._waiting = list(args.pipes)
        """Those whose file is not open."""
        self._try_at = 0.0
        self._scratch = create_pipe()
        self._poll = select.epoll()
        self._poll.register(self._channel.fileno(), select.EPOLLIN)
        self._ends = self._drains = False

    def run(self) -> None:
        """Copies until the channel's end."""
        while not self._ends:
            self._open_waiting()
            self._look(_TRY_AGAIN if self._waiting else None)
            time.sleep(_NAP)
        while self._drains and self._pipes:
            # After a stop, programs that the application has left behind may hold ends for ever.
            alone = os.getppid() != self._master
            if not self._look(None if alone else 0.0):
                return

    def _look(self, seconds: float | None) -> int:
        """Waits once and copies what has come; returns the number of pipes that had something."""
        copied = 0
        for fd, events in self._poll.poll(seconds):
            if fd == self._channel.fileno():
                self._obey()
            elif not self._pipes[fd].copy(self._scratch, ended=not events & select.EPOLLIN):
                self._poll.unregister(fd)
                del self._pipes[fd]
                os.close(fd)
            else:
                copied += 1
        return copied

    def _obey(self) -> None:
        try:
            while packet := self._channel.receive_order():
                order, fds = packet
                if isinstance(order, LogPipeOrder) and fds:
                    self._waiting.append(PipeToCopy(order.number, order.target, fds[0]))
                    self._try_at = 0.0
                elif isinstance(order, ReopenOrder):
                    self._reopen(order.number)
                elif isinstance(order, StopOrder):
                    self._drains = True
        except EOFError:
            self._poll.unregister(self._channel.fileno())
            self._ends = True
            self._drains = self._drains or os.getppid() != self._master

    def _open_waiting(self) -> None:
        """Begins to copy from the pipes whose file can be opened."""
        if not self._waiting or time.monotonic() < self._try_at:
            return
        self._try_at = time.monotonic() + _TRY_AGAIN
        waiting, self._waiting = self._waiting, []
        for pipe in waiting:
            try:
                sink = self._sink(pipe.target)
            except logs.LogError as problem:
                logs.event("error", "log file not opened", log=pipe.target, reason=str(problem))
                self._waiting.append(pipe)
                continue
            self._pipes[pipe.fd] = LogPipe(pipe.number, pipe.fd, sink, self._journal)
            self._poll.register(pipe.fd, select.EPOLLIN)

    def _sink(self, target: str) -> logs.LogSink:
        if target not in self._sinks:
            self._sinks[target] = logs.LogSink("error", target, _report_loss)
        return self._sinks[target]

    def _reopen(self, number: int) -> None:
        """Opens new files of the same paths after a rotation, and confirms that."""
        sinks: Iterable[logs.LogSink] = self._sinks.values()
        try:
            self._logs.reopen()
            for sink in sinks:
                if sink.is_file:
                    fd = sink.open()
                    sink.replace(fd)
                    os.close(fd)
        except logs.LogError as problem:
            logs.event("error", "log files not reopened", reason=str(problem))
        else:
            self._channel.send(ReopenedReport(number))


def _report_loss(target: str, lines: int, reason: str) -> None:
    logs.event("error", "log lines lost", log=target, lines=lines, reason=reason)
