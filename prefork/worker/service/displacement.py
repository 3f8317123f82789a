"""Which connection gives way when a worker is full and a new one comes.

An address that holds more than its share of the worker gives way first, and makes room for its own
new connections by itself.  Of the others, those that wait for a request go before those that have
begun one, and of these the one whose client has given or taken least in its time.  So a client that
works is the last to go, and an address that holds many connections at the lowest rate that the
limits allow keeps nobody out.

To rank all connections takes milliseconds.  So they are ranked for many new ones at once, and a
ranking is used for a second at most.

No socket is touched here, and the time is passed in.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from heapq import nsmallest
from math import inf
from typing import Generic, NamedTuple, Protocol, TypeVar

from prefork.worker.transport.client_limits import Pace

_LONGEST = 1.0
"""Seconds for which a ranking is used."""

_PAUSE = 1e-5
"""Seconds for each connection until all are ranked again if none could give way: some ten times as
long as that takes."""

_FEW = 6
"""Connections that are no large share in any worker: browsers open so many."""

_CHANCE = 1.0
"""Seconds in which a request may show what its client gives, unless its address has too many."""

_LEAST, _MOST = 16, 1024
"""The bounds of how many are ranked at a time, which is an eighth of all."""


class HeldConnection(Protocol):
    """A connection that a worker holds."""

    holder: str
    """The address or network that it counts for; empty for none, as for a trusted proxy."""

    @property
    def idle(self) -> bool:
        """It waits for a request, and nothing of that has come."""

    def pace(self, now: float) -> Pace | None:
        """None while the worker is at work for it."""


H = TypeVar("H", bound=HeldConnection)


class _Ranked(NamedTuple, Generic[H]):
    over: bool
    """Its holder has more than its share."""
    idle: bool
    pace: Pace
    member: H


def _order(ranked: _Ranked[H]) -> tuple[bool, bool, float, float]:
    return not ranked.over, not ranked.idle, *ranked.pace


def _had_its_chance(ranked: _Ranked[H], now: float) -> bool:
    rate, since = ranked.pace
    return rate < inf and now - since >= _CHANCE


class Displacement(Generic[H]):
    """The connections of one worker in the order in which they give way."""

    def __init__(self, share: float, limit: int) -> None:
        """`share`: of the `limit` connections of the worker, for each address, from 0 to 1."""
        self._allowed = max(int(share * limit), _FEW)
        self.ranked: list[_Ranked[H]] = []
        """Those that give way next, the first one first."""
        self._counts: Counter[str] = Counter()
        self._until = self._again = 0.0

    def make_room(
        self,
        holder: str,
        now: float,
        members: Iterable[H],
        parked: Iterable[H],
        end: Callable[[H], bool],
    ) -> bool:
        """Ends a connection for a new one of `holder`; returns False if none may be ended.

        now: monotonic seconds.  members: all connections.  parked: those that wait for their
        client.  end: closes one; returns False if another thread has it.
        """
        if now < self._until and self._end_next(holder, end):
            return True
        # Those that were ranked have gone on or have ended, and others may give way by now.
        if now < self._again:
            return False
        self._rank(now, list(members), list(parked))
        if self._end_next(holder, end):
            return True
        self._again = now + _PAUSE * self._counts.total()
        return False

    def _end_next(self, holder: str, end: Callable[[H], bool]) -> bool:
        """Ends the first of those ranked that may be; False if there is none."""
        place = 0
        own = bool(holder) and self._counts[holder] >= self._allowed
        while place < len(self.ranked):
            ranked = self.ranked[place]
            member = ranked.member
            if own and member.holder != holder:
                place += 1
                continue
            del self.ranked[place]
            # One that was idle may have begun a request meanwhile, and be closed or another's.
            if (member.idle or not ranked.idle) and end(member):
                self._counts[member.holder] -= 1
                self._counts[holder] += 1
                return True
        return False

    def largest(self) -> tuple[str, int]:
        """The address that holds most, as of the last ranking, and how many connections."""
        self._counts.pop("", None)
        return self._counts.most_common(1)[0] if self._counts else ("", 0)

    def forget(self, now: float) -> None:
        """Drops a ranking that is too old, and so the connections in it that have ended."""
        if self.ranked and now >= self._until:
            self.ranked = []

    def _rank(self, now: float, members: list[H], parked: list[H]) -> None:
        self._counts = Counter(member.holder for member in members)
        over = {holder for holder, count in self._counts.items() if count > self._allowed}
        over.discard("")
        found = (
            _Ranked(member.holder in over, member.idle, pace, member)
            for member in parked
            if (pace := member.pace(now)) is not None
        )
        found = (each for each in found if each.over or each.idle or _had_its_chance(each, now))
        most = min(max(len(members) // 8, _LEAST), _MOST)
        self.ranked = nsmallest(most, found, key=_order)
        self._until = now + _LONGEST
