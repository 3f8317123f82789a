"""A request that comes again, and an answer that begins as the last one did, or does not."""

import socket
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from typing import Any

import pytest

from prefork.apps.wsgi import Application, StartResponse
from prefork.http import response_head
from prefork.http.request import Environ, Request
from prefork.http.response_sink import CallOutcome
from prefork.http.whole_heads import WholeHeads
from prefork.worker.protocol.http_connection import HttpConnection
from tests.support.client_limits import BASE, START, client_limits
from tests.support.wsgi_calls import RECORD, PlainCaller

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
TEXT = b"hello world\n"
PLAIN = [("Content-Type", "text/plain")]
SIZED = [*PLAIN, ("Content-Length", str(len(TEXT)))]


def answers(
    result: Any,
    status: Any = "200 OK",
    headers: Any = PLAIN,
    *,
    written: bytes = b"",
    started: bool = True,
) -> Application:
    def app(_environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if started:
            write = start_response(status, list(headers))
            if written:
                write(written)
        body: Iterable[bytes] = result() if callable(result) else result
        return body

    return app


class TextOnce(list[bytes]):
    """Has another item than the list it is."""

    def __iter__(self) -> Iterator[bytes]:
        return iter([b"other words\n"])


WAYS: dict[str, Application] = {
    "plain": answers([TEXT]),
    "with its length": answers([TEXT], headers=SIZED),
    "another text": answers([b"HELLO WORLD\n"]),
    "longer": answers([TEXT * 2]),
    "longer than its length": answers([TEXT * 2], headers=SIZED),
    "shorter than its length": answers([TEXT[1:]], headers=SIZED),
    "large": answers([b"x" * 20_000]),
    "empty": answers([b""]),
    "no item": answers([]),
    "two items": answers([TEXT, b"and more"]),
    "two items in the length of one": answers([TEXT[:5], TEXT[5:]]),
    "two items of that length": answers([TEXT, b"and more"], headers=SIZED),
    "a tuple": answers((TEXT,)),
    "an iterator": answers(lambda: iter([TEXT])),
    "its own list": answers(TextOnce([TEXT])),
    "a bytearray": answers([bytearray(TEXT)]),
    "a str": answers([TEXT.decode()]),
    "another status": answers([TEXT], "404 Not Found"),
    "no content": answers([b""], "204 No Content"),
    "a wrong status": answers([TEXT], "no status"),
    "another header": answers([TEXT], headers=[*PLAIN, ("X-A", "1")]),
    "no header": answers([TEXT], headers=[]),
    "its connection closed": answers([TEXT], headers=[*PLAIN, ("Connection", "close")]),
    "written before": answers([TEXT], written=b"first\n"),
    "all written": answers([b""], written=TEXT),
    "never started": answers([TEXT], started=False),
}


class Client:
    """A connection whose requests come again, and the other end of its socket."""

    def __init__(self, heads: WholeHeads | None) -> None:
        ours, self._sock = socket.socketpair()
        self._sock.setblocking(False)
        self.connection = HttpConnection(ours, BASE, ("", ""), client_limits(), START)
        self.connection.reader.heads = heads
        self.failures: list[str] = []

    def asks(self, app: Application, id_line: bytes = b"") -> bytes:
        """What comes back, up to the end of a text that is there at once."""
        self._sock.sendall(GET)
        request = self.connection.receive(START)
        assert request is not None
        request.id_line = id_line
        self.repeated = request.repeated is not None
        outcomes: list[CallOutcome] = []

        def call(*given: Any) -> CallOutcome:
            outcomes.append(PlainCaller(app, self._failed).call(*given))
            return outcomes[0]

        self.connection.proceed(call, RECORD, START, request=request)
        data = bytearray()
        while True:
            try:
                data += self._sock.recv(65536)
            except BlockingIOError:
                break
        assert outcomes[0].sent <= len(data)
        lines = bytes(data).split(b"\r\n")
        self.dates = [line for line in lines if line.startswith(b"Date: ")]
        return b"\r\n".join(line for line in lines if line not in self.dates)

    def _failed(self, _request: Request, problem: BaseException) -> None:
        self.failures.append(f"{type(problem).__name__}: {problem}")

    def close(self) -> None:
        self.connection.close()
        self._sock.close()


Clients = Callable[[WholeHeads | None], Client]


@pytest.fixture
def clients() -> Iterator[Clients]:
    made: list[Client] = []

    def make(recall: WholeHeads | None) -> Client:
        made.append(Client(recall))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def recall(clients: Clients) -> WholeHeads:
    """It knows the request."""
    recall = WholeHeads()
    client = clients(recall)
    for _ in range(4):
        client.asks(WAYS["plain"])
    assert client.repeated
    return recall


@pytest.mark.parametrize("before", WAYS)
def test_an_answer_is_the_same_whatever_the_last_one_was(
    clients: Clients, recall: WholeHeads, before: str
) -> None:
    for way, closing in product(WAYS, (False, True)):
        for _ in range(3):
            clients(recall).asks(WAYS[before])
        again, fresh = clients(recall), clients(None)
        for client in (again, fresh):
            client.connection.closing = closing
        assert again.asks(WAYS[way]) == fresh.asks(WAYS[way])
        assert (again.repeated, fresh.repeated) == (True, False)
        assert again.failures == fresh.failures
        assert again.connection.reader.last == fresh.connection.reader.last
        assert again.connection.response_size == fresh.connection.response_size


def test_each_answer_has_the_id_of_its_request(clients: Clients, recall: WholeHeads) -> None:
    client = clients(recall)
    for number in ("1", "2", "", "3"):
        line = f"X-Request-ID: {number}\r\n".encode() if number else b""
        data = client.asks(WAYS["plain"], line)
        assert data.count(b"X-Request-ID: ") == bool(number)
        assert line in data


def test_each_answer_has_the_date_of_its_second(
    clients: Clients, recall: WholeHeads, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [0.0]
    monkeypatch.setattr(response_head, "monotonic", lambda: START * 1000 + clock[0])
    monkeypatch.setattr(response_head, "time", lambda: clock[0])
    monkeypatch.setattr(response_head, "_until", 0.0)
    client = clients(recall)
    for clock[0], second in (
        (0.0, 0),
        (0.9, 0),
        (0.99, 0),
        (0.999, 0),
        (1.0, 1),
        (1.5, 1),
        (7.0, 7),
    ):
        client.asks(WAYS["plain"])
        assert client.dates == [b"Date: Thu, 01 Jan 1970 00:00:%02d GMT" % second]
