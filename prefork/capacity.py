"""How large a server can be: fixed sizes that the configuration and the scoreboard share."""

WORKER_SLOTS = 1024
"""Slots of the scoreboard: workers alive at one time, retiring ones included."""

WORKERS_MAX = WORKER_SLOTS - 1
"""The largest `workers.count`: a reload needs a slot for the first worker that it boots."""

THREADS_MAX = 255
"""The largest `workers.threads`: thread records in a slot."""

CALL_RECORDS = 32
"""Thread records that a worker with an event loop uses: so many of its calls are shown at once."""


def records_of(protocol: str, threads: int) -> int:
    """Thread records of a worker, by `server.protocol` and `workers.threads`."""
    return CALL_RECORDS if protocol == "asgi" else threads
