"""A timer wheel: deadlines that move with each request, at next to no cost.

An item is on the wheel at a tick at or before its deadline.  If the deadline moves away meanwhile,
nothing is done: the item is taken off when its tick comes, and put back at a later one.  So a kept
connection, whose deadline moves with each request, is moved on the wheel once in a while.

This module is pure: the time is passed in.
"""

from math import inf
from typing import Final, Generic, Protocol, TypeVar

_TICKS: Final = 4  # a second


class Timed(Protocol):
    """An item with a deadline."""

    deadline: float
    """Monotonic seconds; 0 for none."""
    wheel_time: float
    """Monotonic seconds of its tick on the wheel; infinity if it is not on the wheel."""


T = TypeVar("T", bound=Timed)


class DeadlineWheel(Generic[T]):
    """The items that have a deadline, by tick."""

    def __init__(self) -> None:
        self._ticks: dict[int, set[T]] = {}
        self.next_tick = inf
        """Monotonic seconds of the earliest tick with an item; infinity if there is none."""

    def put(self, item: T) -> None:
        """Puts an item at the next tick after its deadline."""
        self.remove(item)
        tick = int(item.deadline * _TICKS) + 1
        item.wheel_time = (tick - 1) / _TICKS
        self._ticks.setdefault(tick, set()).add(item)
        self.next_tick = min(self.next_tick, tick / _TICKS)

    def remove(self, item: T) -> None:
        """Takes an item off the wheel, if it is on it."""
        if item.wheel_time == inf:
            return
        tick = int(item.wheel_time * _TICKS) + 1
        there = self._ticks.get(tick)
        if there is not None:
            there.discard(item)
            if not there:
                del self._ticks[tick]
        item.wheel_time = inf

    def take_due(self, now: float) -> list[T]:
        """Takes all items off whose tick has come; the deadline of some may have moved away."""
        taken: list[T] = []
        while self.next_tick <= now:
            for item in self._ticks.pop(int(self.next_tick * _TICKS), ()):
                item.wheel_time = inf
                taken.append(item)
            self.next_tick = min(self._ticks, default=inf) / _TICKS
        return taken
