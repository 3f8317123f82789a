"""What each reader of foreign bytes promises, for tests/fuzz/guided.py.

A target takes bytes, and raises AssertionError, or whatever its reader must not raise, if a promise
is broken.  Its seeds are where the search begins, beside the corpus.
"""

import contextlib
import math
import socket
from collections.abc import Callable
from http import HTTPStatus
from ipaddress import ip_address
from typing import NamedTuple

import msgspec

from prefork.apps import conditions, ranges
from prefork.channel import Channel, InvalidReportError
from prefork.control.control_messages import Command, ControlError, decode_request
from prefork.http import forwarded, proxy_protocol
from prefork.http.head_rules import Reject
from prefork.http.negotiation import accepted
from prefork.http.proxy_protocol import ProxyError
from prefork.http.queue_time import waited
from prefork.logs.access import AccessLog
from prefork.master.snapshot import (
    MasterSnapshot,
    PreflightRefused,
    SnapshotError,
    decode,
    decode_verdict,
    encode,
    encode_verdict,
)
from prefork.scoreboard import Scoreboard
from prefork.scoreboard.slot_layout import NUMBER_MAX, SLOT_SIZE, slot_offset
from prefork.worker.schedule.handover import HandoverMessage
from tests.unit.test_snapshot import a_state


class Target(NamedTuple):
    """One reader."""

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]


_FIELDS = ("FOR", "PROTO", "HOST", "PORT", "PREFIX")
_TRUSTS = forwarded.trust(["10.0.0.0/8", "2001:db8::/32"])


def _forwarded(data: bytes) -> None:
    """The lines are Forwarded, and X-Forwarded-For, -Proto, -Host, -Port and -Prefix."""
    first, *others = data.decode("latin-1").split("\n", len(_FIELDS))
    headers = {
        f"HTTP_X_FORWARDED_{name}": text for name, text in zip(_FIELDS, others, strict=False)
    }
    if first:
        headers["HTTP_FORWARDED"] = first
    try:
        said = forwarded.read(headers, _TRUSTS)
    except Reject:
        return
    if said.address is not None:
        ip_address(said.address)
    for port in (said.port, said.server_port):
        assert port is None or 0 <= int(port) < 65536
    assert said.scheme in (None, "http", "https")
    environ = {"wsgi.url_scheme": "http", "HTTP_HOST": "a.example"}
    forwarded.apply(environ, said)
    text = "".join(environ.values())
    assert not any(ord(char) < 32 for char in environ["HTTP_HOST"]), text
    assert ".." not in environ.get("SCRIPT_NAME", "").split("/")


def _proxy_header(data: bytes) -> None:
    """It reads the same at whatever byte it was cut, and takes no byte that is not its own."""
    outcomes = []
    for end in range(1, len(data) + 1):
        try:
            outcomes.append(proxy_protocol.read(data[:end]))
        except ProxyError:
            outcomes.append(None)
            break
        if outcomes[-1] is not None:
            break
    found = outcomes[-1] if outcomes else None
    try:
        whole = proxy_protocol.read(data) if data else None
    except ProxyError:
        whole = None
    assert whole == found
    if whole is not None:
        assert 0 < whole.size <= len(data)
        assert whole.size == len(outcomes)
        if whole.source is not None and whole.source[0]:
            ip_address(whole.source[0])
            assert 0 <= int(whole.source[1]) < 65536


def _ranges(data: bytes) -> None:
    """A text, for files of several sizes."""
    text = data.decode("latin-1")
    for size in (0, 1, 100, 2**40):
        found = ranges.parse(text, size)
        for first, length in found or ():
            assert 0 <= first < size
            assert 0 < length <= size - first
        assert found is None or len(found) <= 16
        assert sum(length for _, length in found or ()) <= size


_CONDITIONS = ("IF_MATCH", "IF_NONE_MATCH", "IF_MODIFIED_SINCE", "IF_UNMODIFIED_SINCE", "IF_RANGE")
_OUTCOMES = (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED, HTTPStatus.PRECONDITION_FAILED)


def _conditions(data: bytes) -> None:
    """Each line is one of the headers; an empty one is not there."""
    texts = data.decode("latin-1").split("\n")
    named = zip(_CONDITIONS, texts, strict=False)
    environ = {f"HTTP_{name}": text for name, text in named if text}
    for etag in ('"a"', '"5f5e100-2a"'):
        assert conditions.outcome(environ, etag, 1_700_000_000) in _OUTCOMES
        assert conditions.may_be_partial(environ, etag, 1_700_000_000) in (True, False)


def _codings(data: bytes) -> None:
    text = data.decode("latin-1")
    found = accepted(text, ("zstd", "gzip", "br"))
    assert len(found) == len({*found})
    assert {*found} <= {"zstd", "gzip", "br"}
    seconds = waited(text, 1.7e9)
    assert seconds is None or 0 <= seconds <= 3600


def _access_line(data: bytes) -> None:
    """A line has no control character, and no quote that a client has put there as it is."""
    lines: list[bytes] = []

    class Sink:
        def write(self, batch: bytes) -> None:
            lines.append(batch)

    for form in ("combined", "json"):
        log = AccessLog(Sink(), form, lambda _, problem: None)  # type: ignore[arg-type]
        text = data.decode("latin-1")
        environ = {"REQUEST_METHOD": "GET", "RAW_URI": text, "HTTP_USER_AGENT": text}
        log.add({**environ, "SERVER_PROTOCOL": "HTTP/1.1"}, 200, 1, 1.7e9, 0.1)
        log.flush()
    for line in lines:
        assert line.endswith(b"\n")
        assert all(32 <= byte < 127 for byte in line[:-1])
    assert isinstance(msgspec.json.decode(lines[-1]), dict)


def _control_request(data: bytes) -> None:
    with contextlib.suppress(ControlError):
        assert isinstance(decode_request(data), Command)


def _report(data: bytes) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with ours, theirs:
        theirs.send(data[:65_536])
        with contextlib.suppress(InvalidReportError, EOFError):
            assert Channel(ours).receive_report() is not None


def _handover(data: bytes) -> None:
    """What lies in an inbox, where the application of a sibling may have put it."""
    try:
        message = msgspec.msgpack.decode(data, type=HandoverMessage)
    except (ValueError, RecursionError):
        return
    assert math.isfinite(message.since)
    assert math.isfinite(message.deadline)
    assert message.served >= 0
    assert message.peer is None or isinstance(message.peer, str | bytes | tuple)


_board: list[Scoreboard] = []


def _scoreboard(data: bytes) -> None:
    """Whatever a worker has written to its slot, its readers get numbers and texts in bounds."""
    if not _board:
        _board.append(Scoreboard())
    board = _board[0]
    start = slot_offset(3)
    room = min(len(data), SLOT_SIZE)
    board.memory[start : start + room] = data[:room]
    # And where the fields of the first thread's record are.
    board.memory[start + 512 : start + 512 + room // 2] = data[: room // 2]
    stats = board.worker_stats(3)
    counters = board.counters(3, 2)
    assert all(0 <= number <= NUMBER_MAX for number in (stats.held, stats.parked, stats.reading))
    assert all(0 <= number <= NUMBER_MAX for number in counters.cells)
    for number in (stats.changed, stats.failed, counters.seconds, counters.waited):
        assert math.isfinite(number)
        assert number >= 0
    for call in board.calls(3, 2):
        assert math.isfinite(call.started)
        assert all(char.isprintable() for char in call.line + call.peer + call.id)
    assert board.requests(3, 2) >= 0
    board.is_idle(3, 1)
    assert counters.plus(counters).requests >= 0


def _snapshot(data: bytes) -> None:
    """What an old master hands over, of any version."""
    with contextlib.suppress(SnapshotError):
        assert isinstance(decode(data), MasterSnapshot)
    with contextlib.suppress(SnapshotError):
        assert decode_verdict(data) is not None


_V2 = b"\r\n\r\n\0\r\nQUIT\n"

TARGETS: dict[str, Target] = {
    "forwarded": Target(
        _forwarded,
        (
            b'for="[2001:db8::1]:80";proto=https;host="a.example", for=10.0.0.1',
            b"\n203.0.113.9, 10.0.0.1\nhttps\na.example:80\n443\n/shop",
            b"for=unknown;by=_x\n198.51.100.1:4711\nhttp, https\n[::1]:8080\n0\n/a/%2e%2e/b",
        ),
    ),
    "proxy_header": Target(
        _proxy_header,
        (
            b"PROXY TCP4 203.0.113.1 198.51.100.1 4711 443\r\n",
            b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\nGET /",
            b"PROXY UNKNOWN whatever\r\n",
            _V2 + b"\x21\x11\x00\x0c\xcb\x00\x71\x01\xc6\x33\x64\x01\x12\x67\x01\xbb",
            _V2 + b"\x20\x00\x00\x00",
            _V2 + b"\x21\x21\x00\x24" + bytes(36),
        ),
    ),
    "ranges": Target(_ranges, (b"bytes=0-0,-1", b"bytes=5-", b"BYTES= 1-2 ,, 3-", b"items=0-1")),
    "conditions": Target(
        _conditions,
        (
            b'"a", W/"b"\n*\nTue, 14 Nov 2023 22:13:20 GMT\nSunday, 06-Nov-94 08:49:37 GMT\n"a"',
            b'\nW/"a"\nSun Nov  6 08:49:37 1994\n\nTue, 14 Nov 2023 22:13:20 GMT',
        ),
    ),
    "codings": Target(_codings, (b"gzip;q=0.5, *;q=0", b"x-gzip, identity", b"t=1700000000.123")),
    "access_line": Target(_access_line, (b'/a"b\\c\x00\xff', b"/plain")),
    "control_request": Target(
        _control_request,
        (
            b'{"v":1,"command":"scale","args":{"count":4}}',
            b'{"v":1,"command":"status","args":{}}',
            b'{"v":2,"command":"stop"}',
            b'{"v":1,"command":"stop","args":' + b"[" * 3000,
        ),
    ),
    "report": Target(
        _report,
        (
            b'{"type":"ready"}',
            b'{"type":"born","pid":7}',
            b'{"type":"failed","why":"no module"}',
            b'{"type":"crowded","slot":3}',
            b'{"type":"ready","more":' + b"[" * 3000,
        ),
    ),
    "handover": Target(
        _handover,
        tuple(
            msgspec.msgpack.encode(HandoverMessage(*fields))
            for fields in (
                (1, ("127.0.0.1", 80), ("", ""), b"", 1.5, 0.0, False, False),
                (1, None, ("::1", "80"), b"GET / HTTP/1.1\r\n", 1.5, 9.5, True, True, 3, 1),
            )
        ),
    ),
    "scoreboard": Target(_scoreboard, (bytes(1536), b"\xff" * 1536, b"\x01" + bytes(700))),
    "snapshot": Target(
        _snapshot,
        (
            encode(a_state()),
            encode_verdict(PreflightRefused("no such module")),
            b"\x91" * 3000,
            b"\x83\xa4more" + b"\x91" * 3000,
        ),
    ),
}
