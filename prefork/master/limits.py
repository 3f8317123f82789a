"""What the master looks at by itself: requests that pass their timeout, and workers' memory.

The workers send no heartbeats.  The scoreboard says since when each call runs, and the next look
is due when the oldest can be late: an idle server is looked at once a timeout.
"""

import math

import psutil

from prefork.scoreboard import Call


def late_calls(calls: list[Call], timeout: float, now: float) -> tuple[list[Call], float]:
    """(calls over the timeout, monotonic seconds at which to look again).

    A call that begins after this look can't be late before `now + timeout`.
    """
    late = []
    look = now + timeout
    for call in calls:
        if call.started:
            if now - call.started >= timeout:
                late.append(call)
            else:
                look = min(look, call.started + timeout)
    return late, look


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in RAM (RSS, proc(5)); 0 for one that is gone."""
    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def next_tick(now: float, seconds: float) -> float:
    """The next full `seconds` of the clock: looks for several reasons are then one wake-up."""
    return (math.floor(now / seconds) + 1) * seconds
