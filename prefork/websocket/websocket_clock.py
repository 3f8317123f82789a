"""The times of one WebSocket: when to ping, when to close, and when to give up.

Pure: the time is passed in, in monotonic seconds.  The owner calls `look` when `due` has come, and
does what that says.  Pings fall on eighths of their interval, so that those of many clients come
due together and wake an idle worker once for all of them.
"""

from enum import Enum
from math import ceil
from typing import NamedTuple

from prefork.websocket.close_codes import GOING_AWAY, INTERNAL_ERROR

CLOSE_TIMEOUT = 10.0
"""Seconds that a client gets to answer a close frame."""


class ClockAction(Enum):
    """What is to be done now."""

    NOTHING = "nothing"
    PING = "ping"
    CLOSE = "close"
    """Send a close frame with `code`, and wait for the client's."""
    GIVE_UP = "give up"
    """End the connection, with a close frame if none was sent."""


class PingRules(NamedTuple):
    """Seconds; 0 for never."""

    interval: float
    timeout: float


class WebsocketClock:
    """The times of one WebSocket that was accepted."""

    __slots__ = (
        *("_age_at", "_awaiting", "_close_by", "_heard", "_patience", "_pinged", "_rules"),
        *("_stop_at", "code", "due"),
    )

    def __init__(self, rules: PingRules, age: float, now: float) -> None:
        """`age`: seconds until it is closed, 0 for never."""
        self._rules = rules
        self._heard = now
        self._pinged = 0.0
        self._awaiting = False  # the answer to a ping
        self._age_at = now + age if age else 0.0
        self._stop_at = self._close_by = 0.0
        self._patience = CLOSE_TIMEOUT
        self.code = GOING_AWAY
        """With which it is to be closed."""
        self.due = 0.0
        """When to look; 0 for never."""
        self._schedule()

    def heard(self, now: float) -> bool:
        """Something has come from the client; returns whether that has changed `due`."""
        self._heard = now
        if not self._awaiting:
            return False
        self._awaiting = False
        self._schedule()
        return True

    def stop(self, at: float, code: int, patience: float) -> None:
        """It is to be closed at that time; its client gets `patience` seconds to answer."""
        self._stop_at, self._patience = at, min(patience, CLOSE_TIMEOUT)
        self.code = code
        if self._close_by:
            self._close_by = min(self._close_by, at + self._patience)
        self._schedule()

    def closing(self, now: float) -> None:
        """The close frame is sent."""
        self._close_by = now + self._patience
        self._schedule()

    def look(self, now: float, *, deaf: bool = False) -> ClockAction:
        """What is to be done; `deaf`: nothing is read from the client at present, so that it may
        have answered a ping."""
        action = self._action(now, deaf)
        self._schedule()
        return action

    def _action(self, now: float, deaf: bool) -> ClockAction:
        if self._close_by:
            return ClockAction.GIVE_UP if now >= self._close_by else ClockAction.NOTHING
        if self._stop_at and now >= self._stop_at:
            return ClockAction.CLOSE
        if self._age_at and now >= self._age_at:
            self.code = GOING_AWAY
            return ClockAction.CLOSE
        interval, timeout = self._rules
        if self._awaiting:
            if deaf:
                self._awaiting = False
                self._heard = now
            elif timeout and now >= self._pinged + timeout:
                self.code = INTERNAL_ERROR
                return ClockAction.GIVE_UP
        elif interval and now >= self._heard + interval:
            self._pinged, self._awaiting = now, True
            return ClockAction.PING
        return ClockAction.NOTHING

    def _schedule(self) -> None:
        if self._close_by:
            self.due = self._close_by
            return
        times = [at for at in (self._stop_at, self._age_at) if at]
        interval, timeout = self._rules
        if self._awaiting:
            if timeout:
                times.append(self._pinged + timeout)
        elif interval:
            eighth = interval / 8
            times.append(ceil((self._heard + interval) / eighth) * eighth)
        self.due = min(times, default=0.0)
