"""Looks at the machine that are due from time to time, in step with the clock."""

import math


def next_tick(now: float, seconds: float) -> float:
    """The next full `seconds` of the clock: looks for several reasons are then one wake-up."""
    return (math.floor(now / seconds) + 1) * seconds
