"""What a worker knows of its listeners: their order, the profile of their connections, limits."""

import os
import socket
from collections.abc import Iterator

import msgspec
import pytest

from prefork.address import parse
from prefork.config import Config, Http
from prefork.http.head_rules import Reject
from prefork.listeners import Listener
from prefork.scoreboard import LISTENERS, Scoreboard
from prefork.worker.protocol.http_connection import HttpConnection
from prefork.worker.schedule.handover import Handover
from prefork.worker.schedule.worker_listener import worker_listeners
from prefork.worker.service.listener_profile import ListenerProfile, listener_profile
from prefork.worker.transport.client_limits import ClientLimits


def tcp() -> socket.socket:
    return socket.create_server(("127.0.0.1", 0))


def unix() -> socket.socket:
    sock = socket.socket(socket.AF_UNIX)
    sock.bind("")  # an abstract name of the kernel's choice, unix(7)
    sock.listen()
    return sock


def test_listeners_are_numbered_and_the_first_tcp_ones_are_fair() -> None:
    board = Scoreboard()
    socks = [tcp(), unix(), *(tcp() for _ in range(LISTENERS - 1))]
    try:
        made = worker_listeners(socks, board.accept_flags(0), Handover(board, 0, 1))
        assert [one.number for one in made] == list(range(LISTENERS + 1))
        assert [one.sock for one in made] == socks
        fair = [one.number for one in made if one.fairness is not None]
        assert fair == [0, *range(2, LISTENERS)]
        assert [one.inode for one in made] == [os.fstat(sock.fileno()).st_ino for sock in socks]
        for one in made:
            one.release_spare()
    finally:
        for sock in socks:
            sock.close()


@pytest.fixture
def listener() -> Iterator[Listener]:
    with tcp() as sock:
        yield Listener(parse("127.0.0.1:0"), sock)


def refuse(connection: HttpConnection, address: str) -> Reject | None:
    return Reject(429, address)


def profile(listener: Listener, http: Http | None = None) -> ListenerProfile:
    config = Config(http=http or Http())
    return listener_profile(listener, config, None, {"prefork.slot": 3}, refuse)


def test_a_plain_listener_has_plain_connections_and_a_cache(listener: Listener) -> None:
    made = profile(listener)
    assert made.connect is HttpConnection
    assert made.heads is not None
    assert not made.tls
    assert made.sharing_address(("127.0.0.1", "1")) == "127.0.0.1"
    port = str(listener.sock.getsockname()[1])
    environ = made.environ
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("127.0.0.1", port)
    assert (environ["wsgi.url_scheme"], environ["prefork.slot"]) == ("http", 3)
    assert "HTTPS" not in environ


def test_a_unix_listener_has_a_name_and_a_port_for_cgi() -> None:
    with unix() as sock:
        environ = profile(Listener(parse("unix:@x"), sock)).environ
    assert (environ["SERVER_NAME"], environ["SERVER_PORT"]) == ("localhost", "80")


def test_behind_a_trusted_proxy_heads_are_not_kept_and_it_has_no_share(listener: Listener) -> None:
    made = profile(listener, Http(trusted_proxies=("127.0.0.0/8",)))
    assert made.heads is None
    assert made.connect is not HttpConnection
    assert made.sharing_address(("127.0.0.1", "1")) == ""
    assert made.sharing_address(("192.0.2.1", "1")) == "192.0.2.1"


def test_each_limit_is_that_of_its_key() -> None:
    """Each key has a value of its own: two that were exchanged would show."""
    http = Http(
        keepalive=1.0,
        keepalive_requests=2,
        header_timeout=3.0,
        body_timeout=4.0,
        min_body_rate=5,
        write_timeout=6.0,
        min_write_rate=7,
        response_memory=8,
        response_spill=9,
        max_request_line=10,
        max_header_count=11,
        max_header_size=12,
        max_body=13,
        body_memory=14,
        buffer_memory=15,
        buffer_disk=16,
        stream_body=True,
    )
    limits = ClientLimits.of(http)
    same = (
        *("keepalive", "keepalive_requests", "header_timeout", "body_timeout", "min_body_rate"),
        *("write_timeout", "min_write_rate", "response_memory", "response_spill"),
    )
    given = msgspec.structs.asdict(http)
    assert {name: getattr(limits, name) for name in same} == {name: given[name] for name in same}
    request = limits.limits
    assert (request.request_line, request.header_count, request.header_size) == (10, 11, 12)
    assert (request.body, request.body_memory, request.stream) == (13, 14, True)
    assert request.budget is limits.budget
    assert request.disk is limits.disk
    assert limits.budget.limit == 15
    assert limits.disk.limit == 16
