"""The master's side of the process that writes the logs of workers.

The master makes the pipes and keeps the ends from which is read until they are empty: so the
process can die, and the next one goes on where it was.
"""

import contextlib
import os
import random
import select
import signal
import time
from collections.abc import Callable, Iterable
from time import monotonic

from prefork import logs, system_errors
from prefork.channel import Channel, LogPipeOrder, ReopenedReport, StopOrder
from prefork.config import Config
from prefork.logs.log_pipe import CopyJournal, LogPipeEnds, create_pipe
from prefork.master.periodic import Periodic
from prefork.master.pool.backoff import Backoff
from prefork.master.pool.roster import PROBATION
from prefork.master.processes.log_process import LogProcessArgs, PipeToCopy, run_log_process
from prefork.master.snapshot import LogWriterSnapshot
from prefork.quantity import quantity
from prefork.worker.boot.fork_protection import fork

_LOOK = 1.0
"""Seconds between two looks for pipes that have ended."""

_LAST_LINES = 5.0
"""Seconds that the process gets to write the last lines when the server ends."""


def is_wanted(config: Config) -> bool:
    """Whether workers of a configuration get pipes in place of log files.

    By default they do if they have another user than the master: the same user could open the
    files by itself.
    """
    if config.log.writer == "auto":
        return config.process.user is not None or config.process.group is not None
    return config.log.writer == "process"


class LogWriter(Periodic):
    """The process, if there is one, and all pipes that are not empty for good."""

    def __init__(self, name: str, log: logs.Logs, foreign: Callable[[], Iterable[int]]) -> None:
        """`name`: of the server.  `foreign`: descriptors that are the master's alone."""
        self._name = name
        self._log = log
        self._foreign = foreign
        self._journal = CopyJournal()
        self.channel: Channel | None = None
        """To the process, None if there is none."""
        self.pid = 0
        self.reopened = 0
        """The number of the last ReopenOrder that it has carried out."""
        self._pipes: dict[int, PipeToCopy] = {}
        self._unsent: list[PipeToCopy] = []
        self._number = 0
        self._backoff = Backoff(random.Random())
        self._last_failure = ""
        self._started_at = 0.0
        self._start_at: float | None = None
        self._look_at: float | None = None

    # What the other parts of the master want.

    def pipes(self, config: Config) -> LogPipeEnds:
        """The ends for a process that is about to be forked; the caller closes its copies.

        Raises OSError if there is no descriptor left.
        """
        if not is_wanted(config):
            return LogPipeEnds()
        targets = tuple(self._log.piped(config.log))
        fds: list[int] = []
        made = []
        try:
            for target in targets:
                reader, writer = create_pipe()
                fds.append(writer)
                self._number += 1
                made.append(PipeToCopy(self._number, target, reader))
        except OSError:
            for fd in (*fds, *(pipe.fd for pipe in made)):
                os.close(fd)
            raise
        self._pipes.update((pipe.number, pipe) for pipe in made)
        self._unsent += made
        self._send()
        if made and not self.pid and self._start_at is None:
            self._start_at = 0.0
        return LogPipeEnds(targets, tuple(fds))

    def read_reports(self) -> None:
        """Reads what the process has confirmed."""
        with contextlib.suppress(EOFError):  # it is dying
            while self.channel is not None and (report := self.channel.receive_report()):
                if isinstance(report, ReopenedReport):
                    self.reopened = report.number

    def died(self, pid: int, how: str, *, sigkill: bool) -> None:
        """A child was reaped; it may be this process."""
        if pid != self.pid:
            return
        self.pid = 0
        self._close_channel()
        now = monotonic()
        if now - self._started_at >= PROBATION:
            self._backoff.reset()
        elif not (sigkill and self._journal.used):  # a SIGKILL says nothing of one that works
            self._backoff.fail(self._backoff.round, now)
        logs.event("error", "log process died", pid=pid, how=how, **self._start_later(how, now))

    def problem(self, now: float) -> str:
        """Why no process copies, or why the one that does is not trusted yet; "" if all is well."""
        times = self._backoff.failures
        if not times or (self.pid and now - self._started_at >= PROBATION):
            return ""
        text = f"failed {quantity(times, 'time')} in a row ({self._last_failure})"
        if self._start_at is None:
            return text
        return f"{text}; the next one is started in {max(self._start_at - now, 0.0):.1f} s"

    # The loop.

    @property
    def due(self) -> float | None:
        times = [time for time in (self._start_at, self._look_at) if time is not None]
        return min(times, default=None)

    def run(self, now: float) -> None:
        """Starts the process, and closes pipes that have ended, if that is due."""
        if self._start_at is not None and now >= self._start_at:
            self._start()
        if self._look_at is not None and now >= self._look_at:
            self._send()
            for number, pipe in list(self._pipes.items()):
                if _has_ended(pipe.fd):
                    os.close(pipe.fd)
                    del self._pipes[number]
            self._unsent = [pipe for pipe in self._unsent if pipe.number in self._pipes]
            self._look_at = now + _LOOK if self._pipes else None

    def start_for_last_lines(self) -> None:
        """The server is about to end: a process that was to be started later is started now."""
        if self._start_at is not None and self._pipes:
            self._start()

    def descriptors(self) -> list[int]:
        channel = [self.channel.fileno()] if self.channel is not None else []
        return [*channel, *(pipe.fd for pipe in self._pipes.values())]

    def close(self) -> None:
        """The server has stopped: the last lines are written before its last one."""
        if self.channel is not None:
            self.channel.send(StopOrder(()))
        self._close_channel()
        self._end_process(_LAST_LINES)
        for pipe in self._pipes.values():
            os.close(pipe.fd)
        self._pipes.clear()

    # From one master to the next.

    def snapshot(self) -> LogWriterSnapshot | None:
        if not self.pid and not self._pipes:
            return None
        return LogWriterSnapshot(
            pid=self.pid,
            pipes=tuple((pipe.number, pipe.target, pipe.fd) for pipe in self._pipes.values()),
        )

    def restore(self, state: LogWriterSnapshot) -> None:
        """Goes on with the pipes of the master before; its process leaves, as its channel ended."""
        self.pid = state.pid
        self._end_process(_LAST_LINES)
        for number, target, fd in state.pipes:
            os.set_inheritable(fd, False)
            self._pipes[number] = PipeToCopy(number, target, fd)
        self._number = max(self._pipes, default=0)
        self._start_at = 0.0

    # The process.

    def _start(self) -> None:
        self._start_at = None
        self._started_at = monotonic()
        self._journal.used = False
        try:
            ours, theirs = Channel.pair()
        except OSError as problem:
            return self._failed(problem)
        try:
            foreign = set(self._foreign()) - {pipe.fd for pipe in self._pipes.values()}
            args = LogProcessArgs(
                name=self._name,
                master=os.getpid(),
                channel=theirs,
                pipes=tuple(self._pipes.values()),
                journal=self._journal,
                logs=self._log,
                foreign=(*foreign, ours.fileno()),
            )
            self.pid = fork(lambda: run_log_process(args))
        except OSError as problem:
            ours.close()
            return self._failed(problem)
        finally:
            theirs.close()
        self.channel = ours
        self._unsent = []
        self._look_at = monotonic() + _LOOK

    def _failed(self, problem: OSError) -> None:
        now, reason = monotonic(), system_errors.explain(problem)
        self._backoff.fail(self._backoff.round, now, free=False)
        logs.event(
            "error", "log process not started", reason=reason, **self._start_later(reason, now)
        )

    def _start_later(self, failure: str, now: float) -> dict[str, float]:
        """Plans the next start as the backoff says; returns in how many seconds, for the log."""
        self._last_failure = failure
        self._start_at = max(self._backoff.not_before, now)
        return {"next": round(self._start_at - now, 3)}

    def _send(self) -> None:
        """Sends the process the pipes that it does not have; it may not take them now."""
        self._look_at = self._look_at or monotonic() + _LOOK
        while self.channel is not None and self._unsent:
            pipe = self._unsent[0]
            if not self.channel.send(LogPipeOrder(pipe.number, pipe.target), (pipe.fd,)):
                return
            del self._unsent[0]

    def _close_channel(self) -> None:
        if self.channel is not None:
            self.channel.close()
            self.channel = None

    def _end_process(self, seconds: float) -> None:
        """Waits for the process, whose channel has ended, and kills it after some time."""
        until = monotonic() + seconds
        while self.pid:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(self.pid, os.WNOHANG) == (0, 0):
                    if monotonic() >= until:
                        os.kill(self.pid, signal.SIGKILL)
                    time.sleep(0.002)
                    continue
            self.pid = 0


def _has_ended(fd: int) -> bool:
    """Whether a pipe is empty, and no process can write to it any more."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return any(events & select.POLLHUP and not events & select.POLLIN for _, events in poll.poll(0))
