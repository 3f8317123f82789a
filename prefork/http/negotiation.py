"""Which coding of a body a client wants (RFC 9110 section 12.5.3)."""

import re
from collections.abc import Iterable

_WEIGHT = re.compile(r"0(?:\.[0-9]{0,3})?|1(?:\.0{0,3})?")  # section 12.4.2
_ENTRIES = 50
"""More of them are not looked at."""


def accepted(header: str | None, offered: Iterable[str]) -> list[str]:
    """Those of the offered codings that `Accept-Encoding` allows, the most wanted first.

    Of two that are wanted alike, the one that is offered first.  Nothing if the header is not
    there: the client could take any, but has not said that it can.
    """
    if not header:
        return []
    weights: dict[str, float] = {}
    for entry in header.lower().split(",", _ENTRIES)[:_ENTRIES]:
        coding, _, parameter = entry.partition(";")
        weight = _weight(parameter.strip(" \t"))
        if weight is not None:
            weights[coding.strip(" \t").removeprefix("x-")] = weight  # x-gzip: section 8.4.1.3
    rest = weights.get("*", 0.0)
    wanted = [(weights.get(coding, rest), coding) for coding in offered]
    return [coding for weight, coding in sorted(wanted, key=lambda one: -one[0]) if weight]


def _weight(parameter: str) -> float | None:
    if not parameter:
        return 1.0
    name, _, value = parameter.partition("=")
    return float(value) if name == "q" and _WEIGHT.fullmatch(value) else None
