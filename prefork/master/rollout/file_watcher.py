"""`serve --reload`: a process beside the server watches files and reports those that changed.

It is a process of its own since the library has threads, which the master may not have when it
forks (and its wait would not be the master's one wait).  Its reports are lines of JSON in a pipe,
so that the master sees its end, too.
"""

import contextlib
import importlib.util
import itertools
import json
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import setproctitle

from prefork import StartError, linux, logs
from prefork.config import LoadedConfig

if TYPE_CHECKING:
    import watchfiles

_EXTENSIONS = (".toml", ".html", ".jinja", ".jinja2")
"""Watched beside Python's own."""

_LOOK = 200
"""Milliseconds between two looks of the library; the first one shows that it has begun to watch."""

# The child finds its modules where this process did, whatever way it was started: with -m, Python
# would look for them in the working directory, which is the application's.
_PROGRAM = """\
import json, sys
sys.path = json.loads(sys.argv[1])
from prefork.master.rollout.file_watcher import main
main(**json.loads(sys.argv[2]))
"""

_Reports = queue.SimpleQueue[dict[str, Any]]

_Paths = tuple[list[str], list[str]]
"""Directories, with all that is below them, and single files."""


class WatchError(StartError):
    """Files can't be watched; the text is one line that says why and what to do."""


def require_watcher() -> None:
    """Raises WatchError if the library that watches files is not installed."""
    if importlib.util.find_spec("watchfiles") is None:
        raise WatchError("--reload needs watchfiles: pip install 'prefork[reload]'")


class FileWatcher:
    """The master's side: starts the process and reads its reports."""

    def __init__(
        self, selector: selectors.BaseSelector, name: str, changed: Callable[[], None]
    ) -> None:
        """`changed` is called after watched files have changed; `name` is the server's."""
        self._selector = selector
        self._name = name
        self._changed = changed
        self._process: subprocess.Popen[bytes] | None = None
        self._paths: _Paths | None = None
        self._input = b""
        self._reason = ""

    def follow(self, loaded: LoadedConfig) -> None:
        """Watches the files of a configuration, by another process if they are others.

        They are the application's directory, its `pythonpath`, and the files that the
        configuration itself is read from.
        """
        paths = _paths_of(loaded)
        if paths == self._paths:
            return
        self.close()
        arguments = {"master": os.getpid(), "name": self._name}
        arguments |= dict(zip(("directories", "files"), paths, strict=True))
        command = [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path)]
        try:
            self._process = subprocess.Popen(
                [*command, json.dumps(arguments)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                process_group=0,  # a terminal's Ctrl-C is for the master
            )
        except OSError as error:
            logs.event("error", "watcher not started", reason=error.strerror)
            return
        self._paths = paths
        self._reason = "unknown; files are not watched any more"
        self._selector.register(self._fileno(), selectors.EVENT_READ, self._readable)

    def descriptors(self) -> list[int]:
        """All that are open here, for a forked child to close."""
        return [self._fileno()] if self._process is not None else []

    def close(self) -> None:
        """Ends the process; once it is gone, the master's loop reaps it."""
        if self._process is not None:
            self._selector.unregister(self._fileno())
            self._process.kill()
            self._forget()
        self._paths = None

    def _forget(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        self._process.stdout.close()
        self._process = None
        self._input = b""

    def _fileno(self) -> int:
        assert self._process is not None
        assert self._process.stdout is not None
        return self._process.stdout.fileno()

    def _readable(self, _: int) -> None:
        data = os.read(self._fileno(), 65536)
        if not data:
            return self._ended()
        *lines, self._input = (self._input + data).split(b"\n")
        files = []
        for line in lines:
            match json.loads(line):
                case {"watching": paths}:
                    logs.event("info", "watching", files=", ".join(paths))
                case {"failed": reason}:
                    self._reason = reason
                case {"changed": changed}:
                    files += changed
        if files:
            logs.event("info", "files changed", files=", ".join(files))
            self._changed()

    def _ended(self) -> None:
        # It is not started again: the cause would end it again, and a reload by hand still works.
        logs.event("error", "watcher ended", reason=self._reason)
        self._selector.unregister(self._fileno())
        self._forget()


def _paths_of(loaded: LoadedConfig) -> _Paths:
    server, log = loaded.config.server, loaded.config.log
    roots = dict.fromkeys((server.chdir, *server.pythonpath))
    named = (loaded.file, server.env_file, log.config, *roots)
    files = [os.fspath(path) for path in named if path is not None and not os.path.isdir(path)]
    return [root for root in roots if os.path.isdir(root)], files


# The process.


def main(master: int, name: str, directories: list[str], files: list[str]) -> None:
    """Watches until the master is gone, and prints the reports."""
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    linux.set_parent_death_signal(signal.SIGKILL)
    if os.getppid() != master:
        return  # it died before the parent death signal was set
    setproctitle.setproctitle(f"prefork: watcher [{name}]")
    reports: _Reports = queue.SimpleQueue()
    # One thread for trees and one for single files.  It is the files' directories that are watched,
    # since one that is replaced would be lost from sight, but not what is below them.
    watches = []
    if directories:
        watches.append(
            threading.Thread(target=_watch_trees, args=(directories, reports), daemon=True)
        )
    if files:
        watches.append(threading.Thread(target=_watch_files, args=(files, reports), daemon=True))
    for watch in watches:
        watch.start()
    begun = [reports.get() for _ in watches]
    if not any("failed" in report for report in begun):
        _print({"watching": [*directories, *files]})
    for report in itertools.chain(begun, iter(reports.get, None)):
        _print(report)
        if "failed" in report:
            return


def _print(reports: dict[str, Any]) -> None:
    os.write(1, json.dumps(reports).encode() + b"\n")


def _watch_trees(directories: list[str], reports: _Reports) -> None:
    roots = [Path(directory) for directory in directories]

    def is_source(path: str) -> bool:
        # The library's filter looks at each part of a path for a cache, a repository and the like,
        # also at those above the directory: in ~/.venv/site it would ignore everything.
        below = [Path(path).relative_to(root) for root in roots if Path(path).is_relative_to(root)]
        return any(sources(watchfiles.Change.modified, f"/{each}") for each in below)

    def wanted(change: "watchfiles.Change", path: str) -> bool:
        if change == watchfiles.Change.added and os.path.isdir(path):
            # Files that were put into it before the kernel watched it are seen only here.
            inside = (
                os.path.join(place, name) for place, _, names in os.walk(path) for name in names
            )
            return any(map(is_source, inside))
        return is_source(path)

    with _failure_reported(reports):
        import watchfiles

        sources = watchfiles.PythonFilter(extra_extensions=_EXTENSIONS)
        _watch(directories, wanted, reports, recursive=True)


def _watch_files(files: list[str], reports: _Reports) -> None:
    places = {os.path.dirname(file) for file in files}
    with _failure_reported(reports):
        _watch(
            filter(os.path.isdir, places), lambda _, path: path in files, reports, recursive=False
        )


def _watch(
    paths: Iterable[str],
    wanted: "Callable[[watchfiles.Change, str], bool]",
    reports: _Reports,
    *,
    recursive: bool,
) -> None:
    import watchfiles

    looks = watchfiles.watch(
        *paths,
        watch_filter=wanted,
        recursive=recursive,
        rust_timeout=_LOOK,
        yield_on_timeout=True,
    )
    reports.put({"changed": _files(next(looks))})
    for changes in looks:
        if changes:
            reports.put({"changed": _files(changes)})


def _files(changes: "set[tuple[watchfiles.Change, str]]") -> list[str]:
    return sorted({path for _, path in changes})


@contextlib.contextmanager
def _failure_reported(reports: _Reports) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # it cannot be imported, the kernel has no watches left, ...
        reports.put({"failed": f"{type(error).__name__}: {error}"})
