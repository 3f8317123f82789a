"""What the watcher of an event loop does with connections that siblings have sent to it."""

import os
import queue
import socket
from collections.abc import Iterator

import pytest

from prefork.worker.schedule.handover import HOPS, HandoverMessage
from prefork.worker.schedule.loop_watcher import LoopWatcher
from prefork.worker.schedule.pending_work import PendingWork
from tests.support.waiting import PATIENCE


class Poller:
    """No connection of the worker itself is ready."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0)

    def fileno(self) -> int:
        return self.fd

    def ready(self, most: int) -> list[tuple[int, int]]:
        return []


class Service:
    def __init__(self) -> None:
        self.poller = Poller()


class Handover:
    """An inbox of messages without a descriptor, and one sibling."""

    has_no_sibling = False
    has_idle_receiver = True

    def __init__(self) -> None:
        self.inbox, self.siblings_end = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.inbox.setblocking(False)
        self.sent: queue.Queue[HandoverMessage] = queue.Queue()

    def receive(self) -> tuple[HandoverMessage, int] | None:
        try:
            hops = int(self.inbox.recv(16))
        except BlockingIOError:
            return None
        return HandoverMessage(1, None, ("", ""), b"", 0.0, 0.0, True, False, hops=hops), os.dup(0)

    def send(self, message: HandoverMessage, fd: int, *, only_idle: bool) -> bool:
        self.sent.put(message)
        return True


class Watched:
    """A worker whose loop is blocked, or makes a turn between each two looks of the watcher."""

    def __init__(self) -> None:
        self.handover, self.pending = Handover(), PendingWork()
        self.turns, self.turning = 0, False
        self.woken: queue.Queue[None] = queue.Queue()
        self.watcher = LoopWatcher(
            *(Service(), self.handover, self.pending),  # type: ignore[arg-type]
            self.look_at_turns,
            lambda: self.woken.put(None),
        )
        self.looks: queue.Queue[None] = queue.Queue()

    def look_at_turns(self) -> int:
        self.looks.put(None)
        self.turns += self.turning
        return self.turns


@pytest.fixture
def watched() -> Iterator[Watched]:
    watched = Watched()
    watched.watcher.create()
    watched.watcher.start()
    yield watched
    watched.watcher.stop()
    watched.handover.inbox.close()
    watched.handover.siblings_end.close()
    os.close(watched.watcher._service.poller.fileno())


def test_what_siblings_send_to_a_blocked_loop_goes_to_another_one(watched: Watched) -> None:
    for hops in (1, HOPS - 1):
        watched.handover.siblings_end.send(b"%d" % hops)
        assert watched.handover.sent.get(timeout=PATIENCE).hops == hops
    assert not watched.pending.received


def test_what_has_moved_often_enough_is_left_to_the_loop(watched: Watched) -> None:
    watched.handover.siblings_end.send(b"%d" % HOPS)
    watched.woken.get(timeout=PATIENCE)
    message, fd = watched.pending.received.popleft()
    os.close(fd)
    assert message.hops == HOPS
    assert watched.handover.sent.empty()


def test_a_loop_that_turns_has_its_inbox_for_itself(watched: Watched) -> None:
    watched.turning = True
    watched.handover.siblings_end.send(b"1")
    for _ in range(6):
        watched.looks.get(timeout=PATIENCE)
    assert watched.handover.sent.empty()
    assert watched.handover.inbox.recv(16) == b"1"
