"""The head of a response: what an application says, and what the server adds, drops and refuses."""

from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import pytest

from prefork.apps.wsgi import WsgiResponse
from prefork.http import response_head
from prefork.http.composed_head import ResponseFraming, ResponseHead
from prefork.http.request import Request
from prefork.http.response_head import JOINED, compose, error
from prefork.http.response_sink import ResponseSink

Pairs = list[tuple[str, str]]


def composed(
    headers: Pairs | None = None,
    status: str = "200 OK",
    *,
    method: str = "GET",
    http11: bool = True,
    keep_alive: bool = True,
    closing: bool = False,
    known: int = -1,
    id_line: bytes = b"",
) -> ResponseHead:
    request = Request({}, f"{method} /".encode(), http11, keep_alive, None)
    request.id_line = id_line
    return compose(status, headers or [], request, closing, known)


def lines(head: ResponseHead) -> list[str]:
    assert head.data.endswith(b"\r\n\r\n")
    return head.data.decode("latin-1")[:-4].split("\r\n")


def told(head: ResponseHead) -> tuple[object, ...]:
    return head.code, head.framing, head.length, head.keep_alive


def values(head: ResponseHead, name: str) -> list[str]:
    pairs = [line.partition(": ")[::2] for line in lines(head)[1:]]
    return [value for key, value in pairs if key.lower() == name.lower()]


def test_what_the_application_says_is_said_in_its_order() -> None:
    head = composed([("Set-Cookie", "a=1"), ("X-B", "caf\xe9"), ("Set-Cookie", "b=2")], known=0)
    assert lines(head)[:4] == [
        "HTTP/1.1 200 OK",
        "Set-Cookie: a=1",
        "X-B: caf\xe9",
        "Set-Cookie: b=2",
    ]


def test_date_and_server_are_added_once() -> None:
    head = composed(known=0)
    (date,) = values(head, "Date")
    assert parsedate_to_datetime(date).strftime("%a, %d %b %Y %H:%M:%S GMT") == date
    assert values(head, "Server") == ["prefork"]
    head = composed([("date", "Mon, 01 Jan 2001 00:00:00 GMT"), ("SERVER", "mine")], known=0)
    assert values(head, "Date") == ["Mon, 01 Jan 2001 00:00:00 GMT"]
    assert values(head, "Server") == ["mine"]


def test_the_date_follows_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_until", "_date", "_stock", "_recent"):  # put back: its year is not ours
        monkeypatch.setattr(response_head, name, getattr(response_head, name))
    monkeypatch.setattr(response_head, "_until", 0.0)
    for since, now, text in [
        (0.0, 951_827_696.5, "Tue, 29 Feb 2000 12:34:56 GMT"),
        (0.4, 951_827_696.9, "Tue, 29 Feb 2000 12:34:56 GMT"),
        (0.6, 951_827_697.1, "Tue, 29 Feb 2000 12:34:57 GMT"),
        (1.5, 951_827_698.0, "Tue, 29 Feb 2000 12:34:58 GMT"),
        (2.4, 1.5, "Tue, 29 Feb 2000 12:34:58 GMT"),  # the clock was set: it shows soon enough
        (2.6, 1.7, "Thu, 01 Jan 1970 00:00:01 GMT"),
    ]:
        monkeypatch.setattr(response_head, "time", lambda now=now: now)
        monkeypatch.setattr(response_head, "monotonic", lambda since=since: 1e9 + since)
        for _ in range(3):
            assert values(composed(known=0), "Date") == [text]
        assert text.encode() in error(404, "no such page")


@pytest.mark.parametrize(
    ("asked", "framing", "length", "coding", "kept"),
    [
        ({"known": 5}, ResponseFraming.LENGTH, ["5"], [], True),
        ({"known": 0}, ResponseFraming.LENGTH, ["0"], [], True),
        ({}, ResponseFraming.CHUNKED, [], ["chunked"], True),
        ({"http11": False}, ResponseFraming.CLOSE, [], [], False),
        ({"http11": False, "known": 5}, ResponseFraming.LENGTH, ["5"], [], True),
        ({"headers": [("Content-Length", "7")]}, ResponseFraming.LENGTH, ["7"], [], True),
        (
            {"headers": [("content-length", "7")], "known": 5},
            ResponseFraming.LENGTH,
            ["7"],
            [],
            True,
        ),
        ({"headers": [("Content-Length", "7")] * 2}, ResponseFraming.LENGTH, ["7"], [], True),
        (
            {"headers": [("Content-Length", "7")], "http11": False},
            ResponseFraming.LENGTH,
            ["7"],
            [],
            True,
        ),
        (
            {"headers": [("Transfer-Encoding", "chunked")], "known": 5},
            ResponseFraming.LENGTH,
            ["5"],
            [],
            True,
        ),
        ({"method": "HEAD"}, ResponseFraming.NONE, [], [], True),
        ({"method": "HEAD", "known": 0}, ResponseFraming.NONE, [], [], True),
        ({"method": "HEAD", "known": 5}, ResponseFraming.NONE, ["5"], [], True),
        (
            {"method": "HEAD", "headers": [("Content-Length", "7")]},
            ResponseFraming.NONE,
            ["7"],
            [],
            True,
        ),
        ({"status": "204 No Content", "known": 0}, ResponseFraming.NONE, [], [], True),
        (
            {"status": "204 X", "headers": [("Content-Length", "7")]},
            ResponseFraming.NONE,
            [],
            [],
            True,
        ),
        ({"status": "205 Reset Content", "known": 5}, ResponseFraming.NONE, ["0"], [], True),
        (
            {"status": "205 X", "headers": [("Content-Length", "7")]},
            ResponseFraming.NONE,
            ["0"],
            [],
            True,
        ),
        ({"status": "304 Not Modified", "known": 0}, ResponseFraming.NONE, [], [], True),
        (
            {"status": "304 X", "headers": [("Content-Length", "7")]},
            ResponseFraming.NONE,
            ["7"],
            [],
            True,
        ),
    ],
)
def test_how_the_end_of_the_body_is_told(
    asked: dict[str, Any],
    framing: ResponseFraming,
    length: list[str],
    coding: list[str],
    kept: bool,
) -> None:
    head = composed(**asked)
    assert head.framing is framing
    assert values(head, "Content-Length") == length
    assert values(head, "Transfer-Encoding") == coding
    assert head.keep_alive is kept


@pytest.mark.parametrize(
    ("asked", "connection"),
    [
        ({}, []),
        ({"keep_alive": False}, ["close"]),
        ({"http11": False}, ["keep-alive"]),
        ({"http11": False, "keep_alive": False}, ["close"]),
        ({"headers": [("Connection", "close")]}, ["close"]),
        ({"headers": [("connection", "X-Mine, Close")]}, ["close"]),
        ({"headers": [("Connection", "keep-alive")], "keep_alive": False}, ["close"]),
        ({"headers": [("Connection", "upgrade"), ("Upgrade", "websocket")]}, []),
    ],
)
def test_the_connection_is_the_servers_to_speak_of(
    asked: dict[str, Any], connection: list[str]
) -> None:
    head = composed(known=0, **asked)
    assert values(head, "Connection") == connection
    assert head.keep_alive is (connection != ["close"])


@pytest.mark.parametrize(
    "name", ["Keep-Alive", "Trailer", "Transfer-Encoding", "Upgrade", "TE", "Proxy-Authenticate"]
)
def test_hop_by_hop_headers_are_dropped(name: str) -> None:
    assert values(composed([(name, "x")], known=0), name) == []


@pytest.mark.parametrize(
    "status", ["", "OK", "20 OK", "2000 OK", "100 Continue", "199 X", "200OK", "200 O\nK", "200 ☃"]
)
def test_a_status_that_is_none_is_refused(status: str) -> None:
    with pytest.raises(ValueError, match="status"):
        composed(status=status)


@pytest.mark.parametrize("status", ["200", "200 ", "299 Any reason at all", "404 Pas trouv\xe9"])
def test_any_status_from_200_and_any_reason_will_do(status: str) -> None:
    head = composed(status=status, known=0)
    assert lines(head)[0].startswith(f"HTTP/1.1 {status[:3]} ")
    assert head.code == int(status[:3])


@pytest.mark.parametrize(
    "pair",
    [
        ("", "x"),
        ("A b", "x"),
        ("A:", "x"),
        ("A\r\nB", "x"),
        ("\xe9", "x"),
        ("☃", "x"),
        ("A", "x\r\nB: injected"),
        ("A", "x\ny"),
        ("A", "x\0"),
        ("A", "\x7f"),
        ("A", "☃"),
        ("Content-Length", "-1"),
        ("Content-Length", "1 2"),
        ("Content-Length", "١"),
        ("Content-Length", "9" * 19),
    ],
)
def test_a_header_that_may_not_be_sent_is_refused(pair: tuple[str, str]) -> None:
    for _ in range(2):  # nothing of it is kept
        with pytest.raises(ValueError, match=r"header|Content-Length"):
            composed([pair])


def test_two_lengths_that_differ_are_refused() -> None:
    with pytest.raises(ValueError, match="two different"):
        composed([("Content-Length", "1"), ("Content-Length", "2")])


@pytest.mark.parametrize("pair", [(b"A", "x"), ("A", b"x"), ("A", 1), ("A", None)])
def test_what_is_no_text_is_refused(pair: Any) -> None:
    with pytest.raises(TypeError, match=r"\bstr\b"):
        composed([pair])
    with pytest.raises(TypeError, match=r"\bstr\b"):
        composed(status=b"200 OK")  # type: ignore[arg-type]


def test_applications_cannot_fill_the_memory_with_headers() -> None:
    for number in range(3000):
        assert values(composed([("X-N", str(number))], known=0), "X-N") == [str(number)]
        composed(status=f"200 {number}", known=0)
    assert len(response_head._lines) <= response_head._KEPT
    assert len(response_head._statuses) <= response_head._KEPT
    assert len(response_head._names) <= response_head._KEPT
    assert len(response_head._recent) <= response_head._RECENT


def test_what_is_common_is_kept_again_when_there_was_no_room() -> None:
    for number in range(2 * response_head._KEPT):
        composed([("X-N", str(number))], known=0)
        composed([(f"X-{number}", "x")], f"200 {number}", known=0)
    composed([("X-Common", "1")], "207 Common", known=0)
    assert ("X-Common", "1") in response_head._lines
    assert "X-Common" in response_head._names
    assert "207 Common" in response_head._statuses


def test_no_cookie_is_kept_in_memory() -> None:
    for name in ("Set-Cookie", "set-cookie"):
        head = composed([(name, "session=of-one-user")], known=0)
        assert values(head, name) == ["session=of-one-user"]
    assert not any("of-one-user" in value for _, value in response_head._lines)


@pytest.mark.parametrize("value", ["x\r\nB: injected", "x\ny", "x\0", "☃"])
@pytest.mark.parametrize("name", ["Set-Cookie", "Date", "Server", "Connection", "Upgrade", "X-A"])
def test_each_new_value_is_checked_whatever_its_header_is(name: str, value: str) -> None:
    composed([(name, "x")], known=0)  # the name is known
    with pytest.raises(ValueError, match="control or non-latin-1"):
        composed([(name, value)], known=0)
    with pytest.raises(ValueError, match="control or non-latin-1"):
        composed([(name, "x"), (name, value)], known=0)


def test_a_head_is_that_of_its_response_whatever_the_last_one_was() -> None:
    pairs = [("Content-Type", "text/plain"), ("X-A", "1")]
    for keep_alive in (True, False):
        for http11 in (True, False):
            for method in ("GET", "HEAD"):
                for known in (-1, 0, 12):
                    how: Any = {"http11": http11, "keep_alive": keep_alive, "method": method}
                    head = composed(list(pairs), known=known, **how)
                    fresh = response_head._composed(
                        "200 OK", pairs, http11, method == "HEAD", keep_alive, known
                    )
                    assert told(head) == told(fresh)
                    assert values(head, "X-A") == ["1"]
    # It is composed anew where the application has changed its own list since.
    pairs.append(("X-B", "2"))
    assert values(composed(pairs, known=12), "X-B") == ["2"]


def test_a_repeated_response_is_found_by_all_that_it_depends_on() -> None:
    ways: list[dict[str, Any]] = [
        {"status": status, "headers": headers, "closing": closing, "known": known}
        for status in ("200 OK", "404 Not Found")
        for headers in ([], [("X-A", "1")], [("X-A", "2")], [("X-A", "1"), ("X-B", "1")])
        for closing in (False, True)
        for known in (-1, 0, 12)
    ]
    fresh = [composed(**way) for way in ways]
    for before in ways:
        for way, as_ever in zip(ways, fresh, strict=True):
            for each in (before, way):
                head = composed(**each)
            assert told(head) == told(as_ever)
            said, said_ever = (
                [line for line in lines(one) if not line.startswith("Date: ")]
                for one in (head, as_ever)
            )
            assert said == said_ever
    # The list may be the application's own, which it changes.
    pairs = [("X-A", "1")]
    for _ in range(3):
        composed(pairs, known=12)
    pairs.append(("X-B", "2"))
    assert values(composed(pairs, known=12), "X-B") == ["2"]


class Sink(ResponseSink):
    """Notes what is sent in one call."""

    def __init__(self) -> None:
        self.closing = self.broken = False
        self.sent: list[bytes] = []

    def send(self, data: bytes) -> None:
        self.sent.append(data)


@pytest.mark.parametrize(("size", "calls"), [(0, 1), (JOINED, 1), (JOINED + 1, 2)])
def test_a_long_body_is_not_copied_behind_its_head(size: int, calls: int) -> None:
    """Also of a response that is repeated."""
    for _ in range(3):
        sink = Sink()
        response = WsgiResponse(Request({}, b"GET /", True, True, None), sink)
        response.start("200 OK", [])
        response.take([bytes(size)])
        assert len(sink.sent) == calls
        assert b"".join(sink.sent).endswith(b"\r\n\r\n" + bytes(size))


def test_an_id_is_of_one_answer_alone() -> None:
    for number in ("", "1", "2", "", "3"):
        line = f"X-Request-ID: {number}\r\n".encode() if number else b""
        head = composed(known=0, id_line=line)
        assert values(head, "X-Request-ID") == [number] * bool(number)


def test_headers_that_can_be_looked_at_once_only_are_all_sent() -> None:
    for _ in range(2):
        pairs: Any = iter([("X-A", "1"), ("X-B", "2")])
        head = composed(pairs, known=12)
        assert (values(head, "X-A"), values(head, "X-B")) == (["1"], ["2"])


def test_an_error_is_plain_text_that_ends_the_connection() -> None:
    head, _, body = error(413, "too much").partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 413 ")
    assert b"Connection: close" in head
    assert b"Content-Type: text/plain; charset=utf-8" in head
    assert b"Content-Length: %d\r\n" % len(body) in head
    assert body.startswith(b"413 ")
    assert body.endswith(b": too much\n")
    assert error(500, "x", method="HEAD").endswith(b"\r\n\r\n")


@pytest.fixture
def named() -> Iterator[None]:
    """Behind the test the server names itself, as at first."""
    yield
    response_head.name_server(True)


@pytest.mark.usefixtures("named")
def test_the_server_need_not_be_named() -> None:
    assert values(composed(known=0), "Server") == ["prefork"]
    response_head.name_server(False)
    assert values(composed(known=0), "Server") == []
    assert values(composed(known=0, headers=[("Server", "mine")]), "Server") == ["mine"]
    response_head.name_server(True)
    assert values(composed(known=0), "Server") == ["prefork"]
