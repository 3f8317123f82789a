"""The chunked transfer coding (RFC 9112 section 7.1), read from pieces that are cut anywhere.

What is refused, and with which status, depends on the bytes alone and not on the pieces.
"""

import re
from enum import Enum
from sys import maxsize

from prefork.http.field_lines import FieldLines, has_control
from prefork.http.head_rules import Reject
from prefork.http.limits import RequestLimits
from prefork.quantity import quantity

FRAMING_FOR_A_BYTE = 16
"""Bytes of framing that each byte of body pays for.  A chunk of one byte has five."""

FRAMING_FOR_ALL = 16 * 1024
"""Bytes of framing that any body may have, beyond the size of a head."""

# chunk-size [ chunk-ext ] of RFC 9112 section 7.1.1.  The white space around ";" and "=" is BWS,
# which has to be read (RFC 9110 section 5.6.3); elsewhere there is none.  A size has no sign, and
# at most 16 digits beside zeros at its front.
_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]++"
_QUOTED = rb'"(?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]++|\\[\t\x20-\x7e\x80-\xff])*"'
# No group is possessive: before CPython 3.11.5 (gh-106052) such a group matches what it should not.
# Its pieces are, so that a line that does not match takes linear time.
_SIZE_LINE = re.compile(
    rb"(?=[0-9A-Fa-f])0*+([0-9A-Fa-f]{0,16}+)"
    rb"(?:[\t ]*+;[\t ]*+%b(?:[\t ]*+=[\t ]*+(?:%b|%b))?)*" % (_TOKEN, _TOKEN, _QUOTED)
).fullmatch

# Sizes that are read by looking them up.
_SIZES = {form % size: size for size in range(1, 1024) for form in (b"%x", b"%X")}

# RFC 9110 section 6.5.1: what says where a message ends is no trailer field.
_FRAMING = {"CONTENT_LENGTH": 400, "HTTP_TRANSFER_ENCODING": 501}


class _Next(Enum):
    """What is read next."""

    SIZE = "chunk size"
    DATA = "chunk data"
    DATA_END = "end of a chunk"
    TRAILER = "trailer section"
    NOTHING = "nothing"


_SIZE, _DATA, _DATA_END, _TRAILER, _NOTHING = _Next


class ChunkedDecoder:
    """Takes the framing off one body."""

    __slots__ = (
        "_framing",
        "_held",
        "_left",
        "_limits",
        "_lines",
        "_next",
        "_scanned",
        "_trailer_count",
        "_trailer_size",
        "end",
        "problem",
        "size",
    )

    def __init__(self, lines: FieldLines, limits: RequestLimits) -> None:
        """lines: what reads the trailer fields.  limits: on the body and, as on a head, on the
        trailer section."""
        self._limits = limits
        self._lines = lines
        self._next = _SIZE
        self._left = 0  # bytes of the chunk that have not come
        self._held = bytearray()  # of a line that has no end yet
        self._scanned = 0  # bytes of that, which hold no control character
        self._framing = 0  # bytes that no byte of body has paid for
        self._trailer_count = self._trailer_size = 0
        self.size = 0
        """Bytes of body in all chunks whose size has come."""
        self.end = -1
        """Where the body has ended in the piece that came last; -1 if it has not."""
        self.problem: Reject | None = None
        """What is wrong with the body, with status 400, 413, 431 or 501: nothing more is read."""

    @property
    def held(self) -> int:
        """Bytes of framing that are kept in memory."""
        return len(self._held)

    def feed(self, data: bytes, at: int = 0) -> list[bytes]:
        """The parts of the body that begin at `at` in a piece of what is received.

        It is not to be called again once `end` or `problem` is set.
        """
        pieces: list[bytes] = []
        try:
            self.end = self._read(data, at, pieces)
        except Reject as problem:
            problem.__traceback__ = None  # it refers to this frame, and so to the pieces
            self.problem = problem
            self._next = _NOTHING
        return pieces

    def _read(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        size = len(data)
        while at < size:
            step = self._next
            if step is _SIZE:
                if not self._held:
                    at = self._read_chunks(data, at, pieces)
                    if at == size:
                        break
                line, at = self._line(data, at, self._framing_room())
                if line is not None:
                    self._begin_chunk(line)
            elif step is _DATA:
                left = self._left
                stop = min(at + left, size)
                pieces.append(data[at:stop])
                self._left = left - (stop - at)
                at = stop
                if not self._left:
                    self._next = _DATA_END
            elif step is _DATA_END:
                # `_left` counts the bytes of CRLF that have come.
                if data[at] != b"\r\n"[self._left]:
                    raise Reject(400, "a chunk does not end in CRLF")
                at += 1
                self._left += 1
                if self._left == 2:
                    self._left = 0
                    self._next = _SIZE
            else:
                line, at = self._line(data, at, self._trailer_room())
                if line == b"":
                    self._next = _NOTHING
                    return at
                if line is not None:
                    self._read_trailer(line)
        return -1

    def _read_chunks(self, data: bytes, at: int, pieces: list[bytes]) -> int:
        """Reads whole chunks, in the way that is shortest for each of them.

        Returns where the first begins that is not whole, is the last, or is refused.
        """
        limits = self._limits
        most = limits.body or maxsize
        total, framing = self.size, self._framing
        room = _framing_limit(limits)
        find, sizes, take = data.find, _SIZES, pieces.append
        while (end := find(b"\r\n", at)) >= 0:
            line = data[at:end]
            size = sizes.get(line)
            if size is None:
                match = _SIZE_LINE(line)
                if match is None or not (size := int(match[1] or b"0", 16)):
                    break
            start = end + 2
            stop = start + size
            if data[stop : stop + 2] != b"\r\n":
                break
            framing += end - at
            if total + size > most or framing > room:
                framing -= end - at
                break
            take(data[start:stop])
            total += size
            framing += 4 - FRAMING_FOR_A_BYTE * size
            if framing < 0:
                framing = 0
            at = stop + 2
        self.size, self._framing = total, framing
        return at

    def _begin_chunk(self, line: bytes) -> None:
        match = _SIZE_LINE(line)
        if match is None:
            raise Reject(400, "a chunk has no valid size, or an extension is malformed")
        size = int(match[1] or b"0", 16)
        self.size += size
        limit = self._limits.body
        if limit and self.size > limit:
            raise Reject(413, f"body is larger than {quantity(limit, 'byte')}")
        self._framing = max(self._framing + len(line) + 4 - FRAMING_FOR_A_BYTE * size, 0)
        self._left = size
        self._next = _DATA if size else _TRAILER

    def _read_trailer(self, line: bytes) -> None:
        """A trailer field is checked and dropped (RFC 9112 section 7.1.2)."""
        key, _ = self._lines.read(line)
        status = _FRAMING.get(key)
        if status is not None:
            raise Reject(status, "a trailer field can't say where a message ends")
        self._trailer_count += 1
        self._trailer_size += len(line) + 2

    # Lines.

    def _framing_room(self) -> int:
        return _framing_limit(self._limits) - self._framing

    def _trailer_room(self) -> int:
        return (self._limits.header_size or maxsize) - self._trailer_size - 2

    def _line(self, data: bytes, at: int, room: int) -> tuple[bytes | None, int]:
        """The line whose rest begins at `at`, and where the next begins; None if it has no end.

        room: bytes that it may have at most.
        """
        held = self._held
        if held and held[-1] == 13 and data[at] == 10:
            del held[-1:]
            end, after = at, at + 1
        else:
            end = data.find(b"\r\n", at)
            after = end + 2
        if end >= 0 and not held:
            line = data[at:end]
            self._check(line, len(line), room)
            return line, after
        if end < 0:
            held += data[at:]
            # A CR at the end is half of a line's end, so far.
            size = len(held) - held.endswith(b"\r")
            self._check(held, size, room)
            self._scanned = size
            return None, len(data)
        held += data[at:end]
        self._check(held, len(held), room)
        line = bytes(held)
        self._held = bytearray()
        self._scanned = 0
        return line, after

    def _check(self, line: bytes | bytearray, size: int, room: int) -> None:
        """Checks the first `size` bytes of a line."""
        if not size:
            return
        limits = self._limits
        trailer = self._next is _TRAILER
        if trailer and limits.header_count and self._trailer_count >= limits.header_count:
            raise Reject(431, f"more than {quantity(limits.header_count, 'trailer')}")
        if has_control(line, self._scanned, min(size, room)):
            raise Reject(400, "chunk framing holds a control character, a bare CR or a bare LF")
        if size > room:
            what = "trailers are" if trailer else "chunk framing is"
            raise Reject(431, f"{what} larger than {quantity(limits.header_size, 'byte')}")


def _framing_limit(limits: RequestLimits) -> int:
    return limits.header_size + FRAMING_FOR_ALL if limits.header_size else maxsize
