"""Which packets stand below which system call."""

from prefork.client import SystemCall
from prefork.wire.conversations import Step
from prefork.wire.observe import Observation
from prefork.wire.packet import Packet
from tests.support.wire_packets import HANDSHAKE, c, s, talk

MS = 1_000_000


def call(name: str, at: float, seconds: float) -> SystemCall:
    """Times in milliseconds."""
    return SystemCall(name, "3", "0", at / 1000, seconds / 1000)


def blocks(calls: list[SystemCall], packets: list[Packet]) -> list[tuple[str, int]]:
    """The calls, each with the number of its packets."""
    found: list[tuple[str, int]] = []
    events = Observation(calls, talk(*packets)).events()
    steps = [event for event in events if isinstance(event, Step)]
    assert [step.packet.at for step in steps] == sorted(packet.at for packet in packets)
    for event in events:
        if isinstance(event, SystemCall):
            found.append((event.name, 0))
        else:
            name, count = found.pop()
            found.append((name, count + 1))
    return found


def at(packet: Packet, milliseconds: float) -> Packet:
    values = {name: getattr(packet, name) for name in Packet.__slots__}
    return Packet(**{**values, "at": int(milliseconds * MS)})


OPEN = [at(packet, 2 + number / 10) for number, packet in enumerate(HANDSHAKE)]


def test_the_handshake_belongs_to_connect_and_socket_sends_nothing() -> None:
    calls = [call("socket", 1, 0.5), call("connect", 1.9, 1)]
    assert blocks(calls, OPEN) == [("socket", 0), ("connect", 3)]


def test_a_syn_belongs_to_connect_whatever_the_clock_says() -> None:
    """It was set back between connect() and close()."""
    refused = [OPEN[0], s("RA", 0, 1, at=int(2.1 * MS))]
    calls = [call("connect", 1.9, 1), call("close", 1.95, 0.01)]
    assert blocks(calls, refused) == [("connect", 2), ("close", 0)]


def test_what_is_sent_and_what_is_waited_for() -> None:
    calls = [call("connect", 1.9, 1), call("sendall", 3, 0.1), call("recv", 4, 1)]
    data = [
        c("P", 1, 1, 10, at=int(3.05 * MS)),
        s("", 1, 11, at=int(3.5 * MS)),
        s("P", 1, 11, 5, at=int(4.5 * MS)),
        c("", 11, 6, at=int(4.6 * MS)),
    ]
    assert blocks(calls, OPEN + data) == [("connect", 3), ("sendall", 2), ("recv", 2)]


def test_an_answer_that_is_there_before_recv_begins_is_still_its() -> None:
    calls = [call("connect", 1.9, 1), call("sendall", 3, 0.1), call("recv", 5, 1)]
    data = [
        c("P", 1, 1, 10, at=int(3.05 * MS)),
        s("P", 1, 11, 5, at=int(4 * MS)),
        c("", 11, 6, at=int(4.1 * MS)),
    ]
    assert blocks(calls, OPEN + data) == [("connect", 3), ("sendall", 1), ("recv", 2)]


def test_each_piece_belongs_to_the_recv_that_could_return_it() -> None:
    calls = [call("connect", 1.9, 1), call("recv", 5, 1), call("recv", 6.2, 1), call("close", 8, 1)]
    moments = (5.5, 6.1, 6.5, 7.5)
    data = [s("P", 1 + 5 * n, 1, 5, at=int(at * MS)) for n, at in enumerate(moments)]
    assert blocks(calls, OPEN + data) == [("connect", 3), ("recv", 1), ("recv", 3), ("close", 0)]


def test_the_end_belongs_to_shutdown_whenever_close_was() -> None:
    calls = [call("connect", 1.9, 1), call("shutdown", 3, 0.1), call("close", 4, 0.1)]
    for moment in (3.5, 4.05, 9):
        end = [
            c("F", 1, 1, at=int(3.05 * MS)),
            s("F", 1, 2, at=int(moment * MS)),
            c("", 2, 2, at=int(moment * MS) + 1000),
        ]
        assert blocks(calls, OPEN + end) == [("connect", 3), ("shutdown", 3), ("close", 0)]


def test_a_close_that_sends_has_its_packets() -> None:
    calls = [call("connect", 1.9, 1), call("close", 4, 0.1)]
    end = [c("R", 1, 1, at=int(4.05 * MS))]
    assert blocks(calls, OPEN + end) == [("connect", 3), ("close", 1)]


def test_packets_before_any_call_are_not_lost() -> None:
    """The clock was set in between."""
    assert blocks([call("connect", 5, 1)], OPEN) == [("connect", 3)]
