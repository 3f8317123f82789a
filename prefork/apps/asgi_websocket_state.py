"""The states of a WebSocket for its ASGI application, and a table of what each of them takes.

`TABLE` says for each state which messages the application may send (WebSocket 2.5 of the
specification), and which states may come next.

    CONNECTING -> OPEN -> CLOSING -> ENDING -> OVER
        +-> DENYING ------------------------------^

Facts that are independent of the state stay attributes beside it: what the application has
received, whether more is read, and what became of the task.  The closing handshake has states of
its own (prefork.websocket.websocket_session).

This module is pure: it makes no system call and imports nothing of the server.
"""

from enum import Enum
from typing import Final, NamedTuple


class WebsocketState(Enum):
    """How far a WebSocket is; see `TABLE`."""

    __hash__ = object.__hash__

    CONNECTING = "connecting"
    """The application has neither accepted nor refused it."""
    DENYING = "denying"
    """The application answers with a response of HTTP."""
    OPEN = "open"
    CLOSING = "closing"
    """The server has sent a close frame, and waits for the client's."""
    ENDING = "ending"
    """The session is closed, and the client has the last message by half."""
    OVER = "over"


class WebsocketRow(NamedTuple):
    """The meaning of a state for the application."""

    takes: tuple[str, ...]
    """The types of the messages that may be sent."""
    successors: frozenset[WebsocketState]
    """The states that may come next; to stay in a state is always allowed."""


def _table() -> dict[WebsocketState, WebsocketRow]:
    # fmt: off
    rows = {
        "CONNECTING": ("accept close http.response.start", "DENYING OPEN OVER"),
        "DENYING":    ("http.response.body",               "OVER"),
        "OPEN":       ("send close",                       "CLOSING ENDING OVER"),
        "CLOSING":    ("close",                            "ENDING OVER"),
        "ENDING":     ("close",                            "OVER"),
        "OVER":       ("close",                            ""),
    }
    # fmt: on
    return {
        WebsocketState[name]: WebsocketRow(
            tuple(f"websocket.{kind}" for kind in takes.split()),
            frozenset(WebsocketState[each] for each in successors.split()),
        )
        for name, (takes, successors) in rows.items()
    }


TABLE: Final = _table()

CLOSED: Final = frozenset({WebsocketState.CLOSING, WebsocketState.ENDING, WebsocketState.OVER})
"""States in which no message is a mistake of the application's, which may not know of the end."""
