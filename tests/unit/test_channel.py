"""The worker channel: whole messages, an end, and nobody who blocks."""

import array
import contextlib
import os
import socket
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from prefork import linux
from prefork.channel import (
    LIMIT,
    BornReport,
    Channel,
    ExpireOrder,
    FailedReport,
    InvalidReportError,
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

GARBAGE = (
    b"hello",
    b'{"type":"nothing"}',
    b'{"type":"failed"}',
    b'{"type":"failed","why":"\\ud800"}',
    b'{"type":"failed","why":"\xff"}',
    b"\xff" * 70_000,
    b"[" * 60_000,
    b'{"type":"ready","more":' + b"[" * 60_000,
    b'{"a":' * 10_000,
    b'{"type":"born","pid":0}',
    b'{"type":"born","pid":-1}',
    b'{"type":"born","pid":2147483648}',
    b'{"type":"born","pid":1099511627776}',
    b'{"type":"born","pid":' + b"9" * 60_000 + b"}",
    b'{"type":"born","pid":1e999}',
)
"""Packets that are no reports, each in a way of its own."""


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
        for garbage in GARBAGE:
            theirs.send(garbage)
            with pytest.raises(InvalidReportError) as problem:
                master.receive_report()
            assert "\n" not in str(problem.value)
            assert len(str(problem.value)) < 300


def test_a_process_reports_no_other_process_as_its_own(pair: Pair) -> None:
    """It would get the signals that the master means for a worker: the kernel knows the sender."""
    master, worker = pair
    worker.send(BornReport(os.getpid()))
    assert master.receive_report() == BornReport(os.getpid())
    worker.send(BornReport(os.getppid()))
    with pytest.raises(InvalidReportError, match=f"process {os.getpid()} claims to be"):
        master.receive_report()


@pytest.mark.parametrize("refusing", [True, False])
def test_descriptors_never_stay_in_the_master(
    refusing: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whether the kernel can refuse them (Linux 6.16) or not."""
    if not refusing:
        monkeypatch.setattr("prefork.linux.refuse_descriptors", lambda sock: None)
    ours, theirs = Channel.pair()
    end = socket.socket(fileno=os.dup(theirs.fileno()))
    before = set(os.listdir("/proc/self/fd"))
    for count in (1, 8, 9, 100, 253):
        rights = array.array("i", [0] * count)
        for packet in (b'{"type":"ready"}', b"nonsense"):
            with contextlib.suppress(PermissionError):
                end.sendmsg([packet], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
            with contextlib.suppress(InvalidReportError):
                assert ours.receive_report() in (ReadyReport(), None)
            assert before.issuperset(
                os.listdir("/proc/self/fd")
            )  # the collector may have closed others
    end.close()
    ours.close()
    theirs.close()


def test_a_socket_that_lingers_is_closed_at_once() -> None:
    """close(2) of a TCP socket with SO_LINGER waits for data that its peer never takes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        sender = socket.create_connection(listener.getsockname())
        with listener.accept()[0]:
            sender.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                while True:
                    sender.send(bytes(65536))
            sender.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
            closer = threading.Thread(
                target=linux.close_received, args=(sender.detach(),), daemon=True
            )
            closer.start()
            closer.join(60)
            assert not closer.is_alive()


def test_files_and_sockets_of_any_kind_are_closed() -> None:
    fds = [
        *os.pipe(),
        os.eventfd(0),
        os.memfd_create("x"),
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).detach(),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).detach(),
        os.open("/", os.O_PATH),
        os.open("/dev/null", os.O_RDWR),
    ]
    for fd in fds:
        linux.close_received(fd)
        with pytest.raises(OSError, match="Bad file descriptor"):
            os.fstat(fd)


def test_nothing_there_is_none(pair: Pair) -> None:
    master, worker = pair
    assert master.receive_report() is None
    assert worker.receive_order() is None


def test_the_file_of_a_socket_is_closed_and_is_no_connection(tmp_path: Path) -> None:
    """With O_PATH, fstat(2) says that it is a socket, and each call for sockets fails."""
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(tmp_path / "s"))
    fd = os.open(tmp_path / "s", os.O_PATH)
    assert not linux.is_stream_socket(fd)
    linux.close_received(fd)
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(fd)


@pytest.mark.parametrize(
    ("family", "kind", "expected"),
    [
        (socket.AF_UNIX, socket.SOCK_STREAM, True),
        (socket.AF_INET6, socket.SOCK_STREAM, True),
        (socket.AF_UNIX, socket.SOCK_DGRAM, False),
        (socket.AF_UNIX, socket.SOCK_SEQPACKET, False),
        (socket.AF_NETLINK, socket.SOCK_RAW, False),
    ],
)
def test_a_connection_is_a_stream(family: int, kind: int, expected: bool) -> None:
    with socket.socket(family, kind) as sock:
        assert linux.is_stream_socket(sock.fileno()) == expected
        assert sock.fileno() >= 0
    with open(os.devnull, "rb") as null:
        assert not linux.is_stream_socket(null.fileno())
