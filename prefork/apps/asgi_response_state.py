"""The states of the response of an ASGI application, and a table of what each of them means.

A response is in one state at a time.  `TABLE` says for each state which messages the application
may send (HTTP 2.5 of the specification, with the extensions that the scope names), what the error
says for any other, and which states may come next.

    NOT_STARTED -> STARTED -> BODY -> TRAILERS -> COMPLETE -> ENDED

- BODY is left out if the body is complete with its first message, and TRAILERS if the start has
  not announced them.
- CUT: a message was cancelled after part of it was sent.
- GIVEN_UP: the server has answered for the application, has cut the connection or, at its stop,
  ended a stream of events.

A message that is refused, for its time or for what is in it, leaves the state as it is.

Facts that are independent of the state stay attributes beside it: whether trailers were announced,
which decides between two successors; what the client does, which the connection knows; how far the
request was received; whether the worker stops; and what became of the task
(prefork.worker.service.asgi_call.TaskFate), which may have work to do after its response.

This module is pure: it makes no system call and imports nothing of the server.
"""

from enum import Enum
from typing import Final, NamedTuple


class ResponseState(Enum):
    """How far a response is; see `TABLE`."""

    # By identity, in C: the hash of an enum's member is a call of Python otherwise.
    __hash__ = object.__hash__

    NOT_STARTED = "not started"
    """Its status and headers are not known."""
    STARTED = "started"
    """They wait for the first piece of the body."""
    BODY = "body"
    """The head was given out, and more of the body is to come."""
    TRAILERS = "trailers"
    """The body is complete, and trailers are to come."""
    COMPLETE = "complete"
    """All of it was given out; the client may have to take it yet."""
    CUT = "cut"
    """The client has a message by half: nothing that follows would make sense."""
    ENDED = "ended"
    """It was complete, and the connection goes on."""
    GIVEN_UP = "given up"
    """It is over for another reason, and the connection ends."""


class ResponseRow(NamedTuple):
    """The meaning of a state for the application."""

    refusals: dict[str, str]
    """By the type of a message: what the error says; empty if the message may be sent."""
    other: str
    """What it says for any other type."""
    successors: frozenset[ResponseState]
    """The states that may come next; to stay in a state is always allowed."""


def _table() -> dict[ResponseState, ResponseRow]:
    """Written with short names, so that a row is a line."""
    takes, twice = "", "{} was sent twice"
    no_start = "http.response.start was not sent before the body"
    no_word = "{} was sent without a start that says so"
    early = "{} was sent before the end of the body"
    behind = "{} was sent after the end of the body"
    file = "a file was sent after the end of the body"
    unknown = "the message {!r} is unknown, or not one of a response"
    over = "{} was sent after the end of the response"
    half = "a message was cancelled after part of it was sent"
    left = "the client has left"
    # fmt: off
    kinds = ("start", "early_hint", "body", "pathsend", "zerocopysend", "trailers")
    refusals = {
        "NOT_STARTED": (takes, takes, no_start, no_start, no_start, no_word),
        "STARTED":     (twice, takes, takes,    takes,    takes,    early),
        "BODY":        (twice, takes, takes,    takes,    takes,    early),
        "TRAILERS":    (twice, takes, behind,   file,     file,     takes),
    }
    rows = {
        "NOT_STARTED": (unknown, "STARTED GIVEN_UP"),
        "STARTED":     (unknown, "BODY TRAILERS COMPLETE GIVEN_UP"),
        "BODY":        (unknown, "TRAILERS COMPLETE CUT GIVEN_UP"),
        "TRAILERS":    (unknown, "COMPLETE CUT GIVEN_UP"),
        "COMPLETE":    (over,    "CUT ENDED GIVEN_UP"),
        "CUT":         (half,    "GIVEN_UP"),
        "ENDED":       (over,    ""),
        "GIVEN_UP":    (left,    ""),
    }
    # fmt: on
    return {
        ResponseState[name]: ResponseRow(
            {
                f"http.response.{kind}": text
                for kind, text in zip(kinds, refusals.get(name, ()), strict=False)
            },
            other,
            frozenset(ResponseState[each] for each in successors.split()),
        )
        for name, (other, successors) in rows.items()
    }


TABLE: Final = _table()

UNANSWERED: Final = frozenset({ResponseState.NOT_STARTED, ResponseState.STARTED})
"""States in which nothing was sent: the server can answer for the application."""

DISCONNECTED: Final = frozenset({ResponseState.CUT, ResponseState.GIVEN_UP})
"""States in which a message is no mistake of the application's: it learns that its client left."""

OVER: Final = frozenset(state for state, row in TABLE.items() if not row.successors)
"""States in which nothing more is sent."""
