"""How hard the tests press a server: by default, and with PREFORK_TESTS=full (`make nightly`)."""

import os

FULL = os.environ.get("PREFORK_TESTS") == "full"

RATE = 500
"""Answers a second of a whole load.

It is enough for a request in almost each millisecond of a reload. A load without a pause takes all
processors, from the boots that it is to meet as well.
"""


def pause(clients: int) -> float:
    """Seconds that each of that many clients waits after an answer."""
    return 0.0 if FULL else clients / RATE
