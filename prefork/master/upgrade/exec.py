"""From a master to its snapshot and back, over exec(2).

The new code is started by the same command line as the old.  One variable of its environment shows
that a server runs already: it has the process id of the master and the descriptor of a memfd with
the snapshot.  If the process id is the new code's own, it is the master now.  If it is that of the
parent, the new code is a preflight (prefork.master.upgrade.preflight); a third number is then the
descriptor on which it reports the verdict.
"""

import os
import socket
import sys
from collections.abc import Iterable, MutableMapping, Sequence
from pathlib import Path
from typing import NoReturn

from msgspec import Struct
from msgspec.structs import replace

from prefork import address, logs
from prefork.config import ConfigError, LoadedConfig, Source, changes, load
from prefork.listeners import Listener
from prefork.master.control_server import ControlServer
from prefork.master.controlling_terminal import TERMINAL_SIGNALS
from prefork.master.pool.ledger import Ledger
from prefork.master.pool.pool import Pool
from prefork.master.processes.children import Children
from prefork.master.processes.generation import Generation, tls_context
from prefork.master.processes.inboxes import Inboxes
from prefork.master.processes.log_writer import LogWriter
from prefork.master.processes.zygotes import Zygotes
from prefork.master.rollout.reload import Reloads
from prefork.master.snapshot import (
    CLOSED,
    GenerationSnapshot,
    ListenerSnapshot,
    MasterSnapshot,
    SnapshotError,
    WaitingClientsSnapshot,
    decode,
    encode,
)
from prefork.scoreboard import Scoreboard
from prefork.worker.boot.service_factory import import_parts

VARIABLE = "PREFORK_UPGRADE"


class ExecArgs(Struct, frozen=True):
    """The descriptors in the variable: of the snapshot, and in a preflight that to report on."""

    fd: int
    report: int | None


def exec_args(environ: MutableMapping[str, str] = os.environ) -> ExecArgs | None:
    """Takes the variable out of the environment, so that no child sees it.

    None if there is none, or if it was meant for another process.
    """
    master, *fds = environ.pop(VARIABLE, "").split(":")
    match fds:
        case [fd] if master == str(os.getpid()):
            return ExecArgs(int(fd), None)
        case [fd, report] if master == str(os.getppid()):
            return ExecArgs(int(fd), int(report))
    return None


def command(directory: str) -> list[str]:
    """The command line that this server was started with, in any way.

    A relative interpreter is looked up in `directory`, by the name that the operator used: in a
    release symlink, that is the interpreter of the new release.
    """
    program = os.path.join(directory, sys.orig_argv[0])
    if not (os.path.dirname(sys.orig_argv[0]) and os.access(program, os.X_OK)):
        program = sys.executable
    return [program, *sys.orig_argv[1:]]


def directory_of(source: Source) -> str:
    """The directory in which the new code is started: that of the start, or / if it is gone.

    Raises SnapshotError if something is relative to a directory that is gone.
    """
    directory = source.directory
    if os.path.isdir(directory):
        return directory
    if problem := _relative_to(source):
        raise SnapshotError(
            f"{directory}, in which the server was started, is gone, and something is relative to"
            f" it: {problem}; make the directory again, or restart the server with absolute paths"
        )
    return "/"


def _relative_to(source: Source) -> str:
    """What depends on the directory of the start; "" if nothing does."""
    program = sys.orig_argv[0]
    if os.path.dirname(program) and not os.path.isabs(program):
        return f"the interpreter {program}"
    try:
        here, elsewhere = load(source), load(replace(source, directory="/"))
    except ConfigError as error:
        return str(error.problems[0])
    return "; ".join(changes(here.config, elsewhere.config))


# To the state.


class MasterParts(Struct, frozen=True):
    """The parts of a master that a snapshot is made of."""

    started_at: float
    """Monotonic seconds."""
    reloads: Reloads
    pool: Pool
    children: Children
    zygotes: Zygotes
    inboxes: Inboxes
    log_writer: LogWriter
    control: ControlServer
    scoreboard: Scoreboard
    ledger: Ledger
    daemon: bool
    ends_with_terminal: bool


def snapshot(
    parts: MasterParts,
    opened: Iterable[Listener] = (),
    clients: WaitingClientsSnapshot = WaitingClientsSnapshot(),  # noqa: B008 - it is frozen
    mask: Iterable[int] = (),
) -> MasterSnapshot:
    """A snapshot between two transactions, with the listeners `opened` for the next generation."""
    reloads = parts.reloads
    living = {child.generation.number: child.generation for child in parts.children}
    generations = [*(living | {reloads.serving.number: reloads.serving}).values()]
    known = [*reloads.held, *opened, *(each for one in generations for each in one.held)]
    place = {listener: index for index, listener in enumerate(dict.fromkeys(known))}
    return MasterSnapshot(
        started_at=parts.started_at,
        number=reloads.number,
        serving=reloads.serving.number,
        generations=tuple(
            GenerationSnapshot(
                number=each.number,
                config=each.config,
                origins=each.loaded.origins,
                file=str(each.loaded.file) if each.loaded.file else None,
                listeners=tuple(place[listener] for listener in each.listeners),
                metrics=place[each.metrics] if each.metrics is not None else None,
            )
            for each in generations
        ),
        listeners=tuple(map(listener_state, place)),
        children=parts.children.snapshot(),
        zygotes=parts.zygotes.snapshot(),
        inboxes=parts.inboxes.snapshot(),
        log_writer=parts.log_writer.snapshot(),
        pool=parts.pool.snapshot(),
        ledger=parts.ledger.snapshot(),
        control=parts.control.snapshot(),
        clients=clients,
        scoreboard=parts.scoreboard.fd,
        pidfile=reloads.pidfile.snapshot(),
        daemon=parts.daemon,
        ends_with_terminal=parts.ends_with_terminal,
        mask=tuple(sorted({*mask} - TERMINAL_SIGNALS)),
    )


def listener_state(listener: Listener) -> ListenerSnapshot:
    return ListenerSnapshot(
        address=str(listener.address),
        fd=CLOSED if listener.closed else listener.fileno(),
        inherited=listener.inherited,
        inode=listener.inode,
        nonblocking=listener.nonblocking,
    )


def store(state: MasterSnapshot) -> int:
    """The descriptor of a memfd with the snapshot in it.  Raises SnapshotError, OSError."""
    data = memoryview(encode(state))
    fd = os.memfd_create("prefork-upgrade")
    try:
        while data:
            data = data[os.write(fd, data) :]
    except OSError:
        os.close(fd)
        raise
    return fd


def environment(fd: int, report: int | None = None) -> dict[str, str]:
    """The environment with the variable, for this process, or with `report` for a child of it."""
    fds = (fd,) if report is None else (fd, report)
    return {**os.environ, VARIABLE: ":".join(map(str, (os.getpid(), *fds)))}


def execute(state: MasterSnapshot, directory: str) -> NoReturn:
    """Executes the new code in this process.

    Raises OSError or SnapshotError, and then nothing has changed.
    """
    fd = store(state)
    kept = {*state.descriptors(), fd}
    try:
        for each in kept:
            os.set_inheritable(each, True)
        os.chdir(directory)
        program, *arguments = command(directory)
        os.execve(program, [program, *arguments], environment(fd))
    finally:
        for each in kept:
            os.set_inheritable(each, False)
        os.close(fd)


# And back.


class Adopted(Struct, frozen=True):
    """What the new master takes over before it has a loop."""

    state: MasterSnapshot
    generations: dict[int, Generation]
    held: list[Listener]
    scoreboard: Scoreboard

    @property
    def serving(self) -> Generation:
        return self.generations[self.state.serving]

    @property
    def opened(self) -> list[Listener]:
        """The listeners that the preflight has opened for the next generation."""
        known = {each for one in self.generations.values() for each in one.held}
        return [listener for listener in self.held if listener not in known]


def receive(fd: int) -> MasterSnapshot:
    """Reads and closes what `store` made.  Raises SnapshotError for another version, OSError."""
    with open(fd, "rb") as file:
        file.seek(0)
        return decode(file.read())


def adopt(state: MasterSnapshot) -> Adopted:
    """Takes over listeners and scoreboard.

    Raises ScoreboardError if the scoreboard is of another version, OSError for a descriptor that is
    not what the snapshot says.
    """
    listeners = [adopt_listener(each, each.fd) for each in state.listeners]
    return Adopted(
        state,
        {each.number: _generation(each, listeners) for each in state.generations},
        [listener for listener in listeners if not listener.closed],
        Scoreboard(state.scoreboard),
    )


def adopt_listener(state: ListenerSnapshot, fd: int) -> Listener:
    """A listener that is open already: it is neither bound nor changed."""
    if fd == CLOSED:
        # Its place counts: a worker knows listeners by their number.
        gone = Listener(address.parse(state.address), socket.socket())
        gone.close()
        return gone
    os.set_inheritable(fd, False)
    sock = socket.socket(fileno=fd)
    return Listener(
        address.parse(state.address), sock, state.inherited, state.inode, state.nonblocking
    )


def _generation(state: GenerationSnapshot, listeners: Sequence[Listener]) -> Generation:
    file = Path(state.file) if state.file is not None else None
    loaded = LoadedConfig(state.config, state.origins, file)
    import_parts(loaded.config)
    try:
        tls = tls_context(loaded)
    except ConfigError as error:
        # Its workers serve on; the boot of another one fails, and is logged.
        logs.event("error", "certificate not read", generation=state.number, reason=str(error))
        tls = None
    ours = [listeners[index] for index in state.listeners]
    metrics = listeners[state.metrics] if state.metrics is not None else None
    return Generation(state.number, loaded, ours, tls, metrics)
