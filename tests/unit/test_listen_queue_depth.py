"""The depth of a listen queue, as the kernel tells it."""

import os
import select
import socket
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pytest

from prefork import linux

Listen = Callable[[ExitStack, Path], socket.socket]


def tcp(stack: ExitStack, tmp: Path) -> socket.socket:
    return stack.enter_context(socket.create_server(("127.0.0.1", 0)))


def tcp6(stack: ExitStack, tmp: Path) -> socket.socket:
    return stack.enter_context(
        socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
    )


def unix(stack: ExitStack, tmp: Path) -> socket.socket:
    return _listen(stack, str(tmp / "queue.sock"))


def abstract(stack: ExitStack, tmp: Path) -> socket.socket:
    return _listen(stack, f"\0prefork-queue-{os.getpid()}")


def _listen(stack: ExitStack, address: str) -> socket.socket:
    sock = stack.enter_context(socket.socket(socket.AF_UNIX))
    sock.bind(address)
    sock.listen(10)
    return sock


def connect(stack: ExitStack, listener: socket.socket) -> None:
    address = listener.getsockname()
    if listener.family == socket.AF_UNIX:
        sock = stack.enter_context(socket.socket(socket.AF_UNIX))
        sock.connect(address)
    else:
        stack.enter_context(socket.create_connection(("127.0.0.1", address[1])))


@pytest.mark.parametrize("listen", [tcp, tcp6, unix, abstract])
def test_the_queue_is_as_long_as_connections_wait(listen: Listen, tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = listen(stack, tmp_path)
        for number in range(4):
            assert linux.listen_queue(listener).depth == number
            connect(stack, listener)
        listener.accept()[0].close()
        assert linux.listen_queue(listener).depth == 3


def test_without_sock_diag_a_unix_queue_is_empty_or_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ExitStack() as stack:
        listener = unix(stack, tmp_path)
        connect(stack, listener)
        connect(stack, listener)
        monkeypatch.setattr(linux, "_SOCK_DIAG_BY_FAMILY", 1000)  # which the kernel refuses
        assert linux.listen_queue(listener).depth == 1
        listener.accept()[0].close()
        listener.accept()[0].close()
        assert linux.listen_queue(listener).depth == 0


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_a_connection_that_waits_in_the_kernel_for_its_first_byte_is_under_way(host: str) -> None:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_DEFER_ACCEPT, 5)
        assert not linux.handshakes_under_way(listener)
        with socket.create_connection(listener.getsockname()[:2]) as client:
            assert linux.handshakes_under_way(listener)
            client.send(b"x")
            listener.accept()[0].close()
        assert not linux.handshakes_under_way(listener)


@pytest.mark.parametrize("listen", [tcp, unix])
def test_the_limit_is_what_was_asked_for(listen: Listen, tmp_path: Path) -> None:
    with ExitStack() as stack:
        listener = listen(stack, tmp_path)
        listener.listen(7)
        assert linux.listen_queue(listener).limit == 7


def test_a_queue_that_overflows_is_counted() -> None:
    before = linux.listen_overflows()
    assert before >= 0
    with ExitStack() as stack:
        listener = tcp(stack, Path())
        listener.listen(0)
        connect(stack, listener)
        late = stack.enter_context(socket.socket())
        late.setblocking(False)
        late.connect_ex(listener.getsockname())
        # Its SYN is dropped, and repeated after a second: nothing comes back.
        assert not select.select([], [late], [], 0.05)[1]
        assert linux.listen_queue(listener).depth == 1
        assert linux.listen_overflows() > before
