"""Functions of the application's that are called at moments of a worker's life.

They are found when the application's code may first run, not when they are due: a wrong name fails
the boot, and not the end.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from prefork import logs
from prefork.apps.application_loader import find


class WorkerInfo(Struct, frozen=True):
    """What a hook is told: the worker that it is about."""

    slot: int
    generation: int
    pid: int
    """Of the process in which the hook runs: for before_fork that is not the worker's."""
    name: str
    """Of the server."""


Hook = Callable[[WorkerInfo], object]


class Hooks:
    """The functions that `workers.hooks` names, by the moment of their call.

    Raises LoadError, and whatever their modules raise when they are imported.
    """

    def __init__(self, targets: Mapping[str, str]) -> None:
        self._hooks: dict[str, Hook] = {
            moment: find(target, f"workers.hooks.{moment}") for moment, target in targets.items()
        }

    def call(self, moment: str, worker: WorkerInfo) -> None:
        """Calls the function for this moment, if there is one; raises what it raises."""
        if hook := self._hooks.get(moment):
            hook(worker)

    def call_last(self, moment: str, worker: WorkerInfo) -> None:
        """The same where nothing can fail any more: what it raises is logged."""
        try:
            self.call(moment, worker)
        except BaseException as problem:  # SystemExit too: the worker leaves in its own way
            logs.event("error", "hook failed", hook=moment, traceback=logs.traceback_of(problem))
