"""Why a worker or a zygote cannot boot, for the master to log."""

from prefork import logs
from prefork.apps.application_loader import LoadError
from prefork.worker.boot.warmup import WarmupError

FAILED_TO_BOOT = 3
"""Exit status of a worker or a zygote whose application could not be loaded."""


def describe(problem: BaseException) -> str:
    """One line for a user's mistake, and the application's traceback for all else."""
    if isinstance(problem, (LoadError, WarmupError, logs.LogError)):
        return str(problem)
    return logs.application_traceback(problem)
