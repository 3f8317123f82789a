"""New log files after a rotation, and the wait until all processes write to them.

A process that serves a long call in C, or boots, takes the new files when it comes to that.  Until
then a rotated file is not at its end, and must not be compressed.
"""

from collections.abc import Iterable, Mapping
from time import monotonic, monotonic_ns

from prefork import logs
from prefork.channel import Channel, ReopenOrder
from prefork.master.control_server import Reply
from prefork.master.periodic import Periodic
from prefork.master.processes.children import Child, Children
from prefork.master.processes.log_writer import LogWriter, is_wanted
from prefork.master.processes.zygotes import PendingWorker, Zygote, Zygotes
from prefork.worker.schedule.accept import WAKE

PATIENCE = 5.0
"""Seconds for all processes to change files; whoever waits is then answered which have not."""

_LOOK = 0.02
"""Seconds between two looks."""

_LATE_LOOK = 1.0
"""Seconds between two looks when nobody waits any more: the order is repeated until it is carried
out."""

_REPEAT = 0.1
"""Seconds between two signals to a worker, which misses one that comes just before accept4(2)."""

_Holder = Child | Zygote | PendingWorker | LogWriter
"""A process that has log files open, beside the master."""


class LogReopening(Periodic):
    """Opens the files anew, passes them on, and waits for those who have the old ones."""

    due: float | None = None

    def __init__(
        self, log: logs.Logs, children: Children, zygotes: Zygotes, log_writer: LogWriter
    ) -> None:
        self._log = log
        self._children = children
        self._zygotes = zygotes
        self._log_writer = log_writer
        self._clients: list[Reply] = []
        self._number = 0
        self._waiting: dict[Channel, bool] = {}
        """Those that have not confirmed, and whether they were sent the order."""
        self._until = self._wake_at = 0.0
        self._late = False
        """Those who wait were answered which processes have not confirmed in time."""

    @property
    def under_way(self) -> bool:
        """Whether somebody waits for it."""
        return self.due is not None and not self._late

    def begin(self, client: Reply | None = None) -> None:
        """Opens new files in place of rotated ones; `client` is answered when all use them.

        If a file cannot be opened, all stay in use.  One that is under way is answered with this.
        """
        try:
            self._log.reopen()
        except logs.LogError as error:
            logs.event("error", "log files not reopened", reason=str(error))
            if client is not None:
                client.fail(str(error))
            return
        if client is not None:
            self._clients.append(client)
        now = monotonic()
        self._number = monotonic_ns()  # the next master has no lower one
        self._waiting = dict.fromkeys(self._holders(), False)
        self._until, self._wake_at, self._late = now + PATIENCE, now, False
        self.due = now

    def run(self, now: float) -> None:
        """Passes the files on to those that have not got them, and looks who has confirmed."""
        if self.due is None:
            return
        self._log_writer.read_reports()
        holders = self._holders()
        self._waiting = {
            channel: sent
            for channel, sent in self._waiting.items()
            if channel in holders and holders[channel].reopened != self._number
        }
        late = [holders[channel] for channel in self._waiting]
        if not late:
            self.due = None
            return self._answer(late)
        if now >= self._until and not self._late:
            self._late = True
            self._answer(late)
        self._pass_on(holders, now)
        self.due = now + (_LATE_LOOK if self._late else _LOOK)

    def overslept(self, seconds: float) -> None:
        """The processes stood still too."""
        self._until += seconds

    def _pass_on(self, holders: Mapping[Channel, _Holder], now: float) -> None:
        paths, fds = self._log.files()
        wakes = now >= self._wake_at
        for channel, sent in self._waiting.items():
            holder = holders[channel]
            if not sent:  # the log process opens them itself
                own = isinstance(holder, LogWriter)
                order = ReopenOrder(() if own else paths, self._number)
                self._waiting[channel] = channel.send(order, () if own else fds)
            if wakes and isinstance(holder, Child):
                self._children.signal(holder, WAKE)
        if wakes:
            self._wake_at = now + _REPEAT

    def _answer(self, late: Iterable[_Holder]) -> None:
        clients, self._clients = self._clients, []
        names = ", ".join(map(_name, late))
        if not names:
            logs.event("info", "log files reopened")
            for client in clients:
                client.ok()
            return
        logs.event("warning", "log files still in use", processes=names, seconds=PATIENCE)
        for client in clients:
            client.fail(
                f"the log files are reopened, but after {PATIENCE:g} s these still write to the"
                f" rotated ones: {names}"
            )

    def _holders(self) -> dict[Channel, _Holder]:
        """The processes that have log files now, and not only pipes, by their channel.

        A worker keeps its channel when it is no longer pending.
        """
        found: list[Child | Zygote | PendingWorker] = [*self._children, *self._zygotes.all()]
        holders: dict[Channel, _Holder] = {
            each.channel: each for each in found if not is_wanted(each.generation.config)
        }
        if self._log_writer.channel is not None:
            holders[self._log_writer.channel] = self._log_writer
        return holders


def _name(holder: _Holder) -> str:
    match holder:
        case Child():
            return f"worker {holder.pid} (slot {holder.slot})"
        case PendingWorker():
            return f"the worker that is forked for slot {holder.slot}"
        case Zygote():
            return f"zygote {holder.pid}"
    return f"log process {holder.pid}"
