"""Files of the server that other programs remove: Unix sockets, the control socket, the pidfile.

A listener whose file is gone looks healthy, and no client reaches it.  The kernel reports the loss
(inotify(7)), so that an idle server looks at nothing; status, a reload and an upgrade look, too.
A file that is lost is made anew: the control socket and the pidfile at once, a listener by workers
of a new generation, since those that serve have the old socket.

Still racy: inotify(7) does not report that a directory further up was renamed, or that another file
system was mounted over it; the next look does.
"""

import contextlib
import selectors
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from msgspec import Struct

from prefork import linux, logs, unix_socket
from prefork.control import ControlError, SocketDirectories
from prefork.master.periodic import Periodic
from prefork.master.pidfile import PidFileError
from prefork.master.upgrade.exec import MasterParts

_PAUSE, _LONGEST_PAUSE = 5.0, 300.0
"""Seconds between two attempts to make files anew: at first, and at most, while they fail."""


class ServerFile(Struct, frozen=True):
    """A file that a running server needs to have its place."""

    kind: str
    path: str
    inode: unix_socket.Inode | None
    """None: it was removed while it was created."""

    @property
    def problem(self) -> str:
        """How it was lost, as a clause; "" if it is there."""
        if unix_socket.is_at(self.path, self.inode):
            return ""
        if unix_socket.inode(self.path) is not None:
            return "another file is in its place"
        if not Path(self.path).parent.is_dir():
            return "its directory was removed"
        return "it was removed"


def server_files(parts: MasterParts) -> Iterator[ServerFile]:
    """All of them; listeners are those of the generation that serves."""
    for listener in parts.reloads.serving.held:
        if listener.owns_file and not listener.closed:
            yield ServerFile("listener", listener.address.path, listener.inode)
    yield ServerFile("control socket", parts.control.path, parts.control.inode)
    if (pidfile := parts.reloads.pidfile.place()) is not None:
        yield ServerFile("pidfile", *pidfile)


class LostFiles(Periodic):
    """Watches the files, and has those that are lost made anew."""

    def __init__(
        self,
        selector: selectors.BaseSelector,
        parts: MasterParts,
        renew_listeners: Callable[[], None],
    ) -> None:
        """`renew_listeners` begins to replace listeners; it does nothing if that can't be now."""
        self._parts = parts
        self._renew_listeners = renew_listeners
        self._lost: dict[str, str] = {}
        """The reason why it could not be made anew, by path."""
        self._followed: object = None
        self._look_at: float | None = 0.0
        self._pause = _PAUSE
        self._next_attempt = 0.0
        self._inotify = -1
        with contextlib.suppress(OSError):  # no instance is left to this user: others look
            self._inotify = linux.inotify_descriptor()
            selector.register(self._inotify, selectors.EVENT_READ, self._readable)

    @property
    def due(self) -> float | None:
        return self._look_at

    def look(self, *, attempt: bool = False) -> None:
        """Looks in the `run` of this round; `attempt`: does not wait until the next attempt."""
        self._look_at = 0.0
        if attempt:
            self._next_attempt = 0.0

    def run(self, now: float) -> None:
        reloads = self._parts.reloads
        state = (reloads.serving.number, reloads.under_way)
        if state != self._followed:
            self._followed = state
            self._look_at = now
        if self._look_at is not None and now >= self._look_at:
            self._look(now)

    def descriptors(self) -> Iterable[int]:
        return (self._inotify,) if self._inotify >= 0 else ()

    def _readable(self, _: int) -> None:
        linux.drain_inotify(self._inotify)
        self.look()

    def _look(self, now: float) -> None:
        self._look_at = None
        if self._parts.pool.stopping:
            return
        lost = [(file, problem) for file in server_files(self._parts) if (problem := file.problem)]
        for file, problem in lost:
            if file.path not in self._lost:
                logs.event("warning", "file lost", kind=file.kind, path=file.path, reason=problem)
                self._lost[file.path] = ""
        if lost and now >= self._next_attempt:
            self._next_attempt = now + self._pause
            self._pause = min(self._pause * 2, _LONGEST_PAUSE)
            for file, _ in lost:
                self._make_anew(file)
        for file in server_files(self._parts):
            if not file.problem:
                self._follow(file)
                if self._lost.pop(file.path, None) is not None:
                    logs.event("info", "file made anew", kind=file.kind, path=file.path)
        if self._lost:
            self._look_at = max(self._next_attempt, now)
        else:
            self._pause = _PAUSE

    def _follow(self, file: ServerFile) -> None:
        if self._inotify < 0:
            return
        for path in (file.path, str(Path(file.path).parent)):
            with contextlib.suppress(OSError):  # it may not be read, or is lost again
                linux.watch_for_loss(self._inotify, path)

    def _make_anew(self, file: ServerFile) -> None:
        reason = ""
        try:
            if file.kind == "listener":
                self._renew_listeners()
            elif file.kind == "pidfile":
                self._parts.reloads.pidfile.renew()
            else:
                directory = Path(file.path).parent
                directories = SocketDirectories.of_process()
                if directory in (directories.run, *directories.own):
                    directories.make(directory)
                self._parts.control.renew()
        except (ControlError, PidFileError) as error:
            reason = str(error)
        if reason and reason != self._lost[file.path]:
            self._lost[file.path] = reason
            logs.event("error", "file not made anew", path=file.path, reason=reason)
