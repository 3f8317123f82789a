"""The states of a connection, and a table of what each of them means.

A connection is in one state at a time.  The state determines for which event the connection waits,
when it is given up and what is done then, whether it may move to a sibling, and what a stop of the
worker does to it.  All of that stands in `TABLE`, one row for each state, and nowhere else.  The
parts of the server that have to know it (the poller's registration and deadline, the handover, the
stop, the admission of new connections) read the row of the connection's state; they do not look
into its buffers and its reader.

The life of a connection:

    PROXY_HEADER -> HANDSHAKE -> NEW -> HEAD -> BODY -> CALL -> WRITE -> IDLE -> HEAD -> ...
                                                          |                |
                                                          +--> LINGER -----+--> CLOSED

- Few connections see all of it.  A listener without TLS, trusted proxies or the PROXY protocol
  makes its connections NEW, and a request that comes in one piece goes from NEW or IDLE to CALL at
  once, and from there back to IDLE if the client takes the response at once.
- QUEUED means that bytes of further requests have come and are not read yet: the connection has a
  pipeline (RFC 9112 section 9.3.2) and had the worker for a while, so others come first.  It waits
  to be writable, which it is, so it comes back at once, behind all that is ready by then.
- DRAIN is the rest of a request's body that the application has left unread: it is read and thrown
  away, so that the connection can be used again.
- RECEIVE and SEND are parts of CALL in a worker with an event loop: the application awaits more of
  the body, or the client has bytes to take.  A response that is complete takes the connection out
  of CALL, whatever its task still does.
- UPGRADED is a connection that has left HTTP (RFC 9110 section 7.8): what is read, when it is given
  up and how it ends is the other protocol's.
- LINGER is the end of a connection whose client may still be sending (RFC 9112 section 9.6).
- Any state can end in CLOSED at once: the client may be gone at any moment.

Two states differ in their time limit only.  NEW, in which nothing was read yet, has that of a
request's head, since a client connects in order to send a request.  IDLE, between two requests, has
that of keep-alive.

Three facts are no states, since they hold in several of them: that the client is gone
(`broken`), that the next response is the last (`closing`), and that there are bytes to send
(`unsent`).  A connection that has such bytes, and no request in the application, is in WRITE or
HANDSHAKE_WRITE: nothing more is read from a client that does not take its responses.

The states are those of a byte stream and its requests, not of HTTP/1 alone.  Frames of HTTP/2 and
messages of a WebSocket would be read in states of their own, with rows of their own in this table.

This module is pure: it makes no system call and imports nothing of the server.
"""

from enum import Enum
from typing import Final, NamedTuple


class ConnectionState(Enum):
    """Where a connection is; see `TABLE`."""

    # By identity, in C: the hash of an enum's member is a call of Python otherwise.
    __hash__ = object.__hash__

    PROXY_HEADER = "proxy header"
    """It has to begin with a header of the PROXY protocol, which is not complete."""
    HANDSHAKE = "handshake"
    """The TLS handshake is under way: the client's next flight has to come."""
    HANDSHAKE_WRITE = "handshake write"
    """The same: the client has to take our last flight first."""
    NEW = "new"
    """Nothing of its first request has come."""
    IDLE = "idle"
    """It waits for its next request; nothing of that has come."""
    HEAD = "head"
    """Part of a request's head has come."""
    BODY = "body"
    """A head is complete, and its body is not: the application is called when it is."""
    DRAIN = "drain"
    """The rest of a body that nobody wants is read and thrown away."""
    QUEUED = "queued"
    """What has come of further requests waits until others had their turn."""
    CALL = "call"
    """The application has a request."""
    RECEIVE = "receive"
    """The application has a request, and awaits more of its body."""
    SEND = "send"
    """The application has a request, and the client has bytes of its response to take."""
    UPGRADED = "upgraded"
    """Another protocol has the connection."""
    WRITE = "write"
    """The client has bytes to take before anything else happens."""
    LINGER = "linger"
    """The last response is sent and our side is closed; all that still comes is thrown away."""
    CLOSED = "closed"
    """Of no more use: the socket is to be closed, or is."""


class Readiness(Enum):
    """The event that takes a connection out of its state."""

    READABLE = "readable"
    WRITABLE = "writable"
    NONE = "none"
    """It is not parked."""


class TimeLimit(Enum):
    """The time limit of a state, and the moment from which it counts."""

    NONE = "none"
    PROXY_HEADER = "header_timeout, from accept on"
    HANDSHAKE = "handshake_timeout, from the handshake's beginning on"
    FIRST_BYTE = "header_timeout, from now on"
    KEEPALIVE = "keepalive, from now on"
    HEAD = "header_timeout, from the first byte of the head on"
    BODY = "body_timeout, from the last byte on, and min_body_rate"
    WRITE = "write_timeout, since the client took something, and min_write_rate"
    LINGER = "the limits of a lingering close"
    UPGRADED = "the other protocol's"


class Movable(Enum):
    """Whether a sibling may go on with the connection, and what is sent with the descriptor."""

    NO = "no"
    EMPTY = "nothing was read"
    UNREAD = "the bytes of the unfinished request, if they were kept"


class OnStop(Enum):
    """The effect on a connection if its worker is to stop or retire."""

    LAST_CHANCE = "last chance"
    """It may still send a request until the worker's leave deadline."""
    FINISH = "finish"
    """The response to its request is the last."""
    TELL = "tell"
    """The other protocol says goodbye in its own way."""
    NOTHING = "nothing"
    """It is about to end anyway."""


class OnDeadline(Enum):
    """The action when the deadline has passed."""

    CLOSE = "close"
    ANSWER_408 = "answer 408 and close"
    """The client has begun a request, so it gets an answer (RFC 9110 section 15.5.9)."""
    CHECK_PROGRESS = "close a client that takes too little"
    TELL = "the other protocol decides"
    NOTHING = "nothing"
    """There is no deadline."""


class StateRow(NamedTuple):
    """The meaning of a state for everything around the connection."""

    waits_for: Readiness
    time_limit: TimeLimit
    on_deadline: OnDeadline
    movable: Movable
    on_stop: OnStop
    successors: frozenset[ConnectionState]
    """The states that may come next; to stay in a state is always allowed."""

    @property
    def idle(self) -> bool:
        """No request has begun: it may be ended to make room for a new connection."""
        return self.on_stop is OnStop.LAST_CHANCE


def _table() -> dict[ConnectionState, StateRow]:
    """Written with short names, so that a row is a line."""
    readable, writable, nothing = Readiness.READABLE, Readiness.WRITABLE, Readiness.NONE
    close, check = OnDeadline.CLOSE, OnDeadline.CHECK_PROGRESS
    answer, never = OnDeadline.ANSWER_408, OnDeadline.NOTHING
    stays, empty, unread = Movable.NO, Movable.EMPTY, Movable.UNREAD
    chance, finish, ends = OnStop.LAST_CHANCE, OnStop.FINISH, OnStop.NOTHING
    tell, says = OnDeadline.TELL, OnStop.TELL
    due = TimeLimit
    # fmt: off
    rows = {
        #                   waits for  deadline          when overdue  moves   at a stop
        "PROXY_HEADER":    (readable, due.PROXY_HEADER, close,        stays,  chance),
        "HANDSHAKE":       (readable, due.HANDSHAKE,    close,        stays,  chance),
        "HANDSHAKE_WRITE": (writable, due.HANDSHAKE,    close,        stays,  chance),
        "NEW":             (readable, due.FIRST_BYTE,   close,        empty,  chance),
        "IDLE":            (readable, due.KEEPALIVE,    close,        empty,  chance),
        "HEAD":            (readable, due.HEAD,         answer,       unread, finish),
        "BODY":            (readable, due.BODY,         answer,       unread, finish),
        "DRAIN":           (readable, due.BODY,         close,        stays,  finish),
        "QUEUED":          (writable, due.NONE,         never,        stays,  finish),
        "CALL":            (nothing,  due.NONE,         never,        stays,  finish),
        "RECEIVE":         (readable, due.BODY,         answer,       stays,  finish),
        "SEND":            (writable, due.WRITE,        check,        stays,  finish),
        "UPGRADED":        (readable, due.UPGRADED,     tell,         stays,  says),
        "WRITE":           (writable, due.WRITE,        check,        stays,  finish),
        "LINGER":          (readable, due.LINGER,       close,        stays,  ends),
        "CLOSED":          (nothing,  due.NONE,         never,        stays,  ends),
    }
    successors = {
        "PROXY_HEADER":    "HANDSHAKE NEW CALL CLOSED",
        "HANDSHAKE":       "HANDSHAKE_WRITE NEW CLOSED",
        "HANDSHAKE_WRITE": "HANDSHAKE CLOSED",
        "NEW":             "PROXY_HEADER HEAD BODY QUEUED CALL WRITE LINGER CLOSED",
        "IDLE":            "HEAD BODY QUEUED CALL WRITE LINGER CLOSED",
        "HEAD":            "BODY QUEUED CALL WRITE LINGER CLOSED",
        "BODY":            "QUEUED CALL WRITE LINGER CLOSED",
        "DRAIN":           "IDLE HEAD BODY QUEUED CALL WRITE LINGER CLOSED",
        "QUEUED":          "IDLE HEAD BODY CALL WRITE LINGER CLOSED",
        "CALL":            "IDLE HEAD BODY DRAIN QUEUED RECEIVE SEND UPGRADED WRITE LINGER CLOSED",
        "RECEIVE":         "IDLE HEAD BODY DRAIN QUEUED CALL SEND UPGRADED WRITE LINGER CLOSED",
        "SEND":            "IDLE HEAD BODY DRAIN QUEUED CALL RECEIVE UPGRADED WRITE LINGER CLOSED",
        "UPGRADED":        "WRITE LINGER CLOSED",
        "WRITE":           "IDLE HEAD BODY DRAIN QUEUED CALL LINGER CLOSED",
        "LINGER":          "CLOSED",
        "CLOSED":          "",
    }
    # fmt: on
    return {
        ConnectionState[name]: StateRow(
            *row, frozenset(ConnectionState[each] for each in successors[name].split())
        )
        for name, row in rows.items()
    }


TABLE: Final = _table()

READING: Final = frozenset(
    state
    for state, row in TABLE.items()
    if row.waits_for is Readiness.READABLE
    and row.movable is not Movable.EMPTY
    and row.time_limit is not TimeLimit.UPGRADED
)
"""States in which the rest of something that has begun has to come from the client."""

WRITING: Final = frozenset(
    {ConnectionState.HANDSHAKE_WRITE, ConnectionState.SEND, ConnectionState.WRITE}
)
"""States in which the client has bytes to take."""
