"""What is kept of heads: when, how much, and that nobody gets what is another's."""

from itertools import count

import httptools
import pytest

from prefork.http.head_cache import HeadCache
from prefork.http.request import Request
from prefork.http.request_parser import RequestLimits, RequestParser

LIMITS = RequestLimits(
    request_line=200, header_count=20, header_size=4000, body=1000, body_memory=100
)


BASE = {"REMOTE_ADDR": "", "REMOTE_PORT": "", "x": "y"}


def connected(recall: HeadCache, address: str = "192.0.2.1") -> RequestParser:
    connection = RequestParser(BASE, LIMITS, (address, "1"))
    connection.recall = recall
    return connection


def asked(connection: RequestParser, head: bytes) -> Request:
    connection.feed(head)
    assert connection.error is None
    return connection.requests.pop()


def head(*fields: bytes, line: bytes = b"GET / HTTP/1.1") -> bytes:
    return b"\r\n".join((line, b"Host: test", *fields, b"", b""))


def test_a_section_is_kept_when_it_comes_the_second_time() -> None:
    recall = HeadCache()
    client = connected(recall)
    asked(client, head(b"X-A: 1"))
    assert not recall.sections
    asked(client, head(b"X-A: 1", line=b"GET /other HTTP/1.1"))
    assert len(recall.sections) == 1
    request = asked(client, head(b"X-A: 1", line=b"HEAD /third?a=b HTTP/1.1"))
    assert request.line == b"HEAD /third?a=b"
    assert request.keep_alive
    environ = request.environ
    assert environ.pop("wsgi.input").read() == b""
    of_its_own = {"REQUEST_METHOD": "HEAD", "PATH_INFO": "/third", "QUERY_STRING": "a=b"}
    assert environ == {
        **BASE,
        "REMOTE_ADDR": "192.0.2.1",
        "REMOTE_PORT": "1",
        **of_its_own,
        "RAW_URI": "/third?a=b",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "HTTP_HOST": "test",
        "HTTP_X_A": "1",
    }


def test_a_whole_head_is_kept_when_it_comes_the_fourth_time() -> None:
    recall = HeadCache()
    clients = [connected(recall, address=f"192.0.2.{number}") for number in range(5)]
    for known, client in enumerate(clients):
        assert (head() in recall.heads) is (known > 3)
        request = asked(client, head())
        assert request.line == b"GET /"
        environ = request.environ
        assert environ.pop("wsgi.input").read() == b""
        assert environ == {
            **BASE,
            "REMOTE_ADDR": client.peer[0],
            "REMOTE_PORT": "1",
            "REQUEST_METHOD": "GET",
            "PATH_INFO": "/",
            "QUERY_STRING": "",
            "RAW_URI": "/",
            "SERVER_PROTOCOL": "HTTP/1.1",
            "HTTP_HOST": "test",
        }


def test_a_parser_is_made_for_what_has_to_be_read_only(monkeypatch: pytest.MonkeyPatch) -> None:
    recall = HeadCache()
    for _ in range(2):
        asked(connected(recall), head())
    third = connected(recall)
    made: list[object] = []

    def parser(owner: object) -> httptools.HttpRequestParser:
        made.append(owner)
        return make(owner)

    make = httptools.HttpRequestParser
    monkeypatch.setattr(httptools, "HttpRequestParser", parser)
    asked(third, head())
    assert third not in made
    asked(third, head(b"X-B: 1"))
    assert third in made


def test_what_an_application_does_to_its_environ_reaches_no_other_request() -> None:
    recall = HeadCache()
    clients = [connected(recall, address) for address in ("192.0.2.1", "192.0.2.2", "192.0.2.3")]
    for client in clients * 3:
        request = asked(client, head(b"X-A: 1"))
        assert request.environ["HTTP_X_A"] == "1"
        assert request.environ["REMOTE_ADDR"] == client.peer[0]
        assert "mine" not in request.environ
        request.environ.update({"HTTP_X_A": "2", "x": "z", "mine": 1})
        request.environ["wsgi.input"].write(b"mine")


def test_the_end_that_a_client_asks_for_is_kept_with_its_section() -> None:
    recall = HeadCache()
    for _ in range(3):
        client = connected(recall)
        assert not asked(client, head(b"Connection: close")).keep_alive
        assert client.last
        client.feed(head())
        assert client.surplus
        assert not client.requests
    assert recall.sections


def test_the_beginning_of_a_kept_head_is_a_beginning() -> None:
    recall = HeadCache()
    whole = head(b"X-A: 1")
    for at in range(1, len(whole)):
        client = connected(recall)
        for _ in range(2):
            asked(client, whole)
        client.feed(whole[:at])
        assert not client.requests
        assert not client.idle
        assert asked(client, whole[at:]).environ["HTTP_X_A"] == "1"


def test_a_request_behind_another_is_not_taken_for_a_part_of_its_head() -> None:
    recall = HeadCache()
    client = connected(recall)
    for _ in range(3):
        asked(client, head())
    client.feed(head() + head(line=b"GET /b HTTP/1.1") + head(line=b"GET /c HTTP/1.1"))
    assert [request.line for request in client.requests] == [b"GET /", b"GET /b", b"GET /c"]


def test_a_line_that_is_too_long_is_refused_before_a_kept_section() -> None:
    recall = HeadCache()
    for _ in range(2):
        asked(connected(recall), head())
    client = connected(recall)
    client.feed(head(line=b"GET /" + b"a" * 200 + b" HTTP/1.1"))
    assert client.error is not None
    assert client.error.status == 414


def test_no_client_fills_the_memory() -> None:
    recall = HeadCache()
    client = connected(recall)
    numbers = count()
    for _ in range(1200):  # each sent twice, to be kept
        recall.succeed()  # else most would not be looked for
        field = b"X-A: %d" % next(numbers)
        for _ in range(2):
            asked(client, head(field))
        line = b"GET /%d HTTP/1.1" % next(numbers)
        for _ in range(2):
            asked(client, head(line=line))
    assert len(recall.sections) <= 128
    assert 0 < len(recall.heads) <= 256
    assert len(recall.lines) <= 1024
    # Of those that came once, which are told by their hashes, the first is forgotten, too.
    first = head(b"X-A: 0")
    section = first[first.find(b"\r\n") :]
    for kept in (False, False, True):
        assert (section in recall.sections) is kept
        recall.succeed()
        asked(client, first)
    large = head(b"X-A: " + b"a" * 3000)
    for _ in range(3):
        asked(client, large)
    assert not any(len(section) > 2048 for section in recall.sections)


class NotedHeads(HeadCache):
    """Counts the heads that were looked for in vain, and noted for the next time."""

    def __init__(self) -> None:
        super().__init__()
        self.notes = 0

    def note(self, data: bytes, section: bytes, request: Request) -> None:
        self.notes += 1
        super().note(data, section, request)


def test_the_search_is_given_up_where_it_finds_nothing_and_taken_up_again() -> None:
    recall = NotedHeads()
    client = connected(recall)
    for number in range(500):
        asked(client, head(b"X-A: %d" % number))
    assert recall.notes < 100
    for _ in range(100):
        asked(client, head(b"X-A: a"))
    assert recall.sections
    for _ in range(10):
        asked(connected(recall), head(b"X-A: a"))
    before = recall.notes
    for number in range(20):
        asked(client, head(b"X-B: %d" % number))
    assert recall.notes == before + 20


def test_headers_that_never_come_again_are_not_kept() -> None:
    recall = HeadCache()
    client = connected(recall)
    for number in range(500):
        asked(client, head(b"X-A: %d" % number))
    assert not recall.sections
