"""What each packet of a conversation means, and how its numbers count."""

import pytest

from prefork.wire.conversations import Conversations
from prefork.wire.packet import Endpoint, Flags, Packet
from tests.support.wire_packets import CLIENT, HANDSHAKE, SERVER, c, meanings, s, talk

OPEN = ["handshake 1 of 3: asks", "handshake 2 of 3: agreed", "handshake 3 of 3: open"]


def after_handshake(*packets: Packet) -> list[str]:
    """Their meanings."""
    found = meanings(*HANDSHAKE, *packets)
    assert found[:3] == OPEN
    return found[3:]


# From the handshake to the end


def test_a_whole_conversation() -> None:
    steps = talk(
        *HANDSHAKE,
        c("P", 1, 1, 80),
        s("", 1, 81),
        s("P", 1, 81, 120),
        c("", 81, 121),
        c("F", 81, 121),
        s("F", 121, 82),
        c("", 82, 122),
    )
    assert [step.meaning for step in steps[3:]] == [
        "data",
        "acknowledged",
        "data",
        "acknowledged",
        "end: the client has no more to send",
        "end: the server has no more to send either",
        "end acknowledged: closed",
    ]
    assert [step.from_client for step in steps] == [
        *(True, False, True),
        *(True, False, False, True, True, False, True),
    ]
    connection = steps[0].connection
    assert (connection.client, connection.server) == (CLIENT, SERVER)
    assert connection.ended


def test_a_connection_has_ended_only_when_both_ends_are_acknowledged() -> None:
    steps = []
    conversations = Conversations(8000)
    for packet in [*HANDSHAKE, c("F", 1, 1), s("", 1, 2), s("F", 1, 2), c("", 2, 2)]:
        step = conversations.add(packet)
        assert step is not None
        steps.append((step.meaning, step.connection.ended))
    assert steps[3:] == [
        ("end: the client has no more to send", False),
        ("end acknowledged", False),
        ("end: the server has no more to send either", False),
        ("end acknowledged: closed", True),
    ]


def test_the_last_acknowledgement_may_be_the_servers() -> None:
    assert after_handshake(s("F", 1, 1), c("F", 1, 2), s("", 2, 2)) == [
        "end: the server has no more to send",
        "end: the client has no more to send either",
        "end acknowledged: closed",
    ]


def test_the_end_may_come_with_the_last_data() -> None:
    assert after_handshake(s("FP", 1, 1, 10)) == ["data, end: the server has no more to send"]


def test_numbers_count_from_0_and_past_the_end_of_32_bits() -> None:
    steps = talk(*HANDSHAKE, c("P", 1, 1, 80), s("P", 1, 81, 5))
    assert [(step.seq, step.ack) for step in steps] == [(0, None), (0, 1), (1, 1), (1, 1), (1, 81)]


def test_numbers_go_on_past_4_gib() -> None:
    size = 2**30
    numbers = range(1, 6 * size, size)
    steps = talk(*HANDSHAKE, *(s("", number, 1, size) for number in numbers))
    assert [step.seq for step in steps[3:]] == list(numbers)
    assert {step.meaning for step in steps[3:]} == {"data"}


def test_times_are_since_the_last_packet_of_the_same_connection() -> None:
    other = Endpoint("127.0.0.1", 50001)
    steps = talk(
        c("S", 0, at=1000),
        c("S", 0, at=1500, client=other),
        s("S", 0, 1, at=1700),
        s("S", 0, 1, at=1800, client=other),
    )
    assert [step.since for step in steps] == [0, 0, 700, 300]
    assert [step.connection.number for step in steps] == [1, 2, 1, 2]


# Resets


def test_refused() -> None:
    assert meanings(c("S", 0), s("R", 0, 1)) == [OPEN[0], "refused: nobody listens on this port"]


def test_cut_off() -> None:
    steps = talk(*HANDSHAKE, c("P", 1, 1, 80), s("R", 1, 81))
    assert steps[-1].meaning == "reset: cut off, what was not delivered is lost"
    assert steps[-1].connection.ended


def test_data_for_one_that_has_closed() -> None:
    assert after_handshake(s("F", 1, 1), c("P", 1, 2, 80), s("R", 2)) == [
        "end: the server has no more to send",
        "data",
        "reset: this side has closed, and reads no more",
    ]


def test_a_client_may_reset_too() -> None:
    assert after_handshake(c("R", 1, 1)) == ["reset: cut off, what was not delivered is lost"]


# What goes wrong on the way


def test_what_gets_no_answer_is_sent_again() -> None:
    assert meanings(c("S", 0), c("S", 0), s("S", 0, 1), s("S", 0, 1)) == [
        OPEN[0],
        "handshake 1 of 3 again: no answer yet",
        OPEN[1],
        "handshake 2 of 3 again: no third yet",
    ]
    data, end = c("P", 1, 1, 80), c("F", 81, 1)
    assert after_handshake(data, data, end, end) == [
        "data",
        "data again: not acknowledged in time",
        "end: the client has no more to send",
        "end again: not acknowledged in time",
    ]


def test_a_gap_its_acknowledgement_and_its_filling() -> None:
    steps = talk(
        *HANDSHAKE,
        s("", 1, 1, 100),
        s("", 201, 1, 100),
        c("", 1, 101, sack=((201, 301),)),
        s("", 101, 1, 100),
        c("", 1, 301),
    )
    assert [step.meaning for step in steps[3:]] == [
        "data",
        "data after a gap of 100 bytes",
        "acknowledged again: a gap",
        "data: fills the gap",
        "acknowledged",
    ]
    assert steps[5].sack == ((201, 301),)


def test_a_full_receiver() -> None:
    assert after_handshake(
        s("", 1, 1, 100),
        c("", 1, 101, window=0),
        c("", 1, 101, window=50),
        c("", 1, 101, window=60),
    ) == ["data", "full: send no more for now", "room again: go on", "room has changed"]


def test_the_same_acknowledgement_again() -> None:
    assert after_handshake(s("", 1, 1, 9), c("", 1, 10), c("", 1, 10))[1:] == [
        "acknowledged",
        "acknowledged again",
    ]


@pytest.mark.parametrize("length", [0, 1])
def test_a_keep_alive_probe_and_its_answer(length: int) -> None:
    data = c("P", 1, 1, 10), s("", 1, 11)
    assert after_handshake(*data, c("", 10, 1, length), s("", 1, 11))[2:] == [
        "probe: still there?",
        "still there",
    ]


def test_data_with_the_third_packet_of_the_handshake() -> None:
    assert meanings(c("S", 0), s("S", 0, 1), c("P", 1, 1, 80))[2] == (
        "handshake 3 of 3: open, and data"
    )


def test_a_packet_with_no_flag_at_all() -> None:
    assert after_handshake(c("", 1)) == ["nothing that TCP knows"]


# Who is who


def test_a_capture_may_begin_in_the_middle() -> None:
    steps = talk(s("P", 5000, 300, 10), c("", 300, 5010), c("P", 300, 5010, 7))
    assert [step.from_client for step in steps] == [False, True, True]
    assert [(step.seq, step.ack) for step in steps] == [(1, 1), (1, 11), (1, 11)]
    assert [step.meaning for step in steps] == ["data", "acknowledged", "data"]


def test_a_capture_may_begin_with_the_second_packet_of_the_handshake() -> None:
    steps = talk(s("S", 0, 1), c("", 1, 1))
    assert [step.from_client for step in steps] == [False, True]
    assert [step.meaning for step in steps] == OPEN[1:]


def test_without_a_port_the_lower_one_is_the_servers() -> None:
    (step,) = talk(s("P", 5000, 300, 10), port=None)
    assert not step.from_client


def test_the_port_that_was_asked_for_is_the_servers_even_if_it_is_the_higher() -> None:
    low = Endpoint("127.0.0.1", 80)
    (step,) = talk(s("P", 5000, 300, 10, client=low))
    assert not step.from_client


def test_the_same_ports_can_make_another_connection() -> None:
    again = c("S", 5000)
    steps = talk(*HANDSHAKE, c("R", 1, 1), again, s("R", 0, 5001))
    assert [step.connection.number for step in steps] == [1, 1, 1, 1, 2, 2]
    assert [step.meaning for step in steps[4:]] == [OPEN[0], "refused: nobody listens on this port"]
    assert steps[4].seq == 0


def test_a_packet_that_passes_several_interfaces_is_taken_on_the_first() -> None:
    steps = talk(
        c("S", 0, interface="docker0"),
        c("S", 0, interface="veth1"),
        s("S", 0, 1, interface="veth1"),
        s("S", 0, 1, interface="docker0"),
    )
    assert [step.packet.interface for step in steps] == ["docker0", "docker0"]
    assert [step.meaning for step in steps] == OPEN[:2]


def test_the_number_of_remembered_connections_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("prefork.wire.conversations._REMEMBERED", 2)
    conversations = Conversations(8000)
    clients = [Endpoint("127.0.0.1", 50000 + number) for number in range(3)]
    for client in clients:
        conversations.add(c("S", 0, client=client))
    numbers = [conversations.add(s("S", 0, 1, client=client)) for client in reversed(clients)]
    assert [step and step.connection.number for step in numbers] == [3, 2, 4]


def test_flags_of_the_helpers() -> None:
    assert s("S", 0, 1).flags == Flags.SYN | Flags.ACK
