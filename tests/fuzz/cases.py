"""Inputs that a fuzzer has found to be read in different ways once, or that are close to such.

Each is read whole, byte by byte and cut at each place (tests/unit/test_reader_differential.py).
"""

CASES: dict[str, bytes] = {
    "a method longer than a request line may be": b"0" * 60 + b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "a line over the limit with a control character behind it": (
        b"GET /" + b"a" * 60 + b"\x01 HTTP/1.1\r\n\r\n"
    ),
    "a CR where one more field would be too many": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: 1\r\nY: 2\r\n\rZ\r\n\r\n"
    ),
    "an end of line at the limit of all fields": (
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 76 + b"\r\n\r\n"
    ),
    "a field without a colon whose name is known": b"GET / HTTP/1.1\r\nHost: a\r\nHost\r\n\r\n",
    "an upgrade whose body looks like a request": (
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 27\r\n\r\nGET /b HTTP/1.1\r\nHost: a\r\n\r\n"
    ),
    "a size line whose end is cut, before one that is too long": (
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1;" + b"a" * 16_500 + b"\r\nx\r\n0\r\n\r\n"
    ),
}
