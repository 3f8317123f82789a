"""The start of a server: everything that can fail before anything is forked."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from prefork import StartError, logs, system_errors
from prefork.config import ConfigError, Source, load
from prefork.control import ControlError, default_path, link_default_path
from prefork.listeners import ListenError
from prefork.master.daemon import Detached, Starter, detach
from prefork.master.main_loop import Master
from prefork.master.observe.threads_at_fork import warn_of_threads
from prefork.master.pidfile import PidFile, PidFileError
from prefork.master.pool.ledger import Ledger, begin
from prefork.master.processes.generation import Generation, prepare
from prefork.master.rollout.reload import Reloads
from prefork.master.snapshot import SnapshotError
from prefork.master.start_state import known_state
from prefork.master.upgrade.exec import ExecArgs, adopt, exec_args, receive
from prefork.scoreboard import ScoreboardError
from prefork.unpatched import is_patched


def serve(
    source: Source,
    *,
    watch: bool = False,
    announce: Callable[[Generation], None] = lambda generation: None,
    detached: Callable[[int], None] = lambda pid: None,
) -> int:
    """Runs a server until it is stopped, and returns its exit status.

    With [process] daemon it returns 0 when the daemon serves; in the daemon, which is the result of
    two forks, it ends the process.

    watch: reload whenever a file of the application or the configuration changes.
    announce: called with the first generation when its listeners are open; not after an upgrade.
    detached: called with the process id of a daemon that serves.

    Raises StartError; nothing is left behind then.
    """
    if is_patched():
        raise StartError(
            "the threads of Python are replaced in this process (by gevent's patch_all() or"
            " eventlet's monkey_patch()); call that in the module of the application, which only"
            " the workers import"
        )
    handover = exec_args()
    if handover is not None:
        return _replace_master(source, handover, watch)
    with known_state():
        return _serve(source, watch, announce, detached)


def _serve(
    source: Source,
    watch: bool,
    announce: Callable[[Generation], None],
    detached: Callable[[int], None],
) -> int:
    try:
        process = load(source).config.process
    except ConfigError as error:
        raise StartError(str(error)) from None
    if not process.daemon:
        return _start(source, process.pidfile, watch, announce, None)
    try:
        starter = detach()
    except Detached as outcome:
        if outcome.status:
            raise StartError(outcome.reason, outcome.status) from None
        detached(outcome.pid)
        return 0
    except OSError as error:
        reason = system_errors.explain(error)
        raise StartError(f"the daemon cannot be started: {reason}") from None
    try:
        status = _start(source, process.pidfile, watch, announce, starter)
    except StartError as error:
        starter.failed(error.status, str(error))
        status = error.status
    # The code of the caller after this call runs in the first process.
    os._exit(status)


def _start(
    source: Source,
    pidfile_path: str | None,
    watch: bool,
    announce: Callable[[Generation], None],
    starter: Starter | None,
) -> int:
    if watch:
        from prefork.master.rollout.file_watcher import (
            require_watcher,  # with what starts its process
        )

        require_watcher()
    generation = pidfile = None
    try:
        pidfile = PidFile(pidfile_path)  # first: a running server is best reported by its lock
        generation = prepare(source, number=1)
        log = logs.configure(generation.config.log)
        if starter is not None:
            log.take_standard_streams()
        logs.set_role("master")
        path = generation.config.control.path
        name = generation.config.server.name
        ledger = begin()
        reloads = Reloads(source, log, pidfile, generation, ledger)
        place = Path(path) if path else _free_of_links(default_path(name))
        master = Master(reloads, ledger, log, place, watch=watch, starter=starter)
    except (
        *(ConfigError, ListenError, PidFileError, logs.LogError, ControlError, ScoreboardError),
        OSError,
    ) as error:
        for listener in generation.held if generation is not None else ():
            listener.release()
        if pidfile is not None:
            pidfile.close()
        raise StartError(_line(error)) from None
    if path:
        link_default_path(name, place)
    announce(generation)
    warn_of_threads()
    return master.run()


def _free_of_links(path: Path) -> Path:
    """The default path, without the link of a server that has a control.path of its own."""
    if path.is_symlink():
        path.unlink(missing_ok=True)
    return path


def _line(error: Exception) -> str:
    return system_errors.explain(error) if isinstance(error, OSError) else str(error)


def _replace_master(source: Source, handover: ExecArgs, watch: bool) -> int:
    """Replaces a running master, or tries whether that is possible."""
    if handover.report is not None:
        from prefork.master.upgrade.preflight_child import run_preflight

        status = run_preflight(source, handover, watch)
        sys.stderr.flush()
        os._exit(status)  # a trial does not run the code of a program after prefork.serve()
    try:
        adopted = adopt(receive(handover.fd))
        log = logs.configure(adopted.serving.config.log)
    except (SnapshotError, ScoreboardError, logs.LogError, OSError) as error:
        raise StartError(_line(error)) from None
    logs.set_role("master")
    state = adopted.state
    if state.daemon:
        log.take_standard_streams()
        os.chdir("/")
    pidfile = PidFile(None, state.pidfile)
    ledger = Ledger.restore(state.ledger)
    reloads = Reloads.resume(
        source, log, pidfile, adopted.serving, ledger, adopted.held, state.number
    )
    place = Path(state.control.path)
    warn_of_threads()
    return Master(reloads, ledger, log, place, watch=watch, adopted=adopted).run()
