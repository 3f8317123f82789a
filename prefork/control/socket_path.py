"""Where the control socket of a server is, and which servers of a user are running."""

import contextlib
import os
import stat
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from prefork import unix_socket
from prefork.address import UNIX_PATH_MAX
from prefork.config import ConfigError, Source, load
from prefork.control.control_messages import ControlError

_SUFFIX = ".sock"
_DIGEST = 12
"""Hexadecimal digits of the digest that shortens a long name."""


class SocketDirectories(Struct, frozen=True):
    """The directories for the control sockets of a user's servers; the first usable one is taken.

    run: the directory of the whole system: /run/prefork, or the value of PREFORK_RUN_DIR.
    own: directories that are private to the user, with mode 0700.
    """

    uid: int
    run: Path
    own: tuple[Path, ...]

    @staticmethod
    def from_environment(environ: Mapping[str, str], uid: int) -> "SocketDirectories":
        """Those of a user, by PREFORK_RUN_DIR, XDG_RUNTIME_DIR and TMPDIR of the environment.

        A relative path in the first two is ignored.  The XDG Base Directory specification demands
        that for its own, and a server and its commands may have different working directories.
        """
        run = environ.get("PREFORK_RUN_DIR", "")
        own = [Path(environ.get("TMPDIR") or "/tmp").absolute() / f"prefork-{uid}"]
        if os.path.isabs(runtime := environ.get("XDG_RUNTIME_DIR", "")):
            own.insert(0, Path(runtime, "prefork"))
        return SocketDirectories(
            uid, Path(run if os.path.isabs(run) else "/run/prefork"), tuple(own)
        )

    def usable(self) -> list[Path]:
        """Those that exist and that no other user can have put a socket into."""
        run = [self.run] if self.run.is_dir() else []
        return run + [directory for directory in self.own if self._is_private(directory)]

    def make(self, directory: Path) -> bool:
        """Creates one of them if it is missing; returns whether a socket may be put there."""
        try:
            directory.mkdir(0o755 if directory == self.run else 0o700, exist_ok=True)
        except OSError:
            return False
        if directory == self.run:
            return os.access(directory, os.W_OK | os.X_OK, effective_ids=True)
        return self._is_private(directory)

    def _is_private(self, directory: Path) -> bool:
        # Any user can create a directory, or a link, of this name below /tmp before we do.
        try:
            found = os.lstat(directory)
        except OSError:
            return False
        shared = stat.S_IMODE(found.st_mode) & 0o077
        return stat.S_ISDIR(found.st_mode) and found.st_uid == self.uid and not shared


def default_path(name: str, directories: SocketDirectories | None = None) -> Path:
    """The control socket of a server of this name; its directory is created if it is missing.

    Characters of the name that a file name cannot hold are percent-encoded.  A name that would make
    the path too long for a socket address (107 bytes, unix(7)) is shortened with a digest.

    Raises ControlError if no directory is usable.
    """
    directories = directories or _directories()
    candidates = (directories.run, *directories.own)
    for directory in candidates:
        path = _path(directory, name)
        if len(os.fsencode(path)) <= UNIX_PATH_MAX and directories.make(directory):
            return path
    tried = ", ".join(map(str, candidates))
    raise ControlError(
        f"no directory for the control socket: none of {tried} is writable, private to this user"
        " and short enough for a socket address (107 bytes); set control.path"
    )


def find_socket(
    target: str | None, control: str | None, directories: SocketDirectories | None = None
) -> Path:
    """The control socket of a running server.

    control: its path, as the user gave it.
    target: what the server serves, as `prefork serve` takes it.
    Without both it is the only server of this user that is running.

    Raises ControlError if none is running, or several, or if the target has a problem.
    """
    if control is not None:
        return Path(control)
    usable = (directories or _directories()).usable()
    return _find_only(usable) if target is None else _find_target(target, usable)


def _directories() -> SocketDirectories:
    return SocketDirectories.from_environment(os.environ, os.geteuid())


def _path(directory: Path, name: str) -> Path:
    encoded = quote_from_bytes(os.fsencode(name), safe=":@[]")
    room = UNIX_PATH_MAX - len(os.fsencode(directory)) - len("/") - len(_SUFFIX)
    if len(encoded) > room:
        import hashlib  # it loads OpenSSL: megabytes that only a long name needs

        # quote() has encoded every "+" of the name, so no other name has this path.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGEST]
        encoded = f"{encoded[: max(room - _DIGEST - 1, 0)]}+{digest}"
    return directory / f"{encoded}{_SUFFIX}"


def _name(path: Path) -> str:
    """The name that `_path` encoded, or the part of it that was kept."""
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
    existing = [path for path in (_path(each, name) for each in directories) if path.exists()]
    if not existing:
        raise ControlError(f"no server {name!r} of this user is running{_hint(directories)}")
    # If none is live, the error about a stale socket, or another user's, says the most.
    return next(filter(_is_live, existing), existing[0])


def _find_only(directories: list[Path]) -> Path:
    match _running(directories):
        case [path]:
            return path
        case []:
            raise ControlError(
                "no server of this user is running; if it has control.path set, give --control PATH"
            )
    raise ControlError(f"several servers are running{_hint(directories)}")


def _hint(directories: list[Path]) -> str:
    """The running servers to choose from, as the end of an error text."""
    running = ", ".join(f"{_name(path)} ({path})" for path in _running(directories))
    return f"; choose one by --control PATH: {running}" if running else ""


def _running(directories: list[Path]) -> list[Path]:
    found = [path for directory in directories for path in sorted(directory.glob(f"*{_SUFFIX}"))]
    return [path for path in found if _is_live(path)]


def _is_live(path: Path) -> bool:
    with contextlib.suppress(OSError):  # it belongs to another user
        return unix_socket.listening_process(str(path)) is not None
    return False
