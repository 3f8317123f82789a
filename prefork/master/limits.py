"""What a worker may not do for ever: a request that passes its timeout.

The workers send no heartbeats.  The scoreboard says since when each call runs, and the next look
is due when the oldest can be late: an idle server is looked at once a timeout.
"""

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
