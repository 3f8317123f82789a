"""What each command of the control socket does."""

from prefork import control
from prefork.master.control_server import Reply
from prefork.master.observe.recycler import recycle
from prefork.master.observe.status_report import status
from prefork.master.operations import Operations
from prefork.master.processes.children import Child
from prefork.master.upgrade.exec import MasterParts


class ControlCommands:
    """Carries out the commands of control clients."""

    def __init__(self, operations: Operations, parts: MasterParts) -> None:
        self._operations = operations
        self._parts = parts

    def handle(self, command: control.Command, reply: Reply) -> None:
        """Carries out a command; `reply` gets the answer now or later.  Raises ControlError."""
        match command:
            case control.StatusCommand():
                report = status(self._parts)
                if report["lost"]:  # the kernel has not reported it
                    self._operations.files.look()
                reply.ok(**report)
            case control.RetireCommand(slot):
                self._retire(slot, reply)
            case control.StackCommand(slot):
                self._stack(slot, reply)
            case control.ReloadCommand():
                self._operations.reload(reply)
            case control.UpgradeCommand():
                self._operations.upgrade(reply)
            case control.ReopenCommand():
                self._operations.reopening.begin(reply)
            case control.ScaleCommand(count):
                try:
                    reply.ok(target=self._operations.scale(count))
                except ValueError as error:
                    reply.fail(str(error))
            case control.StopCommand():
                self._operations.ensure_stop()
                reply.ok_until_exit()

    def _worker(self, slot: int) -> Child:
        """Raises ControlError."""
        children = self._parts.children
        for child in children:
            if child.slot == slot:
                return child
        slots = ", ".join(map(str, sorted(child.slot for child in children))) or "none"
        raise control.ControlError(f"no worker has slot {slot}; slots with a worker: {slots}")

    def _retire(self, slot: int, reply: Reply) -> None:
        child = self._worker(slot)
        if recycle(self._parts.pool, self._parts.ledger, child, "by_hand", "by hand"):
            reply.ok()
        else:
            reply.fail(f"the worker in slot {slot} is booting or is being retired already")

    def _stack(self, slot: int, reply: Reply) -> None:
        child = self._worker(slot)

        def answer(stack: str) -> None:
            if stack:
                reply.ok(pid=child.pid, stack=stack)
            else:
                reply.fail(
                    f"worker {child.pid} has not written its stacks;"
                    " is it stopped, or waiting for a disk?"
                )

        self._parts.children.stacks.request(child, answer)
