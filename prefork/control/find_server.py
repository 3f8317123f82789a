"""Which running server a command is for."""

import contextlib
import os
import re
from pathlib import Path

from prefork import regular_file
from prefork.config import ConfigError, Source, load
from prefork.control.control_client import ControlClient
from prefork.control.control_messages import ControlError, ServerStatus, decode_status
from prefork.control.socket_path import SocketDirectories, is_live, name_of, path_in, sockets_in

_ANSWER = 2.0
"""Seconds in which a server has to say what it is; one that hangs is only known by its name."""

_LOCAL = {"localhost": ("127.0.0.1", "::1")}
_ANY = ("0.0.0.0", "::")


def find_socket(
    target: str | None, control: str | None, directories: SocketDirectories | None = None
) -> Path:
    """The control socket of a running server.

    control: its path, as the user gave it.
    target: its name, one of its addresses, or what it serves, as `prefork serve` takes it.
    Without both it is the only server of this user that is running.

    Raises ControlError if none is running, or several, or if the target has a problem.
    """
    if control is not None:
        return Path(control)
    usable = (directories or SocketDirectories.of_process()).usable()
    if target is None:
        return _find_only(usable)
    named = [path_in(directory, target) for directory in usable]
    for path in named:
        if is_live(path):
            return path
    if target.startswith("unix:") or re.fullmatch(r".*:\d+", target):
        return _find_address(target, usable)
    return _find_target(target, usable, named)


def running_servers(directories: SocketDirectories | None = None) -> list[Path]:
    """The control sockets of all servers of this user.

    Those with control.path are among them if no other server had their name.
    """
    return _running((directories or SocketDirectories.of_process()).usable())


def _find_only(directories: list[Path]) -> Path:
    match _running(directories):
        case [path]:
            return path
        case []:
            raise ControlError(
                "no server of this user is running; if it has control.path set, give --control PATH"
            )
    raise ControlError(f"several servers are running{_hint(directories)}")


def _find_address(address: str, directories: list[Path]) -> Path:
    statuses = {path: _status(path) for path in _running(directories)}
    found = [
        path
        for path, status in statuses.items()
        # One that hangs has its first address as its name, unless it was given another.
        if any(_is_at(each, address) for each in (status.listeners if status else [name_of(path)]))
    ]
    match found:
        case [path]:
            return path
        case []:
            raise ControlError(f"no server of this user listens on {address}{_hint(directories)}")
    raise ControlError(f"several servers listen on {address}{_hint(directories)}")


def _is_at(listener: str, address: str) -> bool:
    """Whether a server with this listener answers at the address; without a host: on any."""
    if listener == address:
        return True
    if address.startswith("unix:"):
        path = address.removeprefix("unix:")
        return not path.startswith("@") and listener == f"unix:{os.path.abspath(path)}"
    host, _, port = address.rpartition(":")
    its_host, _, its_port = listener.rpartition(":")
    if listener.startswith("unix:") or port != its_port:
        return False
    host, its_host = host.strip("[]"), its_host.strip("[]")
    return not host or its_host in (host, *_ANY, *_LOCAL.get(host, ()))


def _find_target(target: str, directories: list[Path], named: list[Path]) -> Path:
    """named: where a server whose name is the target would be."""
    source = Source(target=target, overrides=(), tcp=False)
    problem = ""
    try:
        config = load(source).config
        path, name = config.control.path, config.server.name
    except ConfigError as error:
        first, *others = error.problems
        more = f" (and {len(others)} more; see prefork check)" if others else ""
        problem = f"{first}{more}; correct it, or give --control PATH"
        path, name = _scan(source.file)
    if path:
        return Path(path)
    places = (path_in(directory, name) for directory in directories)
    existing = [place for place in places if place.exists()]
    if live := list(filter(is_live, existing)):
        return live[0]
    # The name in the file may be another one than when the server was started.
    for running in _running(directories) if source.file else ():
        if (status := _status(running)) is not None and status.file == source.file:
            return running
    if problem and source.file:
        raise ControlError(problem)
    existing += [path for path in named if path.exists()]
    if existing:  # the error about a stale socket, or another user's, says the most
        return existing[0]
    if not source.file:
        name = target
    raise ControlError(f"no server {name!r} of this user is running{_hint(directories)}")


def _scan(file: str | None) -> tuple[str | None, str]:
    """`control.path` and the name in a file that has problems: each line is read by itself."""
    if file is None:
        return None, ""
    import tomllib  # the server itself has no use for this module here

    lines: list[str] = []
    with contextlib.suppress(OSError, ValueError):
        lines = regular_file.read(file).decode().splitlines()
    section, found = "", {}
    for line in lines:
        if header := re.match(r"\s*\[\s*(\w+)\s*\]", line):
            section = header[1]
        elif section in ("server", "control"):
            with contextlib.suppress(tomllib.TOMLDecodeError):
                found.update({(section, key): value for key, value in tomllib.loads(line).items()})
    path, name = found.get(("control", "path")), found.get(("server", "name"))
    return (
        os.path.normpath(os.path.join(os.path.dirname(file), path))
        if isinstance(path, str) and path
        else None,
        name if isinstance(name, str) and name else Path(file).stem,
    )


def _hint(directories: list[Path]) -> str:
    """The running servers to choose from, as the end of an error text."""
    running = ", ".join(f"{name_of(path)} ({path})" for path in _running(directories))
    return f"; choose one by its name, its address or --control PATH: {running}" if running else ""


def _running(directories: list[Path]) -> list[Path]:
    found = {path.resolve(): path for path in sockets_in(directories) if is_live(path)}
    return list(found.values())


def _status(path: Path) -> ServerStatus | None:
    try:
        with ControlClient(path, _ANSWER) as client:
            return decode_status(client.call("status"))
    except ControlError:
        return None
