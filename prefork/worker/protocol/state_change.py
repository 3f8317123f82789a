"""A change of a connection's state, by the table of `connection_state`."""

from prefork import logs
from prefork.worker.protocol.connection_state import TABLE, ConnectionState


def successor(now: ConnectionState, wanted: ConnectionState) -> ConnectionState:
    """`wanted`, if the table allows that state after `now`, and CLOSED otherwise.

    The latter is a defect of ours.  It is logged, and costs this client its connection, and no
    other client of the worker.
    """
    if wanted is now or wanted in TABLE[now].successors:
        return wanted
    reason = f"state {wanted.value!r} after {now.value!r}"
    logs.event("error", "connection lost", reason=reason)
    return ConnectionState.CLOSED
