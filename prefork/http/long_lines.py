"""Heads of which one line takes most, such as 4 KB of cookies: their lines, end, and its text.

`bytes.find` and `bytes.split` look at each byte for what is longer than one.  To find a single byte
is memchr(3), which takes a twentieth of that.  So the long line is found by the LF at its ends, and
only what is before and after it is looked at.
"""

from msgspec.json import Decoder

LONG = 1024
"""Bytes from which on this is worth the while."""

_json_string = Decoder(str).decode

_CRLF = b"\r\n"
_EMPTY_LINE = b"\r\n\r\n"


def find_empty_line(data: bytes) -> int:
    """As data.find(b"\\r\\n\\r\\n")."""
    start, stop = _long_line(data)
    if not stop:
        return data.find(_EMPTY_LINE)
    found = data.find(_EMPTY_LINE, 0, start + 1)
    return found if found >= 0 else data.find(_EMPTY_LINE, stop - 1)


def split_lines(data: bytes) -> tuple[list[bytes], int]:
    """As data.split(b"\\r\\n"), and the number of the long line; 0 if there is none."""
    start, stop = _long_line(data)
    if not stop:
        return data.split(_CRLF), 0
    lines = data[: start + 1].split(_CRLF)
    number = len(lines) - 1
    after = data[stop - 1 :].split(_CRLF)
    # Both hold nothing of it, unless an LF without a CR is at that end.
    lines[-1] += data[start + 1 : stop - 1] + after[0]
    lines += after[1:]
    return lines, number


def plain_text(data: bytes) -> str | None:
    """The text of long data, if all of it is printable ASCII without a quote or a backslash.

    To read it as a string of JSON, which has no control character either (RFC 8259 section 7),
    takes less than half of what `bytes.translate` does.
    """
    if 0x7F in data:  # as a number: bytes would be tried as one, which takes an exception
        return None
    try:
        text = _json_string(b'"%b"' % data)
    except ValueError:  # DecodeError, and of msgspec 0.21 also UnicodeDecodeError
        return None
    # An escape, and a character of UTF-8 that is not ASCII, takes more bytes than one.
    return text if len(text) == len(data) else None


def _long_line(data: bytes) -> tuple[int, int]:
    """Where the LF before a line and the LF behind it are, or the end of the data, if it takes half
    of the bytes; else (0, 0)."""
    middle = len(data) // 2
    start = data.rfind(b"\n", 0, middle)
    stop = data.find(b"\n", middle)
    if stop < 0:
        stop = len(data)
    return (start, stop) if start >= 0 and stop - start > middle else (0, 0)
