"""prefork: a pre-fork server with a supervisor.

import prefork
prefork.serve("shop.wsgi:application", bind=":8000", workers=4)
"""

# Nothing else is imported here: `python -m prefork` would find it in the working directory, also
# collections.abc, which takes its classes from this frozen module.
from _collections_abc import Mapping, Sequence

from prefork import compiled as compiled  # the first: it chooses how the others are found
from prefork.stop_notice import StopNotice

__version__ = "0.2.0"

__all__ = ["StartError", "__version__", "serve", "stopping"]

stopping = StopNotice()
"""Set when the worker that runs this code was ordered to leave; see docs/tcp.md."""


class StartError(Exception):
    """A server cannot start: one line for each problem; `status` is the exit status for it."""

    def __init__(self, reason: str, status: int = 1) -> None:
        super().__init__(reason)
        self.status = status


def serve(
    target: object,
    *,
    bind: str | Sequence[str] | None = None,
    workers: int | str | None = None,
    threads: int | None = None,
    tcp: bool = False,
    reload: bool = False,
    settings: Mapping[str, object] | None = None,
) -> int:
    """Runs a server until it is stopped, as `prefork serve` does; returns its exit status.

    `target` is what the command takes ("site.toml", a directory, "module:callable",
    "module:factory()"), or the application itself: a WSGI application, or with `tcp` a function of
    (sock, address).  Workers get such an object from this process by fork.  So a reload (HUP)
    renews the configuration but not the code, and logs that; an upgrade (USR2) runs the whole
    script again.

    `settings` are any other keys, such as {"http.keepalive": 30}.  All arguments take precedence
    over a file's keys.  With {"process.daemon": True} the call returns 0 once the daemon serves.

    It has to be called in the main thread, before other threads are started: a fork takes along
    only the thread that forks.  Raises StartError, and RuntimeError in another thread.
    """
    from prefork.embed import serve as run  # `prefork get` need not load a server

    named = {"server.bind": bind, "workers.count": workers, "workers.threads": threads}
    given = {name: value for name, value in named.items() if value is not None}
    return run(target, {**given, **(settings or {})}, tcp=tcp, watch=reload)
