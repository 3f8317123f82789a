"""What the two sides of a call know of each other: where a response goes, and how it ended.

These are base classes and no protocols, so that compiled code finds their attributes at once.
"""

from prefork.compiled import native


class CallOutcome:
    """The facts about a response that its connection needs."""

    __slots__ = ("ended", "last", "sent")

    sent: int
    """Bytes of body."""
    last: bool
    """The connection ends with it."""
    ended: float
    """Monotonic seconds at which the call was over."""


@native(allow_interpreted_subclasses=True)
class ResponseSink:
    """Where the bytes of a response go."""

    __slots__ = ("broken", "closing")

    closing: bool
    """This is the connection's last response: the worker is on its way out."""
    broken: bool
    """The client is gone, or was answered by another thread: nothing more will be sent."""

    def send(self, data: bytes) -> None:
        raise NotImplementedError

    def send_piece(self, data: bytes) -> None:
        """Sends a part of a body of which the application has to make the rest."""
        raise NotImplementedError

    def send_file(self, head: bytes, fd: int, offset: int, count: int) -> None:
        raise NotImplementedError

    def send_interim(self, data: bytes) -> None:
        raise NotImplementedError

    def ends_with_close(self) -> None:
        """The end of the connection will be that of the response."""
        raise NotImplementedError

    def break_off(self) -> None:
        """The response stays incomplete, and the client has to see that."""
        raise NotImplementedError
