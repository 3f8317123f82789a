"""Inboxes: what is sent arrives, and where it can't be sent it stays. No fork; real sockets."""

import errno
import os
import socket
from collections.abc import Iterator
from time import monotonic
from typing import Any

import msgspec
import pytest

from prefork.scoreboard import Scoreboard
from prefork.worker.schedule import handover
from prefork.worker.schedule.handover import HOPS, Handover, HandoverMessage, kind_of, receive, send

KIND = 77


class Pair:
    """Two workers in slots 0 and 1 that know each other, and a connection to hand over."""

    def __init__(self) -> None:
        self.board = Scoreboard()
        self.ways = [socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)]
        self.one, self.other = (Handover(self.board, slot, 1) for slot in range(2))
        self.client, self.served = socket.socketpair()
        for slot, worker in enumerate((self.one, self.other)):
            far = 1 - slot
            fds = (os.dup(self.ways[slot][0].fileno()), os.dup(self.ways[far][1].fileno()))
            worker.set_inboxes(KIND, (far,), fds, own=True)
            worker.start_receiving()

    def message(self, **more: Any) -> HandoverMessage:
        given: dict[str, Any] = {
            "listener": 1,
            "peer": None,
            "client": ("::1", "8"),
            "data": b"GET",
            "since": 1.5,
            "deadline": 0.0,
            "answered": True,
            "continued": False,
            "served": 3,
        }
        return HandoverMessage(**{**given, **more})

    def send(self, *, only_idle: bool = True, **more: object) -> bool:
        return self.one.send(self.message(**more), self.served.fileno(), only_idle=only_idle)

    def close(self) -> None:
        for sock in (self.client, self.served, *self.ways[0], *self.ways[1]):
            sock.close()
        self.one.after_fork_in_child()
        self.other.after_fork_in_child()


@pytest.fixture
def pair() -> Iterator[Pair]:
    made = Pair()
    yield made
    made.close()


def test_what_is_sent_arrives_with_all_that_belongs_to_it(pair: Pair) -> None:
    assert pair.send(data=b"G\xff\r\n", peer=("::1", 8, 0, 0))
    packet = pair.other.receive()
    assert packet is not None
    message, fd = packet
    assert message == pair.message(data=b"G\xff\r\n", peer=("::1", 8, 0, 0), hops=1)
    with socket.socket(fileno=fd) as moved:
        assert not moved.get_inheritable()
        moved.send(b"hello")
    assert pair.client.recv(9) == b"hello"
    assert pair.other.receive() is None


def test_a_busy_one_is_sent_nothing_but_by_one_that_leaves(pair: Pair) -> None:
    pair.board.record(1, 0).start(1.0, b"GET /", "", "")
    assert not pair.one.has_idle_receiver
    assert not pair.send()
    assert pair.send(only_idle=False)


def test_one_that_takes_nothing_is_sent_nothing(pair: Pair) -> None:
    assert pair.one.has_receiver
    pair.other.stop_receiving()
    assert not pair.one.has_receiver
    assert not pair.send(only_idle=False)


def test_nothing_goes_to_a_worker_with_other_listeners(pair: Pair) -> None:
    pair.board.start_receiving(1, KIND + 1, 1)
    assert not pair.one.has_idle_receiver
    assert not pair.send(only_idle=False)


def test_at_the_end_of_the_server_no_worker_receives(pair: Pair) -> None:
    pair.board.draining = True
    assert not pair.one.has_receiver
    assert not pair.one.expects_receiver


def test_where_an_inbox_is_full_the_sender_keeps_it(pair: Pair) -> None:
    sent = 0
    while pair.send():
        sent += 1
        assert sent < 10_000
    for _ in range(sent):
        packet = pair.other.receive()
        assert packet is not None
        os.close(packet[1])
    assert pair.other.receive() is None
    assert pair.send()


def test_the_largest_unfinished_request_fits(pair: Pair) -> None:
    assert pair.send(data=b"x" * handover.UNREAD)
    packet = pair.other.receive()
    assert packet is not None
    assert packet[0].data == b"x" * handover.UNREAD
    os.close(packet[1])


def test_what_cannot_be_read_is_passed_over_and_closed(pair: Pair) -> None:
    assert send(pair.ways[1][1], b"nonsense", pair.served.fileno())
    whole = msgspec.msgpack.encode(pair.message())
    assert send(pair.ways[1][1], whole, pair.served.fileno())
    packet = pair.other.receive()
    assert packet is not None
    os.close(packet[1])
    pair.served.close()
    assert pair.client.recv(1) == b""  # no descriptor of it is left


def test_the_reader_of_an_inbox_gets_what_its_owner_left(pair: Pair) -> None:
    assert pair.send()
    packet = receive(pair.ways[1][0])
    assert packet is not None
    os.close(packet[1])
    assert pair.other.receive() is None


def test_one_that_has_not_taken_its_last_connection_is_sent_no_other(pair: Pair) -> None:
    assert pair.send()
    assert not pair.send()
    assert not pair.one.send(pair.message(), pair.served.fileno(), only_idle=False, slot=1)
    packet = pair.other.receive()
    assert packet is not None
    os.close(packet[1])
    assert pair.send()


def test_one_that_reads_its_inbox_is_sent_more_than_one(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(handover, "_PROOF", 3600.0)
    assert pair.send()
    pair.board.inbox_read(1, monotonic())
    assert pair.send()


def test_a_probe_says_that_a_worker_does_not_run_until_it_is_read(pair: Pair) -> None:
    handover.send_probe(pair.ways[1][1])
    assert not pair.send()
    assert pair.other.receive() is None
    assert pair.send()


def test_a_sibling_is_silent_if_it_leaves_what_it_was_sent(pair: Pair) -> None:
    before = monotonic()
    assert pair.send()
    assert pair.one.awaits_answer
    assert pair.one.silent_siblings(before) == []
    assert pair.one.silent_siblings(monotonic() + handover.ANSWER) == [1]
    pair.one.silence_reported(1)
    assert not pair.one.awaits_answer


def test_a_sibling_that_has_taken_what_it_was_sent_is_not_silent(pair: Pair) -> None:
    assert pair.send()
    packet = pair.other.receive()
    assert packet is not None
    os.close(packet[1])
    assert pair.one.silent_siblings(monotonic() + handover.ANSWER) == []
    assert not pair.one.awaits_answer


def test_it_is_sent_on_a_few_times_only(pair: Pair) -> None:
    assert pair.send(hops=HOPS - 1)
    packet = pair.other.receive()
    assert packet is not None
    assert packet[0].hops == HOPS
    os.close(packet[1])


def test_short_of_descriptors_it_takes_nothing_until_there_are_some(pair: Pair) -> None:
    pair.other.pause_receiving()
    assert pair.other.receiving_paused
    assert not pair.one.has_receiver
    pair.other.check_descriptors()
    assert not pair.other.receiving_paused
    assert pair.one.has_receiver


def test_without_a_descriptor_for_it_a_connection_stays_in_the_inbox(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert pair.send()

    def full(fd: int) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(os, "dup", full)
        assert pair.other.receive() is None
        assert pair.other.no_descriptor_left
        assert not pair.send()  # it has said so
    packet = pair.other.receive()
    assert packet is not None
    assert not pair.other.no_descriptor_left
    os.close(packet[1])


def test_when_the_master_is_gone_nothing_moves(pair: Pair) -> None:
    pair.one.master_gone()
    assert not pair.send(only_idle=False)
    pair.one.start_receiving()
    assert not pair.one.expects_receiver


def test_kinds_tell_protocols_and_listeners_apart() -> None:
    with socket.socket() as one, socket.socket() as other:
        kinds = {kind_of("wsgi", [one]), kind_of("tcp", [one]), kind_of("wsgi", [one, other])}
        assert len(kinds) == 3
        assert 0 not in kinds
        assert kind_of("wsgi", [other, one]) in kinds
        with one.dup() as same:
            assert kind_of("wsgi", [same]) in kinds
