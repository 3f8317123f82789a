"""The time limits of one HTTP client, with an invented clock and a socket that is no network's."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from prefork.apps.wsgi import StartResponse
from prefork.http.disk_budget import DiskBudget
from prefork.http.gathered_body import GatheredBody
from prefork.http.memory_budget import MemoryBudget
from prefork.http.request import Environ, Request
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.transport.client_limits import ClientLimits
from tests.support.client_limits import BASE, START, client_limits
from tests.support.waiting import PATIENCE
from tests.support.wsgi_calls import RECORD, PlainCaller

HEAD = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 1000\r\n\r\n"


def nothing(environ: Environ, start_response: StartResponse) -> list[bytes]:
    start_response("204 No Content", [])
    return []


def failed(request: Request, problem: BaseException) -> None:
    raise problem


class Client:
    """A connection, and the other end of its socket."""

    def __init__(self, limits: ClientLimits) -> None:
        ours, self.sock = socket.socketpair()
        self.connection = HttpConnection(ours, BASE, ("", ""), limits, START)
        self.request: Request | None = None

    def sends(self, data: bytes, at: float) -> float:
        """Seconds after START at which it will be given up."""
        self.sock.sendall(data)
        self.request = self.connection.receive(START + at)
        if self.request is None:
            self.connection.advance(START + at)
        return self.connection.deadline - START

    def answered(self) -> bool:
        """Answers the next request; whether the connection stays."""
        request, self.request = self.request or self.connection.take(START), None
        assert request is not None
        call = PlainCaller(nothing, failed).call
        self.connection.proceed(call, RECORD, START, request=request)
        return self.connection.state is not ConnectionState.CLOSED


@pytest.fixture
def clients() -> Iterator[list[Client]]:
    made: list[Client] = []
    yield made
    for client in made:
        client.connection.close()
        client.sock.close()


def client(clients: list[Client], **changed: Any) -> Client:
    clients.append(Client(client_limits(**changed)))
    return clients[-1]


def test_a_head_has_its_time_from_its_first_byte_on(clients: list[Client]) -> None:
    slow = client(clients)
    assert slow.sends(HEAD[:1], 3) == 13
    assert slow.sends(HEAD[1:5], 8) == 13


def test_a_body_has_its_time_from_its_last_byte_on_where_no_rate_is_demanded(
    clients: list[Client],
) -> None:
    slow = client(clients)
    assert slow.sends(HEAD, 0) == 30
    assert slow.sends(b"x", 29) == 59
    assert slow.sends(b"x", 58) == 88


def test_a_body_has_to_come_at_some_rate(clients: list[Client]) -> None:
    slow = client(clients, min_body_rate=10)
    assert slow.sends(HEAD, 0) == 30
    # 30 seconds, and one more for each ten bytes: a byte now and then does not help for ever.
    assert slow.sends(b"x" * 10, 20) == 31
    assert slow.sends(b"x" * 20, 30) == 33
    # What comes fast enough has the time between two pieces only.
    assert slow.sends(b"x" * 500, 32) == 62


def test_a_rate_is_looked_at_where_silence_has_no_limit(clients: list[Client]) -> None:
    assert client(clients, min_body_rate=10, body_timeout=0).sends(HEAD + b"x" * 20, 0) == 32
    assert client(clients, body_timeout=0).sends(HEAD, 0) == -START  # never


def test_each_body_has_its_own_rate(clients: list[Client]) -> None:
    slow = client(clients, min_body_rate=10)
    slow.sends(HEAD + b"x" * 1000, 0)
    assert slow.answered()
    assert slow.sends(HEAD + b"x" * 10, 100) == 130
    assert slow.sends(b"x", 120) == pytest.approx(131.1)


def test_a_connection_answers_so_many_requests_and_no_more(clients: list[Client]) -> None:
    request = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
    one = client(clients, keepalive_requests=3)
    stays = []
    for _ in range(3):
        one.sends(request, 0)
        stays.append(one.answered())
    assert stays == [True, True, False]
    several = client(clients)
    several.sends(request * 50, 0)
    assert all(several.answered() for _ in range(50))


def test_a_reader_has_to_take_at_some_rate(
    clients: list[Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = [START]
    monkeypatch.setattr("prefork.worker.transport.output_buffer.monotonic", lambda: clock[0])
    data = bytes(1 << 20)

    def due(slow: Client, at: float) -> float:
        clock[0] = START + at
        slow.connection.flush()
        assert slow.connection.advance(clock[0]) is ConnectionState.WRITE
        return slow.connection.deadline - START

    def take_some(slow: Client) -> int:
        unsent = slow.connection.unsent
        assert unsent is not None
        before = unsent.memory
        while unsent.memory == before:
            slow.sock.recv(1 << 16)
            slow.connection.flush()
        return before - unsent.memory

    idle, slow = client(clients), client(clients, min_write_rate=100)
    for one in (idle, slow):
        one.connection.send(data)
        assert due(one, 0) == 20
    # Without a rate, any byte that it takes gains the whole time.
    assert due(idle, 18) == 20
    take_some(idle)
    assert due(idle, 19) == 38
    assert due(slow, 19) == 20
    # One more second for each hundred bytes that it has taken.
    taken = take_some(slow)
    assert due(slow, 19.5) == pytest.approx(min(20 + taken / 100, 39))
    # The next time it lags behind counts from there.
    slow.sock.settimeout(PATIENCE)
    left = len(data)
    while slow.connection.lagging:
        left -= len(slow.sock.recv(1 << 16))
        slow.connection.flush()
    clock[0] = START + 1000
    slow.connection.send(data)
    slow.connection.send(data)
    assert due(slow, 1000) == 1020


# How much of a body is read at one time.


def post(size: int) -> bytes:
    return HEAD.replace(b"1000", b"%d" % size) + bytes(size)


def test_a_body_that_is_there_is_read_with_its_head(clients: list[Client]) -> None:
    quick = client(clients)
    quick.sends(post(100_000), 0)
    assert quick.request is not None
    assert len(quick.request.environ["wsgi.input"].read()) == 100_000


class Rushing(socket.socket):
    """However much is read, more is there."""

    left = post(1_000_000)

    def recv(self, size: int, flags: int = 0) -> bytes:
        data, self.left = self.left[:size], self.left[size:]
        return data


def test_others_get_their_turn_before_more_of_a_body_is_read() -> None:
    with socket.socket() as sock, Rushing(fileno=sock.detach()) as rushing:
        connection = HttpConnection(rushing, BASE, ("", ""), client_limits(), START)
        lots = []
        request = None
        while request is None:
            before = len(rushing.left)
            request = connection.receive(START)
            lots.append(before - len(rushing.left))
        assert len(lots) == 4
        assert max(lots) <= (16 + 256) * 1024
        assert len(request.environ["wsgi.input"].read()) == 1_000_000
        connection.close()


# Memory that all clients share.


def rolled(client: Client) -> bool:
    body = client.connection.reader.body
    assert isinstance(body, GatheredBody)
    return body.on_disk


def test_bodies_go_to_disk_when_all_of_them_take_too_much(clients: list[Client]) -> None:
    budget = MemoryBudget(1500)
    first, second, third = (client(clients, budget=budget) for _ in range(3))
    first.sends(HEAD + b"x" * 999, 0)
    assert (rolled(first), budget.used) == (False, 1000)
    second.sends(HEAD + b"x" * 500, 0)
    assert (rolled(second), budget.used) == (True, 1000)
    # What is answered is given back.
    first.sends(b"x", 0)
    assert budget.used == 1000
    assert first.answered()
    assert budget.used == 0
    third.sends(HEAD + b"x" * 999, 0)
    assert (rolled(third), budget.used) == (False, 1000)
    third.connection.close()
    clients.remove(third)
    third.sock.close()
    del third
    assert budget.used == 0


def test_a_body_is_refused_where_all_of_them_take_too_much_of_the_disk(
    clients: list[Client],
) -> None:
    disk = DiskBudget(1500)
    first, second, third = (client(clients, budget=MemoryBudget(1), disk=disk) for _ in range(3))
    first.sends(HEAD + b"x" * 999, 0)
    second.sends(HEAD + b"x" * 500, 0)
    assert disk.used == 1499
    second.sends(b"x" * 2, 0)
    second.sock.settimeout(PATIENCE)
    answer = second.sock.recv(65536)
    assert answer.startswith(b"HTTP/1.1 507 Insufficient Storage\r\n")
    assert b"no more room" in answer
    # What it had is given back at once; what is answered stays for the next that wants it.
    assert disk.used == 999
    first.sends(b"x", 0)
    assert first.answered()
    assert disk.used == 1000
    third.sends(HEAD + b"x" * 999, 0)
    assert (rolled(third), disk.used) == (True, 1000)


def test_responses_go_to_disk_when_all_of_them_take_too_much(clients: list[Client]) -> None:
    budget = MemoryBudget(100_000)
    data = bytes(1 << 20)  # more than a socket takes unread
    slow = client(clients, budget=budget, response_memory=0, response_spill=0)
    for piece in (data, b"kept", bytes(200_000), b"end"):
        slow.connection.send(piece)
    assert budget.used <= 100_000
    got = b""
    slow.sock.settimeout(PATIENCE)
    while len(got) < len(data) + 200_007:
        got += slow.sock.recv(1 << 20)
        slow.connection.flush()
    assert got == data + b"kept" + bytes(200_000) + b"end"
    assert budget.used == 0
    slow.connection.send(data)
    slow.connection.send(b"kept" * 10)
    clients.remove(slow)
    slow.sock.close()
    slow.connection.close()
    assert budget.used == 0
