"""`serve --reload`: a process beside the server that watches files and sends SIGHUP.

It is a process of its own since the library has threads, which the master may not have when it
forks (and its wait would not be the master's one wait).
"""

import importlib.util
import os
import signal
import subprocess
import sys
from pathlib import Path

from prefork import linux
from prefork.config import Loaded

_EXTENSIONS = (".toml", ".json", ".html", ".jinja", ".jinja2")
"""Watched beside Python's own."""


class WatchError(Exception):
    """Why files can't be watched, and what to do; one line."""


def start_watcher(master: int, loaded: Loaded) -> None:
    """Starts the process that sends SIGHUP to `master` when a watched file changes.

    Watched are the application's directory, its `pythonpath` and the configuration file.  Raises
    WatchError where the library that watches is not installed.
    """
    if importlib.util.find_spec("watchfiles") is None:
        raise WatchError("--reload needs watchfiles: pip install 'prefork[reload]'")
    server = loaded.config.server
    paths = {server.chdir, *server.pythonpath}
    if loaded.file is not None:
        paths.add(str(loaded.file))
    command = [sys.executable, "-m", "prefork.master.watch", str(master), *sorted(paths)]
    subprocess.Popen(command, stdin=subprocess.DEVNULL)


def main(master: int, paths: list[str]) -> None:
    """Watches until the master is gone."""
    import watchfiles

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the master
    linux.set_parent_death_signal(signal.SIGKILL)
    watched = watchfiles.PythonFilter(extra_extensions=_EXTENSIONS)
    existing = [path for path in paths if Path(path).exists()]
    for _ in watchfiles.watch(*existing, watch_filter=watched, raise_interrupt=False):
        if os.getppid() != master:
            return
        os.kill(master, signal.SIGHUP)


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2:])
