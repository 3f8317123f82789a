"""What the master measures from time to time: workers' memory, in step with the clock."""

import math


def resident(pid: int) -> int:
    """Bytes of a process's memory that are in RAM (RSS, proc(5)); 0 for one that is gone."""
    import psutil  # a megabyte that every worker would share, for a limit that few set

    try:
        return int(psutil.Process(pid).memory_info().rss)
    except psutil.Error:
        return 0


def next_tick(now: float, seconds: float) -> float:
    """The next full `seconds` of the clock: looks for several reasons are then one wake-up."""
    return (math.floor(now / seconds) + 1) * seconds
