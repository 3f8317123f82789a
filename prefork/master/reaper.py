"""Dead workers: reaped, logged and counted."""

from prefork import logs
from prefork.master.periodic import Periodic
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Children, Death
from prefork.master.processes.inboxes import Inboxes
from prefork.master.processes.log_writer import LogWriter
from prefork.master.processes.zygotes import Zygotes


class Reaper(Periodic):
    """Looks for the dead in each round of the loop: SIGCHLD has ended its wait."""

    def __init__(
        self,
        pool: Pool,
        children: Children,
        zygotes: Zygotes,
        log_writer: LogWriter,
        inboxes: Inboxes,
        ledger: Ledger,
    ) -> None:
        self._pool = pool
        self._children = children
        self._zygotes = zygotes
        self._log_writer = log_writer
        self._inboxes = inboxes
        self._ledger = ledger

    @property
    def due(self) -> float | None:
        return 0.0 if self._children.more_dead else None

    def run(self, now: float) -> None:
        for death in self._children.reap(self._zygotes, self._log_writer):
            self._report(death, now)

    def _report(self, death: Death, now: float) -> None:
        child = death.child
        self._inboxes.worker_gone(child)
        verdict = self._pool.died(child.pid, death.how, now, sigkill=death.sigkill)
        expected = verdict.expected and not death.crashed
        calls = [call for call in self._children.calls(child) if call.started]
        level: logs.Level = "info" if expected or verdict.reported else "error"
        if calls:
            # To cut requests off is what a stop at once is for.
            level = "warning" if level == "info" and self._pool.stops_at_once else "error"
        if death.sigkill and level == "info" and self._pool.stopping and not self._pool.ever_ready:
            level = "debug"  # killed because of another one, which could not boot
        logs.event(
            level,
            "worker exited" if expected else "worker died",
            **child.log_fields,
            how=death.how,
            **({"during": "; ".join(call.line for call in calls)} if calls else {}),
        )
        self._children.nudge_acceptors()
        self._ledger.add_dead(self._children.counters(child))
        if verdict.restart is not None:
            self._ledger.restarted(verdict.restart)
