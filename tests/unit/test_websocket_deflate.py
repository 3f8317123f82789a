"""permessage-deflate, by the sections of RFC 7692."""

import zlib

import pytest

from prefork.websocket.message_deflate import (
    MessageDeflater,
    MessageInflater,
    accept_offer,
    parse_extensions,
)
from tests.support.websocket_frames import FRESH, TAKEOVER, client_frame, fragments, frames_read

HELLO = bytes.fromhex("f248cdc9c90700")  # section 7.2.3.1
AGAIN = bytes.fromhex("f200110000")  # section 7.2.3.2


def deflated(data: bytes) -> bytes:
    coder = zlib.compressobj(wbits=-15)
    return (coder.compress(data) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]


@pytest.mark.parametrize(
    ("offer", "answer"),
    [
        ("permessage-deflate", "permessage-deflate; server_max_window_bits=12"),
        (
            "permessage-deflate; client_max_window_bits",
            "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12",
        ),
        (
            'permessage-deflate; client_max_window_bits="9"; server_max_window_bits=10',
            "permessage-deflate; server_max_window_bits=10; client_max_window_bits=9",
        ),
        (
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover",
            "permessage-deflate; server_no_context_takeover; client_no_context_takeover; "
            "server_max_window_bits=12",
        ),
        (  # what zlib cannot do is declined, and the next offer is looked at
            "permessage-deflate; server_max_window_bits=8, , permessage-deflate",
            "permessage-deflate; server_max_window_bits=12",
        ),
        ("x-webkit-deflate-frame", None),
        ("permessage-deflate; unknown", None),
        ("permessage-deflate; server_max_window_bits", None),
        ("permessage-deflate; server_max_window_bits=16", None),
        ("permessage-deflate; server_max_window_bits=09", None),
        ("permessage-deflate; server_no_context_takeover=1", None),
        ("permessage-deflate; client_max_window_bits; client_max_window_bits", None),
        ("", None),
    ],
)
def test_an_offer_is_accepted_or_declined(offer: str, answer: str | None) -> None:
    accepted = accept_offer(parse_extensions(offer))
    assert (accepted and accepted.response) == answer


@pytest.mark.parametrize("header", ["a b", "a;", ";a", "a; b=", 'a; b="c', 'a; b=""', "a=b", "é"])
def test_what_is_no_list_of_extensions(header: str) -> None:
    with pytest.raises(ValueError, match="Sec-WebSocket-Extensions"):
        parse_extensions(header)


def test_examples_of_section_7_2_3() -> None:
    hello = client_frame(1, HELLO, rsv=4)
    assert frames_read([hello], deflate=TAKEOVER) == ["Hello"]
    assert frames_read([fragments(1, HELLO[:3], HELLO[3:], rsv=4)], deflate=TAKEOVER) == ["Hello"]
    assert frames_read([hello, client_frame(1, AGAIN, rsv=4)], deflate=TAKEOVER) == ["Hello"] * 2
    stored = bytes.fromhex("000500faff48656c6c6f00")  # 7.2.3.3, a block without compression
    assert frames_read([client_frame(1, stored, rsv=4)], deflate=TAKEOVER) == ["Hello"]
    final = bytes.fromhex("f348cdc9c9070000")  # 7.2.3.4, a block with BFINAL
    assert frames_read([client_frame(1, final, rsv=4)] * 3, deflate=TAKEOVER) == ["Hello"] * 3
    two = bytes.fromhex("f248050000 00ffffcac9c90700")  # 7.2.3.5, two blocks
    assert frames_read([client_frame(1, two, rsv=4)], deflate=TAKEOVER) == ["Hello"]


def test_a_message_may_be_sent_as_it_is() -> None:
    data = client_frame(1, b"plain") + client_frame(1, HELLO, rsv=4) + client_frame(2, b"\xff")
    assert frames_read([data], deflate=TAKEOVER) == ["plain", "Hello", b"\xff"]


def test_without_context_takeover_a_window_does_not_outlive_its_message() -> None:
    data = client_frame(1, HELLO, rsv=4) + client_frame(1, AGAIN, rsv=4)
    assert frames_read([data], deflate=FRESH) == ["Hello", 1007]


@pytest.mark.parametrize(
    ("payload", "code"),
    [(b"\xff\xff\xff", 1007), (deflated(b"\xff"), 1007), (b"\x03\x00" * 1000, 1007)],
    ids=["no deflate", "no UTF-8", "a thousand streams"],
)
def test_what_cannot_be_inflated(payload: bytes, code: int) -> None:
    assert frames_read([client_frame(1, payload, rsv=4)], deflate=TAKEOVER) == [code]


def test_only_the_first_frame_of_a_data_message_is_marked() -> None:
    ping = client_frame(9, b"p", rsv=4)
    assert frames_read([ping], deflate=TAKEOVER) == [1002]
    twice = client_frame(1, HELLO, rsv=4, fin=False) + client_frame(0, b"", rsv=4)
    assert frames_read([twice], deflate=TAKEOVER) == [1002]


@pytest.mark.parametrize("extra", [0, 1])
def test_the_bound_is_that_of_the_inflated_message(extra: int) -> None:
    data = client_frame(2, deflated(b"x" * (5000 + extra)), rsv=4)
    expected = [1009] if extra else [b"x" * 5000]
    assert frames_read([data], 5000, TAKEOVER) == expected
    assert frames_read([data[at : at + 1] for at in range(len(data))], 5000, TAKEOVER) == expected


def test_a_bomb_is_inflated_to_its_bound_and_no_further() -> None:
    bomb = deflated(bytes(64 << 20))
    inflater = MessageInflater(15, True)
    assert len(inflater.inflate(bomb, 1000, last=True)) == 1001
    assert frames_read([client_frame(2, bomb, rsv=4)], 1 << 20, TAKEOVER) == [1009]
    # A bomb of many fragments, each of which is within the bound.
    piece = deflated(bytes(1 << 19)) + b"\x00\x00\xff\xff"
    assert frames_read([fragments(2, piece, piece, piece, rsv=4)], 1 << 20, TAKEOVER) == [1009]


@pytest.mark.parametrize("takeover", [True, False])
@pytest.mark.parametrize("bits", [9, 12, 15])
def test_messages_of_ours_are_inflated(bits: int, takeover: bool) -> None:
    deflater, inflater = MessageDeflater(bits, takeover), MessageInflater(bits, takeover)
    for message in (b"a" * 10, b"", bytes(range(256)) * 400, b"a" * 100_000, b"ab" * 500):
        data = deflater.compress(message)
        assert inflater.inflate(data, 1 << 20, last=True) == message


def test_a_window_makes_the_next_message_small() -> None:
    message = bytes(range(200))
    kept, fresh = MessageDeflater(12, True), MessageDeflater(12, False)
    assert len(kept.compress(message)) == len(fresh.compress(message))
    assert len(kept.compress(message)) < len(fresh.compress(message)) / 5
