"""Workers that do not run, though they look idle: seen, logged with their stacks, and replaced.

A worker that is stopped (SIGSTOP, a debugger), or of which a thread holds the interpreter in C
code, answers nothing, and the scoreboard shows it idle.  There are no heartbeats.  A worker is
suspected

- when the kernel reports that it was stopped (SIGCHLD, waitid(2));
- when it does not read what siblings have handed over to it (prefork.master.processes.inboxes);
- at a look each ten seconds, if a debugger holds it; or if it has answered no request
  since the last look while others did, or clients wait, or it used a CPU.

Only a suspect is asked to answer: with a pipe that a thread of its own reads under the GIL
(prefork.stack_dump).  So an idle server has no wake-ups for this, but for the master's look.
"""

import contextlib
from collections.abc import Callable, Iterable
from functools import partial
from time import monotonic
from typing import Any
from weakref import WeakKeyDictionary

from msgspec import Struct

from prefork import linux, logs, proc_files
from prefork.listeners import Listener
from prefork.master.periodic import Periodic, next_tick
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Child, Children
from prefork.master.processes.inboxes import Inboxes
from prefork.worker.schedule.accept import WAKE

_LOOK = 10.0
"""Seconds between two looks at all workers."""

_CHECK = 0.1
"""Seconds after which a suspect is checked for an answer, and between two checks at first."""

_PATIENCE = 1.0
"""Seconds without an answer after which a worker is reported; then it is checked each second."""


class _Suspect(Struct):
    since: float
    withdrawn: bool = False
    reported: bool = False


class _Seen(Struct, frozen=True):
    """A worker at the last look."""

    requests: int
    cpu: float
    """Of its CPU time (proc(5))."""


class Liveness(Periodic):
    """Has a worker replaced that has not run for `request_timeout`."""

    due: float | None = 0.0

    def __init__(
        self,
        pool: Pool,
        children: Children,
        inboxes: Inboxes,
        ledger: Ledger,
        listeners: Callable[[], Iterable[Listener]],
    ) -> None:
        """`listeners`: those of the generation that serves."""
        self._pool = pool
        self._children = children
        self._inboxes = inboxes
        self._ledger = ledger
        self._listeners = listeners
        self._suspects: dict[Child, _Suspect] = {}
        self._seen: WeakKeyDictionary[Child, _Seen] = WeakKeyDictionary()
        self._look_at = 0.0

    def suspect(self, child: Child) -> None:
        """A worker may not run: it is asked to answer, and siblings send it nothing meanwhile."""
        if child in self._suspects or child.worker.state is not WorkerState.READY:
            return
        self._inboxes.mark_silent(child)
        self._children.nudge_acceptors()
        if child.stacks is None:
            return  # it can't be asked
        with contextlib.suppress(OSError):  # nor can one that has closed its end
            child.stacks.probe()
            self._suspects[child] = _Suspect(monotonic())
            self.due = min(self._look_at, monotonic() + _CHECK)

    def overslept(self, seconds: float) -> None:
        """The workers stood still too."""
        for suspect in self._suspects.values():
            suspect.since += seconds

    def run(self, now: float) -> None:
        """Checks suspects, and looks at all workers, if that is due."""
        for child in self._children.stopped():
            self.suspect(child)
        if self.due is None or now < self.due:
            return
        if now >= self._look_at:
            self._look()
            self._look_at = next_tick(now, _LOOK)
        young = False
        for child, suspect in list(self._suspects.items()):
            if self._check(child, suspect, now):
                young = young or not suspect.reported
            else:
                del self._suspects[child]
        pause = _CHECK if young else _PATIENCE
        self.due = min(self._look_at, now + pause) if self._suspects else self._look_at

    def _check(self, child: Child, suspect: _Suspect, now: float) -> bool:
        """Whether a worker remains a suspect."""
        if self._children.find(child.pid) is not child:
            return False
        if child.worker.state is not WorkerState.READY:
            return False  # its time to leave is limited
        if _has_answered(child):
            if suspect.reported:
                logs.event("info", "worker runs again", **_fields(child, suspect, now))
            return False
        if not suspect.withdrawn:
            # The system call ends without the GIL: the main thread may be in accept4, and would
            # take a connection with it. Siblings are not to yield to this one before they accept.
            suspect.withdrawn = True
            self._children.signal(child, WAKE)
            self._children.clear_accept_flags(child)
        stands_still = _state(child.pid)[0] in proc_files.STANDS_STILL
        if not stands_still and any(call.started for call in self._children.calls(child)):
            return True  # a call explains it, and `request_timeout` limits that
        if now - suspect.since < _PATIENCE:
            return True
        if not suspect.reported:
            suspect.reported = True
            fields = {**_fields(child, suspect, now), "reason": _reason(child.pid)}
            if stands_still:
                _report_frozen(fields, "")
            else:
                self._children.stacks.request(child, partial(_report_frozen, fields))
        timeout = child.generation.config.workers.request_timeout
        if timeout and now - suspect.since >= timeout:
            self._replace(child, suspect, now)
            return False
        return True

    def _replace(self, child: Child, suspect: _Suspect, now: float) -> None:
        fields = {**_fields(child, suspect, now), "reason": _reason(child.pid)}
        self._children.stacks.request(child, partial(_report_replaced, fields))
        self._ledger.restarted("frozen")
        # With the order to leave comes SIGCONT: one that was stopped can show its stacks, and hand
        # over what it holds.
        self._pool.replace_now(child.pid, now)

    def _look(self) -> None:
        """Suspects the workers that do not seem to run."""
        seen = {
            child: _Seen(self._children.requests(child), _state(child.pid)[1])
            for child in self._children
            if child.worker.state is WorkerState.READY
        }
        before = {child: self._seen[child] for child in seen if child in self._seen}
        progressed = {child for child in before if seen[child].requests != before[child].requests}
        waiting = any(
            linux.listen_queue(listener.sock).depth > 0
            for listener in self._listeners()
            if not listener.closed
        )
        for child in before.keys() - progressed:
            used_cpu = seen[child].cpu != before[child].cpu
            if progressed or waiting or used_cpu or _state(child.pid)[0] in proc_files.STANDS_STILL:
                self.suspect(child)
        self._seen = WeakKeyDictionary(seen)


def _has_answered(child: Child) -> bool:
    return child.stacks is None or child.stacks.has_answered


def _report_frozen(fields: dict[str, Any], stacks: str) -> None:
    logs.event("warning", "worker frozen", **fields, **({"traceback": stacks} if stacks else {}))


def _report_replaced(fields: dict[str, Any], stacks: str) -> None:
    shown = {"traceback": stacks} if stacks else {}
    logs.event("error", "frozen worker replaced", **fields, **shown)


def _reason(pid: int) -> str:
    match _state(pid)[0]:
        case "T":
            return "it is stopped (SIGSTOP)"
        case "t":
            return "a debugger holds it"
        case "D":
            return "it waits in the kernel for a disk, or writes a core dump"
    return (
        "none of its threads gets to run Python code: one holds the interpreter in C code, or the"
        " process gets no CPU"
    )


def _fields(child: Child, suspect: _Suspect, now: float) -> dict[str, Any]:
    return {
        **child.log_fields,
        "elapsed": round(now - suspect.since, 3),
    }


def _state(pid: int) -> tuple[str, float]:
    """(state, seconds of CPU time) of a process; ("", 0.0) if it is gone."""
    try:
        found = proc_files.stat(pid)
    except OSError:
        return "", 0.0
    return found.state, found.cpu
