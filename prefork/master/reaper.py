"""Dead workers: reaped, logged and counted."""

from prefork import logs
from prefork.master.periodic import Periodic
from prefork.master.pool import plan
from prefork.master.pool.ledger import Ledger, Restart
from prefork.master.pool.plan import WorkerState
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Children, Death
from prefork.master.processes.inboxes import Inboxes
from prefork.master.processes.zygotes import Zygotes


class Reaper(Periodic):
    """Looks for the dead in each round of the loop: SIGCHLD has ended its wait."""

    def __init__(
        self, pool: Pool, children: Children, zygotes: Zygotes, inboxes: Inboxes, ledger: Ledger
    ) -> None:
        self._pool = pool
        self._children = children
        self._zygotes = zygotes
        self._inboxes = inboxes
        self._ledger = ledger

    def run(self, now: float) -> None:
        for death in self._children.reap(self._zygotes):
            self._bury(death, now)

    def _bury(self, death: Death, now: float) -> None:
        child = death.child
        self._inboxes.vacate(child)
        worker = self._pool.find(child.pid)
        expected = worker is None or (worker.state is WorkerState.RETIRING and not death.sigkill)
        # A kill of ours was announced then, with its reason; the end of a generation is told
        # with its cause.
        quiet = expected or (
            worker is not None and (worker.killed or worker.generation == self._pool.candidate)
        )
        calls = [call for call in self._children.calls(child) if call.started]
        logs.event(
            "info" if quiet and not calls else "error",
            "worker exited" if expected else "worker died",
            slot=child.slot,
            pid=child.pid,
            generation=child.generation.number,
            how=death.how,
            **({"during": "; ".join(call.line for call in calls)} if calls else {}),
        )
        self._ledger.bury(self._children.counters(child))
        if reason := self._restart(worker, expected):
            self._ledger.restarted(reason)
        self._pool.died(child.pid, death.how, now, sigkill=death.sigkill)

    def _restart(self, worker: plan.Worker | None, expected: bool) -> Restart | None:
        """Why a dead worker has to be replaced; None where it is not, or was counted before."""
        if worker is None or self._pool.stopping:
            return None
        if not expected:
            if worker.state is WorkerState.RETIRING:  # it was killed on its way out
                return None
            return "boot_failed" if worker.state is WorkerState.BOOTING else "crashed"
        replaced = worker.generation < (self._pool.current or 0) and worker.worn is None
        return "reload" if replaced and worker.state is WorkerState.RETIRING else None
