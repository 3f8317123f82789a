"""The start of a server: everything that can fail before anything is forked."""

from collections.abc import Callable
from pathlib import Path

from prefork import logs
from prefork.config import ConfigError, Source
from prefork.control import ControlError, default_path
from prefork.listeners import ListenError
from prefork.master.generation import Generation, prepare
from prefork.master.loop import Master
from prefork.master.rehearsal import rehearse
from prefork.master.reload import Reloads
from prefork.master.state import StateError
from prefork.master.takeover import Handover, adopt, handed_over, receive
from prefork.master.watch import WatchError, require_watcher
from prefork.scoreboard import ScoreboardError


class StartError(Exception):
    """Why a server cannot start, a problem a line."""


def serve(
    source: Source,
    *,
    watch: bool = False,
    announce: Callable[[Generation], None] = lambda generation: None,
) -> int:
    """Runs a server until it is stopped, and returns its exit status.

    `watch`: reload whenever a file of the application or the configuration changes.  `announce` is
    told the generation that is about to be served, once its listeners are open; not where this is
    the new code of a server that runs.  Raises StartError; nothing is left behind then.
    """
    handover = handed_over()
    if handover is not None:
        return _go_on(source, handover, watch)
    generation = None
    try:
        if watch:
            require_watcher()
        generation = prepare(source, number=1)
        log = logs.configure(generation.config.log)
        logs.set_role("master")
        path = generation.config.control.path
        name = generation.config.server.name
        reloads = Reloads(source, log, generation)
        place = Path(path) if path else default_path(name)
        master = Master(reloads, log, place, watch=watch)
    except (ConfigError, ListenError, logs.LogError, ControlError, WatchError) as error:
        for listener in generation.listeners if generation is not None else ():
            listener.release()
        raise StartError(str(error)) from None
    announce(generation)
    return master.run()


def _go_on(source: Source, handover: Handover, watch: bool) -> int:
    """Takes the place of a running master, or tries whether that could be done."""
    if handover.report is not None:
        return rehearse(source, handover, watch)
    try:
        adopted = adopt(receive(handover.fd))
        log = logs.configure(adopted.serving.config.log)
    except (StateError, ScoreboardError, logs.LogError) as error:
        raise StartError(str(error)) from None
    logs.set_role("master")
    state = adopted.state
    reloads = Reloads.resume(source, log, adopted.serving, adopted.held, state.number)
    place = Path(state.control.path)
    return Master(reloads, log, place, watch=watch, adopted=adopted).run()
