"""Whatever a child sends, the master gets a report or an InvalidReportError, and keeps no file."""

import array
import contextlib
import os
import socket
from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from prefork.channel import (
    BornReport,
    Channel,
    InvalidReportError,
    Report,
)

TAGS = (
    "born",
    "ready",
    "terminated",
    "leaving",
    "reopened",
    "crowded",
    "failed",
    "fork",
    "serve",
    "other",
)

json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
objects = st.fixed_dictionaries(
    {"type": st.sampled_from(TAGS) | json_values},
    optional={
        "pid": json_values,
        "why": json_values,
        "slot": json_values,
        "number": json_values,
        "more": json_values,
    },
)


def encoded(value: object) -> bytes:
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:  # a lone surrogate
        return b"\xff"


def nested(opening: bytes, depth: int, first: bytes) -> bytes:
    return (first + opening * depth)[:65_536]


packets = st.one_of(
    st.binary(min_size=1, max_size=300),
    st.builds(encoded, objects),
    # Cut, or with bytes changed.
    st.builds(lambda text, end: encoded(text)[: end + 1], objects, st.integers(0, 200)),
    st.builds(
        nested,
        st.sampled_from([b"[", b'{"a":', b'[{"type":', b'{"type":']),
        st.integers(0, 60_000),
        st.sampled_from([b"", b'{"type":"ready","more":', b'{"type":"failed","why":']),
    ),
)


@given(packet=packets, descriptors=st.integers(0, 253))
@example(packet=b"[" * 65_536, descriptors=0)
@example(packet=b'{"type":"born","pid":1099511627776}', descriptors=3)
def test_a_packet_is_a_report_or_invalid(packet: bytes, descriptors: int) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        channel = Channel(ours)
        before = set(os.listdir("/proc/self/fd"))
        rights = array.array("i", [ours.fileno()] * descriptors)
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)] if descriptors else []
        theirs.sendmsg([packet], ancillary)
        with contextlib.suppress(InvalidReportError, EOFError):  # an empty packet is the end
            report = channel.receive_report()
            assert isinstance(report, Report)
            if isinstance(report, BornReport):
                assert 0 < report.pid < 2**31
        assert before.issuperset(
            os.listdir("/proc/self/fd")
        )  # the collector may have closed others
