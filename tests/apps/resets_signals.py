"""An application that replaces handlers of signals: $DEED says how, at import or at a request."""

import os
import signal
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment

from tests.apps.basic import pid

_DEED = os.environ["DEED"]
_ALL = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGCHLD,
}


def _leave(*_: object) -> None:
    raise SystemExit(3)


def reset() -> None:
    match _DEED.rpartition(" ")[2]:
        case "default":
            for number in _ALL:
                signal.signal(number, signal.SIG_DFL)
        case "ignore":
            for number in _ALL:
                signal.signal(number, signal.SIG_IGN)
        case "block":
            signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        case "raise":
            signal.signal(signal.SIGINT, signal.default_int_handler)
            signal.signal(signal.SIGTERM, _leave)


_AT_REQUEST = _DEED.startswith("request")
if not _AT_REQUEST:
    reset()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The pid."""
    if _AT_REQUEST:
        reset()
    return pid(environ, start_response)


async def asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
    send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
) -> None:
    """The same."""
    if scope["type"] == "http":
        if _AT_REQUEST:
            reset()
        await send({"type": "http.response.start", "status": 200})
        await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
