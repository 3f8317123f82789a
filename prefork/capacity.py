"""How large a server can be: fixed sizes that the configuration and the scoreboard share."""

WORKER_SLOTS = 1024
"""Slots of the scoreboard: workers alive at one time, retiring ones included."""

WORKERS_MAX = WORKER_SLOTS - 1
"""The largest `workers.count`: a reload needs a slot for the first worker that it boots."""

THREADS_MAX = 255
"""The largest `workers.threads`: thread records in a slot."""
