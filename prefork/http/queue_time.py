"""How long a request has waited since a proxy had it, by the proxy's X-Request-Start.

Proxies write seconds, milliseconds or microseconds since the epoch, some after `t=`: nginx's
`t=${msec}` is seconds with a fraction, Apache httpd's `t=%t` microseconds, HAProxy and Heroku's
router write milliseconds.  Taken from trusted proxies alone: a client can write anything.
"""

import re

_TIME = re.compile(r"(?:t=)?([0-9]{9,17}(?:\.[0-9]{1,9})?)")

_LONGEST = 3600.0
"""Seconds; more is a clock that is wrong, or a client that makes it up."""

_SKEW = 1.0
"""Seconds by which the proxy's clock may be ahead."""


def waited(value: str, now: float) -> float | None:
    """Seconds between the header's time and `now`, in seconds since the epoch; None if it says
    nothing that can be true."""
    found = _TIME.fullmatch(value)
    if found is None:
        return None
    start = float(found[1])
    if start > 1e14:
        start /= 1e6
    elif start > 1e11:
        start /= 1e3
    seconds = now - start
    return max(seconds, 0.0) if -_SKEW <= seconds <= _LONGEST else None
