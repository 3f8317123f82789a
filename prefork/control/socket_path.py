"""Where the control socket of a server is."""

import contextlib
import os
import stat
from collections.abc import Iterable, Mapping
from pathlib import Path
from urllib.parse import quote_from_bytes, unquote_to_bytes

from msgspec import Struct

from prefork import unix_socket
from prefork.address import UNIX_PATH_MAX
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

    @staticmethod
    def of_process() -> "SocketDirectories":
        """Those of the user of this process."""
        return SocketDirectories.from_environment(os.environ, os.geteuid())

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
    directories = directories or SocketDirectories.of_process()
    candidates = (directories.run, *directories.own)
    for directory in candidates:
        path = path_in(directory, name)
        if len(os.fsencode(path)) <= UNIX_PATH_MAX and directories.make(directory):
            return path
    tried = ", ".join(map(str, candidates))
    raise ControlError(
        f"no directory for the control socket: none of {tried} is writable, private to this user"
        " and short enough for a socket address (107 bytes); set control.path"
    )


def link_default_path(name: str, path: Path, directories: SocketDirectories | None = None) -> None:
    """Makes a server with `control.path` one that commands find and list by its name.

    At its default path is a symbolic link then, unless another server has that name.
    """
    try:
        link = default_path(name, directories)
        if link.resolve() == path.resolve():
            return
        if link.is_symlink() and not is_live(link):
            link.unlink()  # of a server that was killed
        link.symlink_to(path.absolute())
    except (ControlError, OSError):
        return  # it is found by control.path all the same


def unlink_default_path(path: Path, directories: SocketDirectories | None = None) -> None:
    """Removes the links that `link_default_path` has made for a server.

    Those that can't be found, for want of descriptors, are left to the next server of that name.
    """
    with contextlib.suppress(OSError):
        for link in sockets_in((directories or SocketDirectories.of_process()).usable()):
            if link.is_symlink() and link.readlink() == path.absolute():
                link.unlink()


def is_live(path: Path) -> bool:
    """Whether a server of this user listens at a control socket."""
    with contextlib.suppress(OSError):  # it belongs to another user
        return unix_socket.listening_process(str(path)) is not None
    return False


def sockets_in(directories: Iterable[Path]) -> list[Path]:
    """All control sockets there, also those of servers that are dead."""
    return [path for directory in directories for path in sorted(directory.glob(f"*{_SUFFIX}"))]


def path_in(directory: Path, name: str) -> Path:
    """The control socket of a server of this name in a directory; see `default_path`."""
    encoded = quote_from_bytes(os.fsencode(name), safe=":@[]")
    room = UNIX_PATH_MAX - len(os.fsencode(directory)) - len("/") - len(_SUFFIX)
    if len(encoded) > room:
        import hashlib  # it loads OpenSSL: megabytes that only a long name needs

        # quote() has encoded every "+" of the name, so no other name has this path.
        digest = hashlib.sha256(os.fsencode(name)).hexdigest()[:_DIGEST]
        encoded = f"{encoded[: max(room - _DIGEST - 1, 0)]}+{digest}"
    return directory / f"{encoded}{_SUFFIX}"


def name_of(path: Path) -> str:
    """The name that `path_in` encoded, or the part of it that was kept."""
    return os.fsdecode(unquote_to_bytes(path.name.removesuffix(_SUFFIX)))
