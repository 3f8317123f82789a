"""The control socket, as both of its sides know it: its place, its messages, and the client.

A running server is asked through a Unix stream socket of mode 0600, so that a command gets an
outcome, which a signal could not give.  A message is one line of JSON.  A client sends a request
and waits for its answer before it sends the next:

    {"v": 1, "command": "scale", "args": {"count": 4}}
    {"v": 1, "progress": "..."}                   any number of them, while a reload goes on
    {"v": 1, "ok": true, ...}                     the answer, with what the command has to tell
    {"v": 1, "ok": false, "error": "..."}         or why not

A receiver skips the fields of a message that it does not know, so that some may be added; what
changes the meaning of one takes another version.
"""

import contextlib
import os
import select
import socket
import stat
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote_from_bytes, unquote_to_bytes

import msgspec
from msgspec import Struct

from prefork import unix_socket
from prefork.address import UNIX_PATH_MAX
from prefork.config import ConfigError, Source, load

VERSION = 1

REQUEST_LIMIT = 64 * 1024
"""Bytes of a request."""

ANSWER_LIMIT = 1024 * 1024
"""Bytes of an answer, together with the progress before it that was not taken yet."""

TIMEOUT = 10.0
"""Seconds in which a server answers a command that it can do at once."""

_EXIT_TIMEOUT = 2.0
"""Seconds from a server's last word until its process ends."""

_SUFFIX = ".sock"
_DIGEST = 12


class ControlError(Exception):
    """Why a server cannot be controlled, in one line; or the error that it answered."""


# The messages.


class Command(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A command; its fields are the arguments."""


class ReloadCommand(Command, frozen=True):
    """Answered at the outcome: `changes`, a list of texts, and `generation`, the new number."""


class UpgradeCommand(Command, frozen=True):
    """Answered at the outcome, by the new code if there is one: as with Reload, and `was` and
    `version`, the versions before and now."""


class StopCommand(Command, frozen=True):
    """Answered when it begins; the connection ends with the server."""


class ReopenCommand(Command, frozen=True):
    """Opens the log files anew."""


class ScaleCommand(Command, frozen=True):
    """Sets the number of workers until the next reload; in a dynamic pool both bounds."""

    count: Annotated[int, msgspec.Meta(ge=1)]


class RetireCommand(Command, frozen=True):
    """Replaces the worker of a slot: it leaves once another is ready."""

    slot: int


class StackCommand(Command, frozen=True):
    """Answered with `pid`, and `stack`, the Python stacks of all threads of a slot's worker."""

    slot: int


class StatusCommand(Command, frozen=True):
    """Answered with the fields of `ServerStatus`."""


COMMANDS: Mapping[str, type[Command]] = {
    "reload": ReloadCommand,
    "upgrade": UpgradeCommand,
    "stop": StopCommand,
    "reopen": ReopenCommand,
    "scale": ScaleCommand,
    "status": StatusCommand,
    "stack": StackCommand,
    "retire": RetireCommand,
}


class CallStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A call of the application that runs: what it answers, to whom, for how many seconds now.

    Line, peer and id are cut to what fits the scoreboard; any character may be in them."""

    thread: int
    request: str
    peer: str
    request_id: str = ""
    elapsed: float


class WorkerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One worker; times are in seconds.

    state: booting, idle, reading (a request has come in part), busy (in the application), writing
        (a client has not taken its response), or retiring; the first that holds from the end of
        this list, but busy before reading and writing.  `since`: for how long.
    held, parked: its connections, and those of them that wait for their client.
    mean: of the time that calls have taken in the application.
    error: the last failure of the application, and `error_age`, how long ago that was.
    """

    slot: int
    pid: int
    generation: int
    state: str
    since: float = 0.0
    requests: int
    bytes: int = 0
    held: int = 0
    parked: int = 0
    mean: float = 0.0
    error: str = ""
    error_age: float = 0.0
    calls: list[CallStatus] = []
    age: float


class QueueStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A listen queue: connections that wait in it, and how many it takes (-1: not known)."""

    listener: str
    depth: int
    limit: int


class PoolBounds(msgspec.Struct, frozen=True, kw_only=True):
    """Of a dynamic pool: how many workers it may have, and how many of them are to be idle."""

    min: int
    max: int
    spare: int


class ServerStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A server: uptime in seconds, and the number of workers that it is to have (target); `bounds`
    between which that moves with demand, None for a fixed pool.

    `requests` counts those of all workers that there ever were, `restarts` workers that were
    replaced, by reason, and `reloads` those that came to an end, by result.  `overflows`: how often
    the kernel has dropped a handshake since the server was started since a TCP listen queue was
    full, in its whole network namespace.  `queue_time`: the mean, by X-Request-Start, 0 without."""

    name: str
    pid: int
    version: str
    generation: int
    uptime: float
    listeners: list[str]
    target: int
    bounds: PoolBounds | None = None
    reloading: bool
    requests: int = 0
    restarts: dict[str, int] = {}
    reloads: dict[str, int] = {}
    queues: list[QueueStatus] = []
    overflows: int = 0
    queue_time: float = 0.0
    workers: list[WorkerStatus]


class _Envelope(msgspec.Struct):
    v: int
    command: str = ""
    args: dict[str, Any] = {}


def encode(message: Mapping[str, Any]) -> bytes:
    """A message of this version, as a line."""
    return msgspec.json.encode({"v": VERSION, **message}) + b"\n"


def decode_request(line: bytes) -> Command:
    """Reads a request.

    Raises ControlError for what is not one, for another version, a command that is not known
    and arguments that do not fit it.
    """
    try:
        envelope = msgspec.json.decode(line, type=_Envelope)
    except (ValueError, RecursionError) as error:
        raise ControlError(f"this is not a request: {error}") from None
    if envelope.v != VERSION:
        raise ControlError(f"version {envelope.v} is not known; this server speaks {VERSION}")
    if (kind := COMMANDS.get(envelope.command)) is None:
        known = ", ".join(COMMANDS)
        raise ControlError(f"the command {envelope.command!r} is not known; known are {known}")
    try:
        return msgspec.convert(envelope.args, kind)
    except ValueError as error:
        raise ControlError(f"{envelope.command}: {error}") from None


# The place.


class SocketDirectories(Struct, frozen=True):
    """The directories in which the sockets of a user's servers may be, the first that can be had.

    run: of the whole system: /run/prefork, or what PREFORK_RUN_DIR names.
    own: private to the user, with mode 0700.
    """

    uid: int
    run: Path
    own: tuple[Path, ...]

    @staticmethod
    def of(environ: Mapping[str, str], uid: int) -> "SocketDirectories":
        """Those of a user, by the environment's PREFORK_RUN_DIR, XDG_RUNTIME_DIR and TMPDIR.

        Of the first two a relative path does not count: the XDG Base Directory specification says
        so for its own, and a server and its commands need not have one working directory.
        """
        run = environ.get("PREFORK_RUN_DIR", "")
        own = [Path(environ.get("TMPDIR") or "/tmp").absolute() / f"prefork-{uid}"]
        if os.path.isabs(runtime := environ.get("XDG_RUNTIME_DIR", "")):
            own.insert(0, Path(runtime, "prefork"))
        return SocketDirectories(
            uid, Path(run if os.path.isabs(run) else "/run/prefork"), tuple(own)
        )

    def usable(self) -> list[Path]:
        """Those that exist and that nobody else could have put something into."""
        run = [self.run] if self.run.is_dir() else []
        return run + [directory for directory in self.own if self._is_private(directory)]

    def make(self, directory: Path) -> bool:
        """Makes one of them where it is missing; whether a socket may be put there."""
        try:
            directory.mkdir(0o755 if directory == self.run else 0o700, exist_ok=True)
        except OSError:
            return False
        if directory == self.run:
            return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)
        return self._is_private(directory)

    def _is_private(self, directory: Path) -> bool:
        # Anybody may make a directory, or a link, of this name below /tmp before we do.
        try:
            found = os.lstat(directory)
        except OSError:
            return False
        shared = stat.S_IMODE(found.st_mode) & 0o077
        return stat.S_ISDIR(found.st_mode) and found.st_uid == self.uid and not shared


def default_path(name: str, places: SocketDirectories | None = None) -> Path:
    """Where a server of this name has its control socket; the directory is made if need be.

    The name is percent-encoded where a file name cannot hold it, and shortened by a digest where
    the path would not fit a socket address (107 bytes, unix(7)).

    Raises ControlError where no directory can be had.
    """
    places = places or _places()
    directories = (places.run, *places.own)
    for directory in directories:
        path = _in(directory, name)
        if len(os.fsencode(path)) <= UNIX_PATH_MAX and places.make(directory):
            return path
    tried = ", ".join(map(str, directories))
    raise ControlError(
        f"no place for the control socket: none of {tried} can be written, is private to the"
        " user and short enough; set control.path"
    )


def find(target: str | None, control: str | None, places: SocketDirectories | None = None) -> Path:
    """The control socket of a running server: the path given, or that of a server's target, or
    the only one there is of this user.

    Raises ControlError where there is none, or several, or where the target can't be read.
    """
    if control is not None:
        return Path(control)
    directories = (places or _places()).usable()
    return _find_only(directories) if target is None else _find_target(target, directories)


def _places() -> SocketDirectories:
    return SocketDirectories.of(os.environ, os.geteuid())


def _in(directory: Path, name: str) -> Path:
    encoded = quote_from_bytes(os.fsencode(name), safe=":@[]")
    room = UNIX_PATH_MAX - len(os.fsencode(directory)) - len("/") - len(_SUFFIX)
    if len(encoded) > room:
        import hashlib  # with OpenSSL, megabytes that no other name has a use for

        # "+" is always encoded above, so no other name can give this.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGEST]
        encoded = f"{encoded[: max(room - _DIGEST - 1, 0)]}+{digest}"
    return directory / f"{encoded}{_SUFFIX}"


def _name(path: Path) -> str:
    """The name that `_in` encoded, or what is left of it."""
    return os.fsdecode(unquote_to_bytes(path.name.removesuffix(_SUFFIX)))


def _find_target(target: str, directories: list[Path]) -> Path:
    try:
        config = load(Source(target=target, overrides=(), tcp=False)).config
    except ConfigError as error:
        problem, *others = error.problems
        more = f" (and {len(others)} more; see prefork check)" if others else ""
        raise ControlError(f"{problem}{more}; correct it, or give --control PATH") from None
    if config.control.path:
        return Path(config.control.path)
    name = config.server.name
    existing = [path for path in (_in(place, name) for place in directories) if path.exists()]
    if not existing:
        raise ControlError(f"no server {name!r} of this user is running{_hint(directories)}")
    # Without a live one, what is left over or another user's makes the better error.
    return next(filter(_is_live, existing), existing[0])


def _find_only(directories: list[Path]) -> Path:
    match _running(directories):
        case [path]:
            return path
        case []:
            raise ControlError("no server of this user is running; or name its socket: --control")
    raise ControlError(f"several servers are running{_hint(directories)}")


def _hint(directories: list[Path]) -> str:
    """Which servers there are to choose from."""
    running = ", ".join(f"{_name(path)} ({path})" for path in _running(directories))
    return f"; choose one by --control PATH: {running}" if running else ""


def _running(directories: list[Path]) -> list[Path]:
    found = [path for directory in directories for path in sorted(directory.glob(f"*{_SUFFIX}"))]
    return [path for path in found if _is_live(path)]


def _is_live(path: Path) -> bool:
    with contextlib.suppress(OSError):  # another user's
        return unix_socket.peer(str(path)) is not None
    return False


# The client.


class ControlClient:
    """A connection to a running server; a context manager that closes it.

    timeout: seconds that connecting and each line of an answer may take; None: no limit, for a
        command that ends when it ends.
    progress: called with each text of progress.

    Raises ControlError where no server answers there.
    """

    def __init__(
        self,
        path: Path,
        timeout: float | None = TIMEOUT,
        progress: Callable[[str], object] = lambda text: None,
    ) -> None:
        self._path = path
        self._progress = progress
        self._sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._sock.settimeout(timeout)
        try:
            self._sock.connect(os.fspath(path))
        except OSError as error:
            self._sock.close()
            raise ControlError(_unreachable(path, error)) from None
        self._lines = self._sock.makefile("rb")

    def __enter__(self) -> "ControlClient":
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        self._lines.close()
        self._sock.close()

    def call(self, command: str, **args: Any) -> dict[str, Any]:
        """Sends one command and returns what its answer has to tell.

        Raises ControlError with the error that was answered, or where no answer came.
        """
        with self._explained():
            # What a server says before it closes (a refusal) can still be read.
            with contextlib.suppress(BrokenPipeError):
                self._sock.sendall(encode({"command": command, "args": args}))
            answer = self._receive()
            while "progress" in answer:
                self._progress(str(answer["progress"]))
                answer = self._receive()
        if not answer.pop("ok", False):
            raise ControlError(str(answer.get("error", "the server refused, and gave no reason")))
        del answer["v"]
        return answer

    def stop(self) -> None:
        """Stops the server gracefully; returns when its process has ended, too.

        The connection ends a moment before the process does.  A program that goes on after its
        `prefork.serve()` is waited for two seconds more, and one that can't be seen from here (in
        another pid namespace, or where pidfd_open(2) is denied) not at all.

        Raises ControlError with the error that was answered, or at the timeout.
        """
        process = self._process()
        try:
            self.call("stop")
            with self._explained():
                while self._lines.read(4096):
                    pass
            if process is not None:
                # It can be read when all threads of the process have ended, pidfd_open(2).
                select.select([process], [], [], _EXIT_TIMEOUT)
        finally:
            if process is not None:
                os.close(process)

    def _process(self) -> int | None:
        """A pidfd of who listens on the socket, or None."""
        try:
            # ESRCH or EINVAL (pid 0) for one of another pid namespace.
            return os.pidfd_open(unix_socket.credentials(self._sock).pid)
        except OSError:
            return None

    def _receive(self) -> dict[str, Any]:
        line = self._lines.readline(ANSWER_LIMIT + 1)
        if not line:
            raise ConnectionResetError
        message = msgspec.json.decode(line)
        if not isinstance(message, dict) or "v" not in message:
            raise ValueError
        return message

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            why = "does not answer; is the master stopped or overloaded?"
        except OSError:
            why = "closed the connection before it answered"
        except (ValueError, RecursionError):
            why = "did not answer in the control protocol; is it a control socket?"
        else:
            return
        raise ControlError(f"the server at {self._path} {why}")


def _unreachable(path: Path, error: OSError) -> str:
    match error:
        case FileNotFoundError():
            return f"no server is running at {path}: there is no such socket"
        case ConnectionRefusedError():
            return f"no server is running at {path}: nobody listens on it"
        case PermissionError():
            return f"no right to control the server at {path}: it belongs to another user"
        case BlockingIOError():  # its queue is full, unix(7)
            return f"the server at {path} has too many clients; try again"
    return f"cannot connect to {path}: {error.strerror or error}"
