"""A connection for which the kernel has woken a worker that does not come is taken by another."""

import asyncio
import select
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork.worker.schedule.loop_accept import LoopAcceptor
from tests.support.waiting import until

EPOLL_CALLS = {"232", "281", "22"}
"""epoll_wait and epoll_pwait on x86-64, and epoll_pwait on arm64."""


class OpenListener:
    """In place of a `prefork.worker.schedule.worker_listener.WorkerListener`."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.open = True
        self.number = 0

    def close(self) -> None:
        self.open = False
        self.sock.close()


class Siblings:
    """In place of a `prefork.worker.schedule.handover.Handover`: there are some, and all are
    full."""

    is_only_worker = False
    fd_limit = 1 << 30

    def least_held(self) -> int:
        return 1000


class DeadWorker:
    """Waits in an epoll of its own until it is woken, and accepts nothing."""

    def __init__(self, listener: socket.socket) -> None:
        self._epoll = select.epoll()
        self._epoll.register(listener, select.EPOLLIN | select.EPOLLEXCLUSIVE)
        self.woken = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()
        calls = Path(f"/proc/self/task/{self._thread.native_id}/syscall")
        until(lambda: calls.read_text().split()[0] in EPOLL_CALLS, "a thread in epoll_wait")

    def _run(self) -> None:
        if self._epoll.poll(30):
            self.woken.set()

    def close(self) -> None:
        self._thread.join()
        self._epoll.close()


@pytest.fixture(params=["asyncio", "uvloop"])
def loop(request: pytest.FixtureRequest) -> Iterator[asyncio.AbstractEventLoop]:
    if request.param == "uvloop":
        made: asyncio.AbstractEventLoop = pytest.importorskip("uvloop").new_event_loop()
    else:
        made = asyncio.SelectorEventLoop()
    yield made
    made.close()


def test_look_again_finds_what_a_dead_worker_was_woken_for(
    loop: asyncio.AbstractEventLoop,
) -> None:
    siblings: Any = Siblings()
    served: list[int] = []

    def serve(accepted: Any, listener: Any) -> None:
        served.append(accepted[0])
        socket.socket(fileno=accepted[0]).close()

    def turns(number: int) -> None:
        for _ in range(number):
            loop.run_until_complete(asyncio.sleep(0.001))

    with socket.create_server(("127.0.0.1", 0)) as sock:
        dead = DeadWorker(sock)  # the first in the order of the kernel
        listener: Any = OpenListener(sock)
        acceptor = LoopAcceptor(
            *(loop, [listener], siblings, serve, lambda: None, lambda: None),
            lambda: 0,
        )
        acceptor.start()
        turns(10)  # until the registration is ours
        with socket.create_connection(sock.getsockname()):
            dead.woken.wait()
            dead.close()
            turns(10)
            assert not served
            acceptor.look_again()
            turns(10)
            assert len(served) == 1
        acceptor.replace_listeners(())
        acceptor.forget_listeners()
