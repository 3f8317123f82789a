"""What is a request and what is not, as the reader holds it (tests/unit/http_rules.py)."""

import pytest

from prefork.http.limits import RequestLimits
from prefork.http.reader import RequestReader, State
from tests.unit.http_rules import (
    END,
    NEXT,
    REFUSED,
    SERVED,
    TIGHT,
    chunks,
    get,
    host,
    length,
    target,
    trailers,
)
from tests.unit.reading import BASE, LIMITS, Reading, pieces_of, reading, taken


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", REFUSED)
def test_refused(name: str, size: int) -> None:
    status, data = REFUSED[name]
    stream = data + NEXT
    found = reading(pieces_of(stream, size or len(stream)))
    assert found.requests == []
    assert (found.status, name) == (status, name), found.reason
    assert found.reason


@pytest.mark.parametrize("name", REFUSED)
def test_refused_behind_another_request(name: str) -> None:
    status, data = REFUSED[name]
    found = reading([NEXT + data + NEXT])
    assert len(found.requests) == 1
    assert found.status == status


@pytest.mark.parametrize("name", REFUSED)
def test_why_it_is_refused_does_not_depend_on_the_pieces(name: str) -> None:
    _, data = REFUSED[name]
    whole = reading([data])
    for place in range(1, len(data), max(len(data) // 200, 1)):
        assert reading([data[:place], data[place:]]) == whole, place


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", SERVED)
def test_served(name: str, size: int) -> None:
    count, data = SERVED[name]
    stream = data + NEXT
    reader = RequestReader(BASE, LIMITS)
    requests = [
        each for piece in pieces_of(stream, size or len(stream)) for each in taken(reader, piece)
    ]
    assert reader.error is None
    assert len(requests) == count
    assert reader.surplus is (count == 1)
    assert reader.state is (State.START if count == 2 else State.END)


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


@pytest.mark.parametrize("size", [0, 1])
def test_a_later_minor_version_is_read_as_1_1(size: int) -> None:
    """RFC 9110 section 6.2."""
    data = get(first=b"GET /a%20b HTTP/1.7")
    found = reading(pieces_of(data, size or len(data)))
    assert found == reading([get(first=b"GET /a%20b HTTP/1.1")])
    assert found.requests[0][0]["SERVER_PROTOCOL"] == "HTTP/1.1"
    assert reading([b"GET / HTTP/1.7\r\n\r\n"]).reason == "Host is missing"


def test_the_path_of_a_request_for_the_server_as_a_whole_begins_with_a_slash() -> None:
    """RFC 3875 section 4.1.5, RFC 9112 section 3.2.4."""
    ((environ, _, line, _, _),) = reading([target(b"*", b"OPTIONS")]).requests
    assert (environ["PATH_INFO"], environ["RAW_URI"], line) == ("/", "*", b"OPTIONS *")


def test_trailers_that_are_for_heads_change_nothing() -> None:
    """RFC 9110 section 6.5.1."""
    with_them = chunks(b"0\r\nHost: other\r\nTE: trailers\r\nConnection: close\r\n\r\n")
    assert reading([with_them + NEXT]) == reading([chunks(END) + NEXT])


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
    unlimited = RequestLimits(0, 0, 0, 0, 0)
    head = get(*[b"X-%d: %b" % (n, long) for n in range(300)], first=b"GET /%b HTTP/1.1" % long)
    assert len(reading([b"\r\n" * 100_000 + head], unlimited).requests) == 1
    assert len(reading(pieces_of(head, 5000), unlimited).requests) == 1
    ((_, body, *_),) = reading([length(b"100000", long)], unlimited).requests
    assert body == long


def test_a_bad_host_is_refused_whatever_was_read_before() -> None:
    for _ in range(3):
        assert reading([host(b"a b")]).status == 400


def test_fields_that_a_name_with_an_underscore_would_spoof_are_not_there() -> None:
    lines = get(b"Transfer_Encoding: chunked", b"Content_Length: 5")
    (environ, *_), _ = reading([lines + NEXT]).requests
    assert not [key for key in environ if "ENCODING" in key or "LENGTH" in key]


def test_a_client_of_1_0_that_wants_its_proxy_to_stay_is_still_one_of_1_0() -> None:
    data = get(b"Proxy-Connection: keep-alive", first=b"GET / HTTP/1.0")
    ((environ, *_, keep_alive),) = reading([data]).requests
    assert environ["SERVER_PROTOCOL"] == "HTTP/1.0"
    assert not keep_alive
