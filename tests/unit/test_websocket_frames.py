"""Frames of a client, by the sections of RFC 6455."""

import pytest

from prefork.websocket.frame_reader import (
    TABLE,
    CloseFrame,
    FrameReader,
    MessageState,
    PingFrame,
    PongFrame,
    Received,
)
from prefork.websocket.frame_writer import close_frame, frame
from prefork.websocket.masking import masked, masked_in_python
from tests.support.websocket_frames import MASK, client_frame, fragments, frames_read

MESSAGES: dict[str, tuple[bytes, list[Received]]] = {
    "5.7: a masked text": (bytes.fromhex("818537fa213d7f9f4d5158"), ["Hello"]),
    "5.6: an empty text": (client_frame(1), [""]),
    "5.6: an empty binary message": (client_frame(2), [b""]),
    "5.6: binary data": (client_frame(2, b"\0\xff" * 100), [b"\0\xff" * 100]),
    "5.2: 125 bytes": (client_frame(2, b"x" * 125), [b"x" * 125]),
    "5.2: 126 bytes": (client_frame(2, b"x" * 126), [b"x" * 126]),
    "5.2: 65535 bytes": (client_frame(2, b"x" * 65535), [b"x" * 65535]),
    "5.2: 65536 bytes": (client_frame(2, b"x" * 65536), [b"x" * 65536]),
    "5.4: two fragments": (fragments(1, b"Hel", b"lo"), ["Hello"]),
    "5.4: fragments that are empty": (fragments(2, b"", b"a", b"", b"b", b""), [b"ab"]),
    "5.4: a ping between fragments": (
        client_frame(1, b"a", fin=False) + client_frame(9, b"p") + client_frame(0, b"b"),
        [PingFrame(b"p"), "ab"],
    ),
    "5.5.2: a ping of 125 bytes": (client_frame(9, b"p" * 125), [PingFrame(b"p" * 125)]),
    "5.5.3: a pong unasked for": (client_frame(10, b"p"), [PongFrame(b"p")]),
    "5.5.1: a close without a code": (client_frame(8), [CloseFrame(1005, "")]),
    "5.5.1: a close with a reason": (
        client_frame(8, b"\x03\xe8bye \xc3\xa9"),
        [CloseFrame(1000, "bye é")],
    ),
    "5.5.1: nothing is read after a close": (
        client_frame(8) + client_frame(1, b"a") + b"\xff\xff",
        [CloseFrame(1005, "")],
    ),
    "8.1: a character cut by a fragment": (fragments(1, b"\xe2\x82", b"\xac"), ["€"]),
}

VIOLATIONS = {
    "5.1: no mask": (b"\x81\x05Hello", 1002),
    "5.2: RSV1 without an extension": (client_frame(1, b"a", rsv=4), 1002),
    "5.2: RSV2": (client_frame(1, b"a", rsv=2), 1002),
    "5.2: RSV3": (client_frame(9, b"a", rsv=1), 1002),
    "5.2: 16 bits for a short length": (b"\x82\xfe\x00\x7d" + MASK, 1002),
    "5.2: 64 bits for a short length": (b"\x82\xff" + bytes(6) + b"\xff\xff" + MASK, 1002),
    "5.2: the highest bit of a length": (b"\x82\xff\x80" + bytes(7) + MASK, 1002),
    "5.4: a continuation of nothing": (client_frame(0, b"a"), 1002),
    "5.4: a text within a message": (client_frame(2, b"a", fin=False) + client_frame(1), 1002),
    "5.5: a long ping": (client_frame(9, b"p" * 126), 1002),
    "5.5: a fragmented ping": (client_frame(9, b"p", fin=False), 1002),
    "5.5.1: half a code": (client_frame(8, b"\x03"), 1002),
    "5.5.1: a reason that is not UTF-8": (client_frame(8, b"\x03\xe8\xff"), 1007),
    "8.1: a byte that is not UTF-8": (client_frame(1, b"a\xff"), 1007),
    "8.1: a surrogate": (client_frame(1, b"\xed\xa0\x80"), 1007),
    "8.1: a text that ends within a character": (client_frame(1, b"\xe2\x82"), 1007),
    "8.1: the same in fragments": (fragments(1, b"\xe2", b"\x82"), 1007),
}
VIOLATIONS |= {f"5.2: opcode {opcode}": (client_frame(opcode), 1002) for opcode in (3, 7, 11, 15)}
VIOLATIONS |= {
    f"7.4.1: code {code}": (client_frame(8, code.to_bytes(2, "big")), 1002)
    for code in (0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
}


@pytest.mark.parametrize("name", MESSAGES)
def test_frames_are_read(name: str) -> None:
    data, expected = MESSAGES[name]
    assert frames_read([data]) == expected
    assert frames_read([data[place : place + 1] for place in range(len(data))]) == expected


@pytest.mark.parametrize("name", VIOLATIONS)
def test_what_is_not_allowed_ends_the_connection(name: str) -> None:
    data, code = VIOLATIONS[name]
    good = client_frame(1, b"before")
    assert frames_read([good + data + good]) == ["before", code]
    assert frames_read([data[place : place + 1] for place in range(len(data))]) == [code]


@pytest.mark.parametrize(
    "code", [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
)
def test_codes_that_a_client_may_send(code: int) -> None:
    data = client_frame(8, code.to_bytes(2, "big"))
    assert frames_read([data]) == [CloseFrame(code, "")]


@pytest.mark.parametrize(
    ("data", "needed"),
    [
        (client_frame(1, b"a\xff" + b"b" * 100), 8),
        (b"\x81\xff" + bytes(4) + b"\x7f\xff\xff\xff", 10),  # 2 GiB
        (b"\x83", 1),
    ],
    ids=["text in the middle of a frame", "a length beyond the bound", "an opcode"],
)
def test_a_violation_is_found_at_once(data: bytes, needed: int) -> None:
    code = frames_read([data[:needed]], max_message=1000)
    assert len(code) == 1
    assert frames_read([data[: needed - 1]], max_message=1000) == []


def test_a_message_has_a_bound() -> None:
    exact = client_frame(2, b"x" * 100)
    assert frames_read([exact, exact], max_message=100) == [b"x" * 100] * 2
    assert frames_read([client_frame(2, b"x" * 101)], max_message=100) == [1009]
    assert frames_read([fragments(2, b"x" * 60, b"x" * 40)], max_message=100) == [b"x" * 100]
    assert frames_read([fragments(2, b"x" * 60, b"x" * 41)], max_message=100) == [1009]
    assert frames_read([fragments(1, b"\xc3\xa9" * 30, b"x" * 41)], max_message=100) == [1009]


def test_one_thing_is_read_at_a_time() -> None:
    reader = FrameReader(0)
    assert reader.next(client_frame(1, b"one") + client_frame(1, b"two")) == "one"
    assert reader.held == len(client_frame(1, b"two"))
    assert reader.next() == "two"
    assert reader.held == 0


def test_what_is_kept_of_fragments_is_their_bytes() -> None:
    reader = FrameReader(0)
    data = client_frame(2, b"x", fin=False) + client_frame(0, b"x", fin=False) * 1000
    assert reader.next(data) is None
    assert reader.held == 1001


def test_the_table_has_a_row_for_each_state_that_reads() -> None:
    assert set(TABLE) == set(MessageState) - {MessageState.ENDED}
    for state, row in TABLE.items():
        for byte, rule in enumerate(row):
            if rule.problem:
                assert rule.next is MessageState.ENDED
            elif rule.opcode > 8:
                assert rule.next is state, f"byte {byte} in {state}"


@pytest.mark.parametrize("size", [0, 1, 3, 4, 5, 125, 1023, 1024, 1027, 70_000])
def test_the_mask_is_the_same_in_python_and_in_c(size: int) -> None:
    data = bytes(range(256)) * (size // 256 + 1)
    expected = bytes(byte ^ MASK[place % 4] for place, byte in enumerate(data[:size]))
    assert masked_in_python(data[:size], MASK) == expected
    assert masked(data[:size], MASK) == expected


def test_frames_of_the_server() -> None:
    assert frame(1, b"Hello") == b"\x81\x05Hello"  # section 5.7
    assert frame(2, b"x" * 256)[:4] == b"\x82\x7e\x01\x00"
    assert frame(2, b"x" * 65536)[:10] == b"\x82\x7f\x00\x00\x00\x00\x00\x01\x00\x00"
    assert close_frame(1000, "bye") == b"\x88\x05\x03\xe8bye"
    assert close_frame(1005) == b"\x88\x00"
    cut = close_frame(1000, "é" * 100)
    assert len(cut) <= 127
    assert cut[4:].decode() == "é" * 61
