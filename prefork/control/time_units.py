"""How `status` and `top` write durations and calls."""

from prefork.control.control_messages import CallStatus
from prefork.logs import printable

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def duration(seconds: float) -> str:
    """The two largest units: `4 s`, `2 h 5 min`."""
    rest, parts = int(seconds), []
    for unit, size in _UNITS:
        number, rest = divmod(rest, size)
        if number:
            parts.append(f"{number} {unit}")
        elif parts:
            break
    return " ".join(parts[:2]) or "0 s"


def milliseconds(seconds: float) -> str:
    """`0.3 ms`, `250 ms`, `1.5 s`."""
    if seconds >= 1:
        return f"{seconds:.1f} s"
    number = seconds * 1000
    return f"{number:.0f} ms" if number >= 10 or not number else f"{number:.1f} ms"


def call_line(call: CallStatus) -> str:
    """A running call, in one line: `GET /report for 10.0.0.7, 3.2 s`, and whether it waits for its
    client."""
    peer = f" for {printable(call.peer)}" if call.peer else ""
    waits = ", waits for its client" if call.waiting else ""
    return f"{printable(call.request)}{peer}, {milliseconds(call.elapsed)}{waits}"
