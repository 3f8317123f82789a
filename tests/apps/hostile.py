"""A worker that an attacker controls: it sends the master what the query says."""

import array
import contextlib
import fcntl
import math
import os
import random
import select
import socket
import struct
import sys
import tempfile
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

import msgspec

PACKETS = {
    "deep": b"[" * 60_000,
    "nested": b'{"type":"ready","more":' + b"[" * 60_000,
    "pid": b'{"type":"born","pid":1099511627776}',
    "bytes": bytes(range(256)) * 100,
    "unknown": b'{"type":"obey"}',
}
"""No reports, each in a way of its own."""

REPORTS = {
    "ready": b'{"type":"ready"}',
    "failed": b'{"type":"failed","why":"\\u001b[31mno\\u009b2J"}',
    "crowded": b'{"type":"crowded"}',
}
"""Reports that the master knows, at the wrong time."""


def packet_sockets() -> Iterator[socket.socket]:
    """Copies of this process's SOCK_SEQPACKET sockets but its channel: the inboxes."""
    with channel() as sock:
        own = os.fstat(sock.fileno()).st_ino
    for name in sorted(os.listdir("/proc/self/fd"), key=int):
        try:
            sock = socket.socket(fileno=os.dup(int(name)))
        except OSError:
            continue  # closed meanwhile, or no socket
        packets = sock.family == socket.AF_UNIX and sock.type == socket.SOCK_SEQPACKET
        if packets and os.fstat(sock.fileno()).st_ino != own:
            yield sock
        else:
            sock.close()


def channel() -> socket.socket:
    """A copy of this worker's end of its channel, found as its own code has it."""
    return socket.socket(fileno=os.dup(_args().channel.fileno()))


def _args() -> Any:
    frame = sys._getframe()
    while frame.f_code.co_name != "run_worker":
        assert frame.f_back is not None
        frame = frame.f_back
    return frame.f_locals["args"]


def lingering_socket() -> int:
    """A TCP socket with data that its peer never reads, and an hour's SO_LINGER."""
    listener = socket.create_server(("127.0.0.1", 0))
    sock = socket.create_connection(listener.getsockname())
    _peers.append(listener.accept()[0])
    sock.setblocking(False)
    try:
        while True:
            sock.send(bytes(65_536))
    except BlockingIOError:
        pass
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 3600))
    return sock.detach()


_peers: list[socket.socket] = []


def send_descriptors(sock: socket.socket, data: bytes, fds: list[int]) -> None:
    rights = array.array("i", fds)
    try:
        sock.sendmsg([data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)])
    except PermissionError:
        return  # the kernel refuses them: SO_PASSRIGHTS; to close them here would block us
    for fd in fds:
        os.close(fd)


def flood(sock: socket.socket, data: bytes, count: int) -> None:
    for _ in range(count):
        select.select([], [sock], [])  # its file status flags are shared with the worker's own code
        with contextlib.suppress(BlockingIOError):
            sock.send(data, socket.MSG_DONTWAIT)


def break_stacks() -> None:
    """Does to the descriptors of the stacks what could block the master, or fail in it."""
    for name in os.listdir("/proc/self/fd"):
        fd = int(name)
        try:
            if "prefork-stacks" in os.readlink(f"/proc/self/fd/{fd}"):
                fcntl.fcntl(fd, fcntl.F_SETFL, os.O_NONBLOCK)
                os.ftruncate(fd, 1 << 40)
                os.pwrite(fd, b"\x1b]0;title\x07\xc2\x9b2J\xff in <module>\n", 0)
        except FileNotFoundError:
            continue


def truncate_scoreboard() -> None:
    """Does what it can to make the master read beyond the end of shared memory."""
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            if "prefork-scoreboard" in os.readlink(f"/proc/self/fd/{name}"):
                os.ftruncate(int(name), 0)


truncate_scoreboard()


def path_of_a_socket() -> int:
    """A descriptor of a Unix socket's file, opened with O_PATH: fstat(2) takes it for a socket."""
    with tempfile.TemporaryDirectory() as place, socket.socket(socket.AF_UNIX) as sock:
        sock.bind(f"{place}/s")
        return os.open(f"{place}/s", os.O_PATH)


STRANGE: tuple[object, ...] = (
    *(None, True, 0, -1, 2**63 - 1, 2**64 - 1, -(2**63), math.nan, math.inf, -math.inf, 1e308),
    *("", "x" * 1000, "\x1b[2J", b"", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\xff" * 1000),
    *([], [1], ["a", 5], ["a", 5, 6], [1, 2, 3, 4], ["::1", 1, 2, 3], {}, {"a": 1}, [[[[]]]]),
)


def strange_messages(seed: int) -> Iterator[bytes]:
    """Messages of a handover with values that no worker would write."""
    generator = random.Random(seed)
    with listeners()[0] as listener:
        inode = os.fstat(listener.fileno()).st_ino
    while True:
        message: list[object] = [inode, ["127.0.0.1", 1], ["", ""], b"", 1.0, 0.0]
        message += [generator.random() < 0.5, False, 0, 0]
        for _ in range(generator.randrange(1, 4)):
            message[generator.randrange(1, 10)] = generator.choice(STRANGE)
        yield msgspec.msgpack.encode(message)


SOCKETS = (
    lambda: socket.socketpair()[0],
    lambda: socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM),
    lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM),
    lambda: socket.create_server(("127.0.0.1", 0)),
    lambda: socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)[0],
    lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW),
)
"""Sockets of all kinds, few of which are connections."""


def listeners() -> list[socket.socket]:
    """Copies of this worker's listeners."""
    return [sock.dup() for sock in (each.sock for each in _args().listeners)]


def random_packet(seed: int) -> bytes:
    """A report, damaged: cut, with other bytes, values or names, or repeated in itself."""
    generator = random.Random(seed)
    data = bytearray(generator.choice([*REPORTS.values(), *PACKETS.values()])[:2000])
    for _ in range(generator.randrange(1, 5)):
        place = generator.randrange(len(data) + 1)
        match generator.randrange(4):
            case 0:
                del data[place:]
            case 1:
                data[place:place] = generator.randbytes(generator.randrange(1, 9))
            case 2:
                data[place:place] = data[: generator.randrange(60_000 // (len(data) + 1) + 2)]
            case 3:
                data[place : place + 4] = generator.choice([b"1e999", b"null", b"[[", b'"', b"\0"])
    return bytes(data[:60_000]) or b"\0"


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    if "packet" in query:
        name = query["packet"]
        channel().send(PACKETS[name] if name in PACKETS else random_packet(int(name)))
    if "report" in query:
        flood(channel(), REPORTS[query["report"]], int(query["count"]))
    if "descriptors" in query:
        send_descriptors(channel(), b'{"type":"ready"}', [lingering_socket()])
        send_descriptors(channel(), b'{"type":"ready"}', [os.dup(0) for _ in range(250)])
    if "inboxes" in query:
        for inbox in packet_sockets():
            inbox.setblocking(False)
            spoil(inbox, query["inboxes"])
    if "listeners" in query:
        for listener in listeners():
            listener.shutdown(socket.SHUT_RDWR)
    if "stacks" in query:
        break_stacks()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}".encode()]


def spoil(inbox: socket.socket, how: str) -> None:
    """Puts into an inbox what is no connection, or ends it."""
    try:
        if how == "shutdown":
            inbox.shutdown(socket.SHUT_RDWR)
        strange = strange_messages(os.getpid())
        for number in range(1000):
            if how == "path":
                send_descriptors(inbox, b"a path", [path_of_a_socket()])
            elif how == "strange":
                send_descriptors(inbox, next(strange), [SOCKETS[0]().detach()])
            elif how == "kinds":
                whole = msgspec.msgpack.encode([_inode(), None, ["", ""], b"", 1, 0, True, False])
                send_descriptors(inbox, whole, [SOCKETS[number % len(SOCKETS)]().detach()])
            elif how == "empty":
                inbox.send(b"nothing comes with it")
            elif how == "files":
                send_descriptors(inbox, b"a file", [os.open(os.devnull, os.O_WRONLY)])
            elif how == "deep":
                send_descriptors(inbox, b"\x91" * 60_000, [os.dup(_any_socket().fileno())])
    except OSError as problem:
        print(problem, file=sys.stderr)  # it is full, or it is the end from which one reads


def _inode() -> int:
    with listeners()[0] as listener:
        return os.fstat(listener.fileno()).st_ino


def _any_socket() -> socket.socket:
    if not _peers:
        _peers.extend(socket.socketpair())
    return _peers[0]
