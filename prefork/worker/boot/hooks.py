"""Functions of the application that are called at certain moments of a worker's life.

They are imported when the application's code may first run, not when they are called: a wrong name
fails the boot, and not the end.
"""

from collections.abc import Callable, Mapping

from msgspec import Struct

from prefork import logs
from prefork.apps.application_loader import find


class WorkerInfo(Struct, frozen=True):
    """The argument of a hook: the worker for which it is called."""

    slot: int
    generation: int
    pid: int
    """Of the process in which the hook runs; in before_fork that is not the worker's."""
    name: str
    """Of the server."""


Hook = Callable[[WorkerInfo], object]


class Hooks:
    """The functions that `workers.hooks` names, by the moment at which they are called.

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
        """The same at the end of a worker, which cannot fail any more: an exception is logged."""
        try:
            self.call(moment, worker)
        except BaseException as problem:  # SystemExit too: the worker leaves in its own way
            logs.event(
                "error", "hook failed", hook=moment, traceback=logs.application_traceback(problem)
            )
