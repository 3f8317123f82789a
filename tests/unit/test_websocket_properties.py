"""Any frames, cut anywhere, are read as they are whole, and as websockets and wsproto read them."""

from collections import Counter
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefork.websocket.websocket_session import TABLE, SessionState, WebSocketSession
from tests.fuzz.websocket import checked, compare, explained
from tests.support.websocket_frames import TAKEOVER, client_frame, frames_read
from tests.support.websocket_peers import Reading
from tests.unit.reading import cut, pieces_of

frames = st.builds(
    client_frame,
    st.sampled_from([0, 1, 1, 2, 2, 8, 9, 10, 3]),
    st.one_of(st.binary(max_size=300), st.text(max_size=100).map(str.encode)),
    fin=st.booleans(),
    rsv=st.sampled_from([0, 0, 0, 0, 4, 1]),
    mask=st.binary(min_size=4, max_size=4),
)
streams = st.lists(st.one_of(frames, frames, frames, st.binary(max_size=5)), max_size=8).map(
    b"".join
)
cuts = st.lists(st.integers(0, 2_000), max_size=8)


@given(streams, cuts, st.sampled_from([0, 50, 1000]))
@settings(max_examples=500, deadline=None)
def test_frames_cut_anywhere_are_read_as_they_are_whole(
    data: bytes, places: list[int], most: int
) -> None:
    whole = frames_read([data], most)
    assert frames_read(cut(data, places), most) == whole
    assert frames_read(pieces_of(data, 1), most) == whole


@given(streams, cuts)
@settings(max_examples=300, deadline=None)
def test_compressed_or_not_any_bytes_are_read_or_refused(data: bytes, places: list[int]) -> None:
    for pieces in ([data], cut(data, places)):
        assert len([each for each in frames_read(pieces, 100, TAKEOVER) if type(each) is int]) <= 1


@given(streams)
@settings(max_examples=500, deadline=None)
def test_others_read_the_same(data: bytes) -> None:
    assert not compare(data, Counter(), deflate=False)


@pytest.mark.parametrize("seed", range(5))
def test_inputs_of_the_fuzzer(seed: int) -> None:
    rng, report = Random(seed), Counter[str]()
    for _ in range(200):
        assert not checked(rng, report), f"seed {seed}"


def test_a_difference_is_seen() -> None:
    assert not explained(Reading(["a"], False), Reading(["b"], False))
    assert not explained(Reading(["a"], False), Reading([], False))
    assert not explained(Reading([], False), Reading(["a"], True))


@given(st.lists(st.one_of(frames, st.sampled_from([b"close", b"send"])), max_size=8))
@settings(max_examples=300, deadline=None)
def test_a_session_keeps_to_its_table(steps: list[bytes]) -> None:
    session = WebSocketSession(1000, TAKEOVER)
    closes = 0
    order = list(SessionState)
    for step in steps:
        before = session.state
        sends = TABLE[before].sends
        if step == b"close":
            closes += bool(session.begin_close(1000))
        elif step == b"send":
            assert session.text("a" * 100)
        else:
            message = session.next(step)
            while message is not None:
                assert TABLE[session.state].delivers
                message = session.next()
            replies = session.take_replies()
            assert sends or not replies
            closes += replies.count(b"\x88", 0, 1) if session.state is not before else 0
        assert order.index(session.state) >= order.index(before)
    assert closes <= 1
