"""The metrics' server: pages in slices, and clients that cost little."""

import selectors
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import pytest

from prefork import address, logs
from prefork.listeners import Listener
from prefork.master.observe import metrics_server
from prefork.master.observe.metrics_server import MAX_CLIENTS, MetricsServer, Page


class Place:
    """A server with an invented page, and the loop around it."""

    def __init__(self) -> None:
        self.selector = selectors.DefaultSelector()
        self.sock = socket.create_server(("127.0.0.1", 0))
        self.slices = 0
        self.asked: list[str] = []
        self.server = MetricsServer(self.selector, self._page)
        self.server.follow(Listener(address.parse("127.0.0.1:0"), self.sock))

    def _page(self, accept: str) -> Page:
        self.asked.append(accept)
        for _ in range(3):
            self.slices += 1
            yield
        if accept == "fail":
            raise RuntimeError("not today")
        return "text/plain", b"page\n"

    def connect(self, data: bytes = b"") -> socket.socket:
        client = socket.create_connection(self.sock.getsockname())
        client.sendall(data)
        return client

    def turn(self) -> None:
        """One round of the loop."""
        for key, mask in self.selector.select(0.05):
            key.data(mask)
        self.server.run(monotonic())

    def until_closed(self, client: socket.socket) -> bytes:
        client.setblocking(False)
        got = b""
        while True:
            self.turn()
            try:
                data = client.recv(65536)
            except BlockingIOError:
                continue
            except ConnectionResetError:  # it was closed with something unread
                return got
            if not data:
                return got
            got += data


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Place]:
    monkeypatch.setattr(logs, "event", lambda *args, **fields: None)
    place = Place()
    yield place
    place.server.close()
    place.sock.close()
    place.selector.close()


REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\naccept: some/type\r\n\r\n"


def test_a_page_is_made_in_slices_between_which_the_loop_goes_on(place: Place) -> None:
    with place.connect(REQUEST) as client:
        while not place.slices:
            place.turn()
        assert place.slices == 1
        assert place.server.due == 0.0
        place.turn()
        assert place.slices == 2
        answer = place.until_closed(client)
    assert answer.startswith(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n")
    assert answer.endswith(b"\r\n\r\npage\n")
    assert place.asked == ["some/type"]
    assert place.server.due is None


def test_a_page_that_fails_ends_with_500_and_a_line_in_the_log(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[tuple[Any, ...]] = []
    monkeypatch.setattr(logs, "event", lambda *args, **fields: told.append(args))
    with place.connect(REQUEST.replace(b"some/type", b"fail")) as client:
        assert place.until_closed(client).startswith(b"HTTP/1.1 500 ")
    assert told == [("error", "metrics failed")]


def test_the_client_that_waits_longest_makes_room(place: Place) -> None:
    first, *others = clients = [place.connect() for _ in range(MAX_CLIENTS + 1)]
    assert place.until_closed(first) == b""
    others[-1].sendall(REQUEST)
    assert place.until_closed(others[-1]).startswith(b"HTTP/1.1 200 ")
    for client in clients:
        client.close()


def test_one_that_takes_too_long_is_dropped(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics_server, "_TIMEOUT", 0.0)
    with place.connect(b"GET /met") as client:
        assert place.until_closed(client) == b""
    assert place.server.descriptors() == []


def test_no_client_is_accepted_without_a_selector(place: Place) -> None:
    place.server.follow(None)
    with place.connect(REQUEST) as client:
        place.turn()
        client.setblocking(False)
        with pytest.raises(BlockingIOError):
            client.recv(1)
    assert place.server.due is None
