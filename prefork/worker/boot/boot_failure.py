"""Why a worker or a zygote cannot boot, for the master to log."""

import os

import prefork
from prefork import logs
from prefork.apps.application_loader import LoadError
from prefork.worker.boot.warmup import WarmupError

FAILED_TO_BOOT = 3
"""Exit status of a worker or a zygote whose application could not be loaded."""


def describe(problem: BaseException) -> str:
    """One line for a user's mistake, and the application's traceback for all else."""
    if isinstance(problem, (LoadError, WarmupError, logs.LogError)):
        return str(problem)
    return application_traceback(problem)


def application_traceback(problem: BaseException) -> str:
    """The traceback of an exception without our own frames above the application's."""
    import traceback

    frames = traceback.extract_tb(problem.__traceback__)
    here = os.path.dirname(prefork.__file__)
    ours = 0
    while ours < len(frames) and _is_ours(frames[ours].filename, here):
        ours += 1
    shown = traceback.TracebackException.from_exception(problem)
    shown.stack = traceback.StackSummary.from_list(frames[ours:] or frames)
    return "".join(shown.format()).rstrip()


def _is_ours(filename: str, here: str) -> bool:
    return filename.startswith((here, "<frozen importlib")) or "/importlib/" in filename
