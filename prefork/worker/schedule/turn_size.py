"""How many events one turn of an event loop takes from its epoll: as many as it has time for.

epoll(7) puts what it has reported at the end of its list, in the order that it had.  What a turn
takes and has no time for is behind the same ones again the next time: with more than a turn can
serve, some clients would wait until others have nothing to send.  What is not taken stays in front.
"""

from typing import Final

MOST: Final = 64
"""Events of one turn: the loop's own timers and callbacks come in between."""

TURN: Final = 0.001
"""Seconds after which a turn ends; what is ready stays so."""


class TurnSize:
    """That of one worker."""

    __slots__ = ("events",)

    def __init__(self) -> None:
        self.events = MOST
        """What the next turn takes, at most."""

    def ended(self, taken: int, served: int, seconds: float) -> None:
        """A turn has served so many of the events that it took, in so many seconds."""
        if served < taken:
            self.events = served
        elif seconds < TURN / 2 and self.events < MOST:
            self.events = min(2 * self.events, MOST)
