"""A worker gives up what an application does not need: [process] landlock, seccomp, dumpable."""

import os
from collections.abc import Iterable, Mapping

from prefork import landlock, linux, seccomp, temporary_file
from prefork.apps.application_loader import LoadError
from prefork.config import Config
from prefork.config.sandbox import missing

_DEVICES = ("null", "zero", "full", "random", "urandom", "tty", "shm")
"""What may be written in /dev: it changes nothing that stays.  /dev/shm is for `multiprocessing`
and other shared memory."""

_PROMETHEUS = ("PROMETHEUS_MULTIPROC_DIR", "prometheus_multiproc_dir")
"""Variables that name the directory of prometheus-client's files."""


def confine(config: Config) -> None:
    """Confines this process for good, as [process] says.

    To be called after rights were dropped (a change of credentials makes a process dumpable or
    not, and without root's rights no_new_privs has to be set), before anything of the application
    is imported, and while there is one thread: each binds only the calling thread and those that it
    starts.  A fork inherits all of it.  Raises LoadError.
    """
    process = config.process
    lacks = missing(process)
    for key, reason in lacks.items():
        if getattr(process, key.removeprefix("process.")) == "require":
            raise LoadError(f"{key}: {reason}")
    if process.dumpable is not None:
        linux.set_dumpable(process.dumpable)
    if process.landlock != "off" and landlock.version():
        _forbid_writes(config)
    if process.seccomp != "off" and "process.seccomp" not in lacks:
        try:
            seccomp.forbid_calls(process.seccomp_allow)  # last: it may refuse what comes after it
        except OSError as problem:
            raise LoadError(f"process.seccomp: {problem.strerror}") from None


def confine_signals(config: Config) -> None:
    """Lets this process send signals to itself and its descendants only, if Landlock is on.

    To be called in each worker: those of one zygote could otherwise send them to each other.
    """
    if config.process.landlock != "off":
        try:
            landlock.forbid_signals()
        except OSError as problem:
            raise LoadError(f"process.landlock: {problem.strerror}") from None


def _forbid_writes(config: Config) -> None:
    own = _own_paths(os.environ | config.server.env)
    try:
        landlock.forbid_writes([*own, *config.process.writable])
    except OSError as problem:
        if problem.filename is None:
            raise LoadError(f"process.landlock: {problem.strerror}") from None
        raise LoadError(f"process.writable: {problem.filename}: {problem.strerror}") from None


def _own_paths(environ: Mapping[str, str]) -> list[str]:
    """What may be written without being named in `writable`, as far as it exists."""
    temporary = _named(environ, temporary_file.VARIABLES) or temporary_file.DIRECTORIES
    devices = (f"/dev/{name}" for name in _DEVICES)
    paths = (*temporary, *devices, *_named(environ, _PROMETHEUS))
    return [path for path in paths if os.path.exists(path)]


def _named(environ: Mapping[str, str], variables: Iterable[str]) -> list[str]:
    paths = (environ.get(name, "") for name in variables)
    return [path for path in paths if os.path.exists(path)]
