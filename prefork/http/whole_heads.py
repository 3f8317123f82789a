"""Whole heads that come again, byte for byte, found by their bytes.

Kept is a head that came alone in one piece, without a body, for the second time, and all of whose
field lines are kept as well: then it holds nothing secret (prefork.http.field_lines).  A query may
hold something secret, so that a head with one is not kept.  It is hello and the like that gain from
this; for all else it must cost next to nothing.
"""

from typing import Final

from prefork.http.field_lines import FieldLines
from prefork.http.head_reader import Head
from prefork.http.request import Environ, RepeatedRequest

_HEADS_KEPT: Final = 256
_HEAD_SIZE: Final = 2048
_MARKS_KEPT: Final = 1024


class KnownHead(RepeatedRequest):
    """A head that was read before."""

    __slots__ = ("environ", "fields", "http11", "keep_alive", "line")

    def __init__(self, head: Head, own: Environ) -> None:
        """`own`: what is in the environ for this connection alone."""
        super().__init__()
        environ, self.line, self.http11, self.keep_alive, _, _, self.fields = head
        self.environ: Environ = environ.copy()
        """To be copied; the peer, `wsgi.input` and what is a connection's own are to be put in."""
        for key in own:
            del self.environ[key]


class WholeHeads(dict[bytes, KnownHead]):
    """The heads of one listener by their bytes: all its connections have the same base environ and
    the same limits."""

    __slots__ = ("_marks", "sizes")

    def __init__(self) -> None:
        super().__init__()
        # Clients choose what is in here, so each has a bound, and begins anew when it is full.
        self._marks: set[int] = set()
        self.sizes: set[int] = set()
        """Their sizes in bytes: what has another need not be hashed to be looked up."""

    def note(self, data: bytes, head: Head, lines: FieldLines, own: Environ) -> None:
        """A head without a body was read, and `data` is all that had come: it is kept if it comes
        for the second time.

        `own`: as in a KnownHead.
        """
        environ = head[0]
        if "HTTP_COOKIE" in environ or environ["QUERY_STRING"] or len(data) > _HEAD_SIZE:
            return
        mark = hash(data)
        if mark not in self._marks:
            # Most that differ from the last are never seen again.
            if len(self._marks) >= _MARKS_KEPT:
                self._marks.clear()
            self._marks.add(mark)
        elif all(line in lines for line in data.split(b"\r\n")[1:-2]):
            if len(self) >= _HEADS_KEPT:
                self.clear()
                self.sizes.clear()
            self.sizes.add(len(data))
            self[data] = KnownHead(head, own)
