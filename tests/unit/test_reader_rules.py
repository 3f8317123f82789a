"""The rules of tests/unit/test_request_parser_strict.py, as the reader of our own holds them."""

import pytest

from prefork.http.reader import State
from tests.unit import test_request_parser
from tests.unit.reading import BASE, LIMITS, Reading, RequestReader, pieces_of, reading, taken
from tests.unit.test_request_parser_strict import (
    END,
    NEXT,
    REFUSED,
    SERVED,
    TIGHT,
    chunks,
    coding,
    get,
    host,
    length,
    target,
    trailers,
)

# What llhttp refuses, or can't read, and RFC 9110 lets a server take: any method that is a token
# (section 9.1), and Upgrade, which may be ignored (section 7.8).
OPENED = {
    "a method in small letters",
    "a method that nobody knows",
    "an upgrade with a body",
    "an upgrade with chunks",
}

SERVED_TOO = {
    **{name: (2, REFUSED[name][1]) for name in sorted(OPENED)},
    **SERVED,
    # Methods (RFC 9110 section 9.1).
    "a method of WebDAV": (2, target(b"/", b"VERSION-CONTROL")),
    "a method of a cache": (2, target(b"/", b"BAN")),
    "a method of each character": (2, target(b"/", b"!#$%&'*+-.^_`|~09azAZ")),
    "a method that begins with that of HTTP/2": (2, target(b"/", b"PRI")),
    "an absolute target for OPTIONS": (2, target(b"http://test", b"OPTIONS")),
    # Optional white space (RFC 9110 section 5.6.3).
    "a tab before chunked": (2, get(b"Transfer-Encoding:\tchunked") + END),
    "tabs and spaces around chunked": (2, get(b"Transfer-Encoding: \t chunked \t") + END),
    "no white space before chunked": (2, get(b"Transfer-Encoding:chunked") + END),
    "a tab before Host": (2, get(host=b"Host:\ttest\t")),
    "tabs in Connection": (1, get(b"Connection:\tx\t,\tclose\t")),
    "a tab around an expectation": (2, get(b"Expect:\t100-Continue\t")),
    # Bad white space in extensions (RFC 9112 section 7.1.1).
    "white space around an extension": (2, chunks(b"1 ; a = b\r\nx\r\n0 ; a\r\n\r\n")),
    "tabs around an extension": (2, chunks(b'1\t;\ta\t=\t"b\tc"\t;d\r\nx\r\n' + END)),
    "an escape in an extension": (2, chunks(b'1;a="\\"\\\\\\\t";b\r\nx\r\n' + END)),
    "obs-text in an extension": (2, chunks(b'1;a="\x80\xff"\r\nx\r\n' + END)),
    "an empty extension in quotes": (2, chunks(b'1;a=""\r\nx\r\n' + END)),
    "an extension of each token character": (
        2,
        chunks(b"1;!#$%&'*+-.^_`|~09azAZ=!#$%&'*+-.^_`|~09azAZ\r\nx\r\n" + END),
    ),
    "zeros before a size of 16 digits": (
        2,
        chunks(b"0000000000000000000a\r\n0123456789\r\n" + END),
    ),
    "an upgrade and a body": (2, length(b"1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA")),
    "an upgrade and chunks": (2, coding(b"chunked\r\nConnection: Upgrade\r\nUpgrade: h2c")),
    "a list of expectations": (2, get(b"Expect: 100-continue, 100-Continue")),
    "a length of many zeros": (2, length(b"0" * 5000 + b"1")),
    "a trailer with an empty value": (2, chunks(b"0\r\nX:\r\n\r\n")),
}

REFUSED_TOO = {
    **{name: case for name, case in REFUSED.items() if name not in OPENED},
    "a method with a colon": (400, target(b"/", b"GET:")),
    "a method with a slash": (400, target(b"/", b"GET/")),
    "a NUL in the method": (400, target(b"/", b"G\0T")),
    "a method beyond ASCII": (400, target(b"/", b"G\xc9T")),
    "a tab behind the version": (400, get(first=b"GET / HTTP/1.1\t")),
    "a form feed between method and target": (400, get(first=b"GET\x0c/ HTTP/1.1")),
    "four words": (400, get(first=b"GET / x HTTP/1.1")),
    "one word": (400, get(first=b"GET")),
    "an asterisk with a path": (400, target(b"*/a", b"OPTIONS")),
    "CONNECT of a later version": (505, get(first=b"CONNECT test:443 HTTP/2.0")),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "RTSP without a number": (505, get(first=b"PLAY / RTSP/")),
    "a bare CR before a colon": (400, get(b"X\r: 1")),
    "a bare CR before a line's end": (400, get(b"X: 1\r\r\n").removesuffix(b"\r\n")),
    "a bare LF at the end of a value": (400, get(b"X: 1\n")),
    "a field line of a colon alone": (400, get(b":")),
    "a space alone": (400, get(b" ")),
    "a name in two words": (400, get(b"X Y: 1")),
    "a line feed before white space": (400, get(b"X: 1\n 2")),
    "a length with white space inside": (400, length(b"1\t1")),
    "a length beyond ASCII": (400, length(b"\xb2")),
    "a length with a comma": (400, length(b"1,")),
    "a coding with an empty element": (501, coding(b"chunked,")),
    "a coding behind a vertical tab": (400, coding(b"\x0bchunked")),
    "a coding before a no-break space": (501, coding(b"chunked\xa0")),
    "a chunk size of 17 digits": (400, chunks(b"10000000000000000\r\n")),
    "a large chunk size": (413, chunks(b"ffffffffffffffff\r\n")),
    "white space alone before the end of a size line": (400, chunks(b"1;a \r\nx\r\n" + END)),
    "an extension without a value": (400, chunks(b"1;a=\r\nx\r\n" + END)),
    "an extension with an open quote": (400, chunks(b'1;a="\r\nx\r\n' + END)),
    "an extension with an escape at its end": (400, chunks(b'1;a="\\"\r\nx\r\n' + END)),
    "an extension with an escaped control": (400, chunks(b'1;a="\\\x01"\r\nx\r\n' + END)),
    "two semicolons": (400, chunks(b"1;;a\r\nx\r\n" + END)),
    "a chunk size in fullwidth": (400, chunks("１".encode() + b"\r\nx\r\n" + END)),
    "a bare CR in a trailer": (400, chunks(b"0\r\nX: a\rb\r\n\r\n")),
    "a trailer without a colon": (400, chunks(b"0\r\nX\r\n\r\n")),
    "white space before a trailer": (400, chunks(b"0\r\n X: 1\r\n\r\n")),
    "another expectation in a list": (417, get(b"Expect: 100-continue, magic")),
}


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", REFUSED_TOO)
def test_refused(name: str, size: int) -> None:
    status, data = REFUSED_TOO[name]
    stream = data + NEXT
    found = reading(pieces_of(stream, size or len(stream)))
    assert found.requests == []
    assert (found.status, name) == (status, name), found.reason
    assert found.reason


@pytest.mark.parametrize("name", REFUSED_TOO)
def test_refused_behind_another_request(name: str) -> None:
    status, data = REFUSED_TOO[name]
    found = reading([NEXT + data + NEXT])
    assert len(found.requests) == 1
    assert found.status == status


@pytest.mark.parametrize("name", REFUSED_TOO)
def test_why_it_is_refused_does_not_depend_on_the_pieces(name: str) -> None:
    _, data = REFUSED_TOO[name]
    whole = reading([data])
    for place in range(1, len(data), max(len(data) // 200, 1)):
        assert reading([data[:place], data[place:]]) == whole, place


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", SERVED_TOO)
def test_served(name: str, size: int) -> None:
    count, data = SERVED_TOO[name]
    stream = data + NEXT
    reader = RequestReader(BASE, LIMITS)
    requests = [
        each for piece in pieces_of(stream, size or len(stream)) for each in taken(reader, piece)
    ]
    assert reader.error is None
    assert len(requests) == count
    assert reader.surplus is (count == 1)
    assert reader.state is (State.START if count == 2 else State.END)


MOVED = {
    # These are served now.
    "a body with an upgrade",
    "an unknown method",
    "a method that begins like another",
    "a method of a newer protocol",
}


@pytest.mark.parametrize("name", sorted(test_request_parser.REJECTED.keys() - MOVED))
@pytest.mark.parametrize("size", [0, 1])
def test_a_request_is_refused_as_soon_as_that_is_known(name: str, size: int) -> None:
    """Without the end of a head, in some cases."""
    status, data = test_request_parser.REJECTED[name]
    found = reading(pieces_of(data, size or len(data)), test_request_parser.LIMITS)
    assert not found.requests
    assert found.status == status, found.reason


@pytest.mark.parametrize("name", test_request_parser.STREAMS)
def test_requests_cut_at_any_byte_are_the_same_requests(name: str) -> None:
    stream = test_request_parser.STREAMS[name]
    whole = reading([stream])
    assert whole.requests
    assert not whole.status
    for position in range(1, len(stream)):
        assert reading([stream[:position], stream[position:]]) == whole, position
    assert reading(pieces_of(stream, 1)) == whole


def test_an_https_target_is_for_a_connection_with_tls() -> None:
    """RFC 9110 section 7.4."""
    data = target(b"HTTPS://test/")
    assert reading([data]).status == 421
    secured = RequestReader({**BASE, "wsgi.url_scheme": "https"}, LIMITS)
    (request,) = taken(secured, data)
    assert request.environ["HTTP_HOST"] == "test"


def test_an_absolute_target_overrides_host() -> None:
    """RFC 9112 section 3.2.2."""
    for value in (b"other", b""):
        data = get(first=b"GET http://test:81/a%20b?c HTTP/1.1", host=b"Host: " + value)
        ((environ, _, line, _, _),) = reading([data]).requests
        assert environ["HTTP_HOST"] == "test:81"
        assert (environ["PATH_INFO"], environ["QUERY_STRING"]) == ("/a b", "c")
        assert environ["RAW_URI"] == "http://test:81/a%20b?c"
        assert line == b"GET http://test:81/a%20b?c"


def test_the_path_of_a_request_for_the_server_as_a_whole_begins_with_a_slash() -> None:
    """RFC 3875 section 4.1.5, RFC 9112 section 3.2.4."""
    ((environ, _, line, _, _),) = reading([target(b"*", b"OPTIONS")]).requests
    assert (environ["PATH_INFO"], environ["RAW_URI"], line) == ("/", "*", b"OPTIONS *")


# RequestLimits.


def tight(data: bytes, size: int) -> Reading:
    return reading(pieces_of(data, size or len(data)), TIGHT)


@pytest.mark.parametrize("size", [0, 1])
def test_trailers_have_the_limits_of_headers(size: int) -> None:
    room = 1000 - len(b"X: \r\n")
    assert len(tight(trailers(b"X: " + b"a" * room), size).requests) == 1
    assert len(tight(trailers(*[b"X: 1"] * 10), size).requests) == 1
    for over in (trailers(b"X: " + b"a" * (room + 1)), trailers(*[b"X: 1"] * 11)):
        found = tight(over, size)
        assert (found.requests, found.status) == ([], 431)
    # Each request has them anew.
    assert len(tight(trailers(*[b"X: 1"] * 10) * 3, size).requests) == 3


@pytest.mark.parametrize("size", [0, 1, 1000])
@pytest.mark.parametrize(
    "framing", [b"1;" + b"a" * 40_000, b"0" * 40_000, b"0\r\nX: " + b"a" * 40_000]
)
def test_framing_without_an_end_is_refused(framing: bytes, size: int) -> None:
    assert tight(chunks(b"1\r\na\r\n" + framing), size).status == 431


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_framing_that_no_body_pays_for_is_bounded(size: int) -> None:
    most = 1000 + 16 * 1024
    # A chunk of one byte pays for 16 bytes, and the last chunk has a line of one byte.
    extension = b"e" * (most // 10)
    count = (most - 1) // (len(extension) + 6 - 16)
    line = b"1;%b\r\nx\r\n" % extension
    assert len(tight(chunks(line * count + END), size).requests) == 1
    assert tight(chunks(line * (count + 1) + END), size).status == 431


@pytest.mark.parametrize("size", [0, 1000])
def test_chunks_of_one_byte_are_legal_in_any_number(size: int) -> None:
    ((environ, body, *_),) = tight(chunks(b"1;a\r\nx\r\n" * 50_000 + END), size).requests
    assert environ["CONTENT_LENGTH"] == "50000"
    assert body == b"x" * 50_000


@pytest.mark.parametrize("size", [0, 1, 1000])
def test_empty_lines_before_a_request_are_bounded(size: int) -> None:
    assert tight(b"\r\n" * 20_000 + NEXT, size).status == 414
    # Each request has its own.
    assert len(tight((b"\r\n" * 3000 + NEXT) * 5, size).requests) == 5


@pytest.mark.parametrize("size", [0, 1])
def test_a_request_at_each_limit_is_served_and_one_over_it_is_not(size: int) -> None:
    limits = LIMITS._replace(request_line=1000, header_count=20, header_size=4000, body=1000)

    def status(data: bytes) -> int:
        found = reading(pieces_of(data, size or len(data)), limits)
        assert len(found.requests) == (0 if found.status else 1)
        return found.status

    path = b"/" + b"a" * (1000 - len(b"GET / HTTP/1.1"))
    assert status(target(path)) == 0
    assert status(target(path + b"a")) == 414
    assert status(target(path).replace(b"GET /", b"GET  /", 1)) == 414
    many = [b"X-%d: 1" % number for number in range(20)]
    assert status(get(*many[:19])) == 0  # Host is one of them
    assert status(get(*many)) == 431
    assert status(get(*[b"X: 1"] * 20)) == 431
    assert status(get(*[b"X_Y: 1"] * 20)) == 431
    room = 4000 - len(b"Host: test\r\nX: \r\n")
    assert status(get(b"X: " + b"a" * room)) == 0
    assert status(get(b"X: " + b"a" * (room + 1))) == 431
    assert status(length(b"1000", b"x" * 1000)) == 0
    assert status(length(b"1001", b"x" * 1001)) == 413
    assert status(chunks(b"3e8\r\n" + b"x" * 1000 + b"\r\n" + END)) == 0
    assert status(chunks(b"3e8\r\n" + b"x" * 1000 + b"\r\n1\r\ny\r\n" + END)) == 413


def test_without_limits_everything_is_taken() -> None:
    long = b"a" * 100_000
    unlimited = test_request_parser.UNLIMITED
    head = get(*[b"X-%d: %b" % (n, long) for n in range(300)], first=b"GET /%b HTTP/1.1" % long)
    assert len(reading([b"\r\n" * 100_000 + head], unlimited).requests) == 1
    assert len(reading(pieces_of(head, 5000), unlimited).requests) == 1
    ((_, body, *_),) = reading([length(b"100000", long)], unlimited).requests
    assert body == long


def test_a_bad_host_is_refused_whatever_was_read_before() -> None:
    for _ in range(3):
        assert reading([host(b"a b")]).status == 400
