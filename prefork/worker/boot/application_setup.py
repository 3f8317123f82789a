"""The surroundings of the application, made before anything of it is imported."""

import os
import sys

from prefork import logs, systemd
from prefork.apps.application_loader import LoadError
from prefork.config import Config
from prefork.worker.boot.confinement import confine
from prefork.worker.boot.hooks import Hooks
from prefork.worker.boot.resource_limits import set_limits
from prefork.worker.boot.rights import drop_rights
from prefork.worker.boot.worker_args import WorkerContext


def restrict(context: WorkerContext) -> dict[str, str]:
    """Takes all rights away that the application is not to have, while there is one thread.

    Limits and log files come first, since they may take root's rights.  Returns the environment
    variables of the user.  Raises LoadError, LogError.
    """
    config = context.config
    if config.process.stdin == "null":
        _read_nothing()
    set_limits(config.process.limits)
    context.logs.reconfigure(config.log)
    context.logs.pass_through(context.log_pipes)
    user = drop_rights(config.process, context.master)
    confine(config)
    return user


def set_up_application(config: Config, user: dict[str, str]) -> Hooks:
    """Makes the application's surroundings, and finds its hooks; `user`: as `restrict` returns it.

    Raises LoadError, LogError, and whatever the hooks' modules raise when they are imported.
    """
    set_environment(config, user)
    return Hooks(config.workers.hooks)


def _read_nothing() -> None:
    """Replaces the standard input by /dev/null, also what was read ahead of it."""
    null = os.open(os.devnull, os.O_RDONLY)
    os.dup2(null, 0)
    os.close(null)
    sys.stdin = open(0, closefd=False)  # noqa: SIM115 - it stays open


def set_environment(config: Config, user: dict[str, str]) -> None:
    """Sets environment, directory and module path; `user`: the variables of its account.

    Raises LoadError if there is no such directory.
    """
    server = config.server
    systemd.remove_variables(os.environ)
    os.environ.update(user | server.env)
    try:
        os.chdir(server.chdir)
    except OSError as problem:
        raise LoadError(f"server.chdir: {server.chdir}: {problem.strerror}") from None
    for path in reversed((server.chdir, *server.pythonpath)):
        if path not in sys.path:
            sys.path.insert(0, path)
    logs.configure_application(config.log.config)
