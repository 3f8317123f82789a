"""The worker channel: whole messages, an end, and nobody who blocks."""

import os
import socket
from collections.abc import Iterator

import pytest

from prefork.channel import (
    LIMIT,
    Channel,
    ExpireOrder,
    FailedReport,
    LeavingReport,
    Order,
    ReadyReport,
    ReopenOrder,
    Report,
    RetireOrder,
    StopOrder,
)


@pytest.fixture
def pair() -> Iterator[tuple[Channel, Channel]]:
    """The master's end and the worker's."""
    master, worker = Channel.pair()
    yield master, worker
    master.close()
    worker.close()


Pair = tuple[Channel, Channel]


@pytest.mark.parametrize(
    "message", [ReadyReport(), LeavingReport(), FailedReport("line\nline"), FailedReport("")]
)
def test_reports_arrive_as_they_were_sent(pair: Pair, message: Report) -> None:
    master, worker = pair
    assert worker.send(message)
    assert master.receive_report() == message
    assert master.receive_report() is None


@pytest.mark.parametrize(
    "message", [RetireOrder(), StopOrder((0, 2)), StopOrder(()), ExpireOrder(), ReopenOrder(())]
)
def test_orders_arrive_as_they_were_sent(pair: Pair, message: Order) -> None:
    master, worker = pair
    assert master.send(message)
    assert worker.receive_order() == (message, [])
    assert worker.receive_order() is None


def test_messages_keep_their_order_and_their_bounds(pair: Pair) -> None:
    master, worker = pair
    for number in range(20):
        assert worker.send(FailedReport(str(number)))
    assert [master.receive_report() for _ in range(20)] == [
        FailedReport(str(number)) for number in range(20)
    ]


def test_descriptors_come_along_and_are_not_inherited(pair: Pair) -> None:
    master, worker = pair
    reader, writer = os.pipe()
    try:
        assert master.send(ReopenOrder(("/a", "/b")), (writer, reader))
        received = worker.receive_order()
        assert received is not None
        order, fds = received
        assert order == ReopenOrder(("/a", "/b"))
        assert len(fds) == 2
        assert not any(map(os.get_inheritable, fds))
        os.write(fds[0], b"through")
        assert os.read(reader, 100) == b"through"
        for fd in fds:
            os.close(fd)
    finally:
        os.close(reader)
        os.close(writer)


def test_what_was_said_before_the_end_is_heard(pair: Pair) -> None:
    master, worker = pair
    worker.send(FailedReport("why"))
    worker.close()
    assert master.receive_report() == FailedReport("why")
    for _ in range(2):
        with pytest.raises(EOFError):
            master.receive_report()


def test_the_worker_sees_the_end_of_the_master(pair: Pair) -> None:
    master, worker = pair
    master.close()
    with pytest.raises(EOFError):
        worker.receive_order()


def test_sending_to_a_closed_channel_is_false_and_no_signal(pair: Pair) -> None:
    master, worker = pair
    worker.close()
    assert not master.send(RetireOrder())


def test_a_full_channel_does_not_block(pair: Pair) -> None:
    master, worker = pair
    sent = 0
    while master.send(RetireOrder()):
        sent += 1
        assert sent < 1_000_000
    assert sent
    assert not master.send(RetireOrder())
    # Once it is read, there is room again.
    while worker.receive_order() is not None:
        sent -= 1
    assert sent == 0
    assert master.send(RetireOrder())


@pytest.mark.parametrize("character", ["x", "\n", "\0", "\u20ac", "\U0001f40d", '"'])
def test_a_reason_of_any_length_fits_and_keeps_its_end(pair: Pair, character: str) -> None:
    master, worker = pair
    assert worker.send(FailedReport(character * LIMIT * 2 + "the last line"))
    report = master.receive_report()
    assert isinstance(report, FailedReport)
    kept = character * (10_000 // len(character.encode()))
    assert report.reason.endswith(kept + "the last line")


def test_a_reason_may_hold_what_utf_8_cannot(pair: Pair) -> None:
    """A file name that is not UTF-8 has surrogates in a traceback (PEP 383)."""
    master, worker = pair
    assert worker.send(FailedReport("no such file: caf\udce9"))
    assert master.receive_report() == FailedReport("no such file: caf\\udce9")


def test_garbage_is_the_end_of_a_channel() -> None:
    """An application may write into what it takes for its own descriptor: the master lives on."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        master = Channel(ours)
        for garbage in (b"hello", b'{"type":"nothing"}', b'{"type":"failed"}', b"\xff" * 70_000):
            theirs.send(garbage)
            with pytest.raises(EOFError):
                master.receive_report()


def test_nothing_there_is_none(pair: Pair) -> None:
    master, worker = pair
    assert master.receive_report() is None
    assert worker.receive_order() is None
