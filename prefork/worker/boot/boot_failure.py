"""Why a worker or a zygote cannot boot, for the master to log."""

from prefork import logs
from prefork.apps.application_loader import LoadError
from prefork.channel import Channel, FailedReport
from prefork.worker.boot.own_descriptors import OwnDescriptors
from prefork.worker.boot.warmup import WarmupError

FAILED_TO_BOOT = 3
"""Exit status of a worker or a zygote whose application could not be loaded."""


def report_failure(channel: Channel, own: OwnDescriptors | None, problem: BaseException) -> None:
    """Sends the master the reason; if the application has closed the channel, it is logged.

    own: None before anything of the application was imported.
    """
    if own is None or own.is_open(channel.fileno()):
        channel.send(FailedReport(describe(problem)))
    else:  # the log may be closed as well, but for the standard error
        logs.event("error", "worker failed to boot", traceback=describe(problem))


def describe(problem: BaseException) -> str:
    """One line for a user's mistake, and the application's traceback for all else."""
    if isinstance(problem, (LoadError, WarmupError, logs.LogError)):
        return str(problem)
    return logs.application_traceback(problem)
