"""A worker that an attacker controls: it sends the master what the query says."""

import array
import contextlib
import fcntl
import os
import select
import socket
import struct
import sys
from collections.abc import Iterable, Iterator
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment

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
    frame = sys._getframe()
    while frame.f_code.co_name != "run_worker":
        assert frame.f_back is not None
        frame = frame.f_back
    return socket.socket(fileno=os.dup(frame.f_locals["args"].channel.fileno()))


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


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    if "packet" in query:
        channel().send(PACKETS[query["packet"]])
    if "report" in query:
        flood(channel(), REPORTS[query["report"]], int(query["count"]))
    if "descriptors" in query:
        send_descriptors(channel(), b'{"type":"ready"}', [lingering_socket()])
        send_descriptors(channel(), b'{"type":"ready"}', [os.dup(0) for _ in range(250)])
    if "inboxes" in query:
        for inbox in packet_sockets():
            inbox.setblocking(False)
            spoil(inbox, query["inboxes"])
    if "stacks" in query:
        break_stacks()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{os.getpid()}".encode()]


def spoil(inbox: socket.socket, how: str) -> None:
    """Puts into an inbox what is no connection, or ends it."""
    try:
        if how == "shutdown":
            inbox.shutdown(socket.SHUT_RDWR)
        for _ in range(1000):
            if how == "empty":
                inbox.send(b"nothing comes with it")
            elif how == "files":
                send_descriptors(inbox, b"a file", [os.open(os.devnull, os.O_WRONLY)])
            elif how == "deep":
                send_descriptors(inbox, b"\x91" * 60_000, [os.dup(_any_socket().fileno())])
    except OSError as problem:
        print(problem, file=sys.stderr)  # it is full, or it is the end from which one reads


def _any_socket() -> socket.socket:
    if not _peers:
        _peers.extend(socket.socketpair())
    return _peers[0]
