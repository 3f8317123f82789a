"""What a connection keeps of its client's bytes is counted, and given back."""

import gc
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from prefork.apps.wsgi import StartResponse
from prefork.http.memory_budget import MemoryBudget
from prefork.http.request import Environ
from prefork.worker.protocol.connection_state import ConnectionState
from prefork.worker.protocol.http_connection import HttpConnection
from tests.support.client_limits import BASE, START, client_limits
from tests.support.wsgi_calls import RECORD, PlainCaller

GET = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n"
CHUNKS = b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"


class Client:
    """A connection that is served, and the other end of its socket."""

    def __init__(self, budget: MemoryBudget, size: int, **changed: Any) -> None:
        ours, self.sock = socket.socketpair()
        self.sock.setblocking(False)
        limits = client_limits(budget=budget, **changed)
        self.connection = HttpConnection(ours, BASE, ("", ""), limits, START)
        self.answered = 0

        def app(environ: Environ, start_response: StartResponse) -> list[bytes]:
            self.answered += 1
            start_response("200 OK", [("Content-Length", str(size))])
            return [bytes(size)]

        self._call = PlainCaller(app, self._failed).call

    def _failed(self, _request: object, problem: BaseException) -> None:
        raise problem

    def sends(self, data: bytes) -> ConnectionState:
        self.sock.sendall(data)
        return self.turn()

    def turn(self) -> ConnectionState:
        state = None
        while state is None or state is ConnectionState.QUEUED:
            self.connection.proceed(self._call, RECORD, START)
            state = self.connection.state
        return state

    def close(self) -> None:
        self.connection.close()
        self.sock.close()


@pytest.fixture
def made() -> Iterator[list[Client]]:
    clients: list[Client] = []
    yield clients
    for client in clients:
        client.close()


def client(made: list[Client], budget: MemoryBudget, size: int = 1, **changed: Any) -> Client:
    made.append(Client(budget, size, **changed))
    return made[-1]


@pytest.mark.parametrize(
    ("data", "state", "held"),
    [
        (GET, ConnectionState.IDLE, 0),
        (GET[:9], ConnectionState.HEAD, 9),
        (GET + GET[:9], ConnectionState.HEAD, 9),
        # Memory for the body, and the request's bytes, with which it could move to another worker.
        (POST + b"abc", ConnectionState.BODY, 10 + len(POST + b"abc")),
        (CHUNKS + b"3;abc", ConnectionState.BODY, 5 + len(CHUNKS + b"3;abc")),
        (b"\0", ConnectionState.LINGER, 0),
    ],
)
@pytest.mark.parametrize("size", [1, 7, 1000])
def test_what_is_kept_of_a_request_is_counted(
    made: list[Client], data: bytes, state: ConnectionState, held: int, size: int
) -> None:
    budget = MemoryBudget()
    one = client(made, budget)
    for at in range(0, len(data), size):
        one.sends(data[at : at + size])
    assert one.connection.state is state
    assert budget.used == held
    one.close()
    made.clear()
    del one
    gc.collect()  # the client of this test refers to itself
    assert budget.used == 0


def test_a_pipeline_behind_a_response_that_is_not_taken_keeps_its_bytes_and_no_more(
    made: list[Client],
) -> None:
    budget = MemoryBudget()
    one = client(made, budget, size=2_000_000, response_memory=1, response_spill=0)
    one.connection.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    pipeline = GET * (16 * 1024 // len(GET))
    one.sends(pipeline)
    assert one.connection.state is ConnectionState.WRITE
    assert one.answered == 1
    in_response = one.connection.unsent.memory if one.connection.unsent is not None else 0
    assert budget.used == len(pipeline) + in_response
    # What comes now stays in the kernel: the connection waits to be writable.
    one.sends(GET * 100)
    assert budget.used == len(pipeline) + in_response
    assert one.answered == 1


def test_a_head_for_which_no_memory_is_left_gets_503(made: list[Client]) -> None:
    budget = MemoryBudget(100)
    slow, other = client(made, budget), client(made, budget)
    slow.sends(GET[:-2] + b"X: " + b"a" * 60)
    assert slow.connection.state is ConnectionState.HEAD
    other.sends(GET[:-2] + b"X: " + b"a" * 60)
    assert other.sock.recv(65536).startswith(b"HTTP/1.1 503 ")
    assert other.connection.state is ConnectionState.LINGER
    assert budget.used == len(GET) - 2 + 63
    # One that is whole needs none.
    third = client(made, budget)
    third.sends(GET)
    assert third.sock.recv(65536).startswith(b"HTTP/1.1 200 ")


def test_a_pipeline_for_which_no_memory_is_left_ends_with_its_first_response(
    made: list[Client],
) -> None:
    budget = MemoryBudget(100)
    one = client(made, budget)
    one.sends(GET * 10)
    answer = one.sock.recv(65536)
    assert answer.count(b"HTTP/1.1 200 OK") == 1
    assert b"\r\nConnection: close\r\n" in answer
    assert one.connection.state is ConnectionState.LINGER
    assert (one.answered, budget.used) == (1, 0)


def test_a_request_that_can_be_kept_but_not_twice_can_not_move(made: list[Client]) -> None:
    budget = MemoryBudget(len(POST) + 5)
    one = client(made, budget)
    one.connection.listener = 1
    one.sends(POST)
    assert one.connection.handover_message() is not None
    one.sends(b"abcdef")
    assert one.connection.state is ConnectionState.BODY
    assert one.connection.handover_message() is None
    one.sends(b"ghij")
    assert one.sock.recv(65536).startswith(b"HTTP/1.1 200 ")
    assert budget.used == 0


def test_a_half_read_request_behind_another_can_move(made: list[Client]) -> None:
    """Its bytes are known, also if they came with the end of the request before."""
    one = client(made, MemoryBudget())
    one.connection.listener = 1
    for data, unread in ((GET + GET[:9], GET[:9]), (GET[9:-1], GET[:-1])):
        one.sends(data)
        message = one.connection.handover_message()
        assert message is not None
        assert (message.data, message.answered, message.served) == (unread, False, 1)
