"""Messages of a WebSocket that come back, one worker, eight connections in turns."""

import base64
import json
import os
import socket
import struct
import sys
import time
import zlib
from collections import Counter
from random import Random

from bench import peers
from bench.figures import Measure, Section, attempt
from bench.servers import BenchError, Running, Server, started

CPU = Measure("CPU a message, us", 1)
RATE = Measure("messages a second", least=False)
CONNECTIONS = 8
SIZES = {"1k": 1024, "64k": 64 * 1024}
COMPRESSED = {"deflate-1k": 1024, "deflate-64k": 64 * 1024}


def servers() -> list[Server]:
    return [
        Server("prefork", peers.prefork("bench.asgi_apps:raw", "--workers", "1")),
        Server("uvicorn", peers.uvicorn_asgi("raw")),
        Server("granian", peers.granian_asgi("raw")),
        Server("hypercorn", peers.hypercorn("raw")),
    ]


def records(size: int) -> bytes:
    """JSON as applications send it, of that many bytes; the same in each round."""
    rng = Random(size)
    data = ""
    while len(data) < size:
        name = rng.choice(("bolt", "gear", "hinge", "rivet"))
        price, stock = rng.randrange(10_000) / 100, rng.random() < 0.5
        record = {"id": rng.randrange(10**6), "name": f"{name} {rng.randrange(100)}"}
        data += json.dumps({**record, "price": price, "in_stock": stock}) + ","
    return data[:size].encode()


def frame(payload: bytes, *, compressed: bool = False) -> bytes:
    """A binary message in one masked frame (RFC 6455, 5.2; RFC 7692, 7.2.1)."""
    first = 0x82
    if compressed:
        packer = zlib.compressobj(wbits=-15)
        payload = (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        first |= 0x40
    size = len(payload)
    if size < 126:
        head = struct.pack("!BB", first, 0x80 | size)
    elif size < 65536:
        head = struct.pack("!BBH", first, 0x80 | 126, size)
    else:
        head = struct.pack("!BBQ", first, 0x80 | 127, size)
    mask = os.urandom(4)
    pattern = mask * (size // 4 + 1)
    masked = int.from_bytes(payload) ^ int.from_bytes(pattern[:size])
    return head + mask + masked.to_bytes(size)


class Peer:
    """The client's side of one WebSocket."""

    def __init__(self, port: int, *, compressed: bool) -> None:
        """Raises OSError, and BenchError where the handshake fails."""
        self.sock = socket.create_connection(("127.0.0.1", port), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = ["GET / HTTP/1.1", "Host: x", "Upgrade: websocket", "Connection: Upgrade"]
        lines += [f"Sec-WebSocket-Key: {key}", "Sec-WebSocket-Version: 13"]
        if compressed:
            lines.append("Sec-WebSocket-Extensions: permessage-deflate")
        self.sock.sendall("\r\n".join([*lines, "", ""]).encode())
        head = b""
        while b"\r\n\r\n" not in head:
            piece = self.sock.recv(4096)
            if not piece:
                raise BenchError(f"no WebSocket: {head[:60]!r}")
            head += piece
        if not head.startswith(b"HTTP/1.1 101"):
            raise BenchError(f"no WebSocket: {head[:60]!r}")
        self._kept = head.partition(b"\r\n\r\n")[2]

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def message(self) -> int:
        """Receives one message; returns its bytes of payload."""
        size, last = 0, False
        while not last:
            head = self._exactly(2)
            last, length = head[0] & 0x80 != 0, head[1] & 0x7F
            if length == 126:
                (length,) = struct.unpack("!H", self._exactly(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", self._exactly(8))
            self._exactly(length)
            if head[0] & 0x0F in (0, 1, 2):
                size += length
            else:
                last = False  # a ping: not ours to answer in so short a time
        return size

    def _exactly(self, size: int) -> bytes:
        while len(self._kept) < size:
            piece = self.sock.recv(256 * 1024)
            if not piece:
                raise BenchError("the server closed a WebSocket")
            self._kept += piece
        data, self._kept = self._kept[:size], self._kept[size:]
        return data

    def close(self) -> None:
        self.sock.close()


def play(
    section: Section, running: Running, payload: bytes, *, compressed: bool, seconds: float
) -> None:
    """All connections send, and then all wait: the server finds several at a time, as in life."""
    data, size = frame(payload, compressed=compressed), len(payload)
    connections = [Peer(running.port, compressed=compressed) for _ in range(CONNECTIONS)]
    errors: Counter[str] = Counter()
    messages, before, begun = 0, 0.0, 0.0
    try:
        for warm in (True, False):
            messages, before, begun = 0, running.cpu(), time.monotonic()
            limit = seconds / 4 if warm else seconds
            while time.monotonic() - begun < limit:
                for each in connections:
                    each.send(data)
                for each in connections:
                    got = each.message()
                    errors["wrong size"] += not compressed and got != size
                messages += CONNECTIONS
        took, used = time.monotonic() - begun, running.cpu() - before
    finally:
        for each in connections:
            each.close()
    values = {CPU: used * 1e6 / messages, RATE: messages / took}
    section.add(running.name, values, +errors)
    print(f"{section.key}: {running.name}: {values[CPU]:.1f} us CPU a message", file=sys.stderr)


def sections() -> dict[str, Section]:
    """By the keys of SIZES and COMPRESSED."""
    return {
        key: Section(
            f"websocket-{key}",
            f"WebSocket, messages of {size // 1024} KB"
            + (" of JSON, permessage-deflate" if key in COMPRESSED else ""),
            "One worker, eight connections, each message is sent back. A client in Python asks.",
            (CPU, RATE),
        )
        for key, size in (SIZES | COMPRESSED).items()
    }


def compare(servers: list[Server], sections: dict[str, Section], rounds: int) -> None:
    """All rounds, in which each server runs alone, in turn."""
    for _ in range(rounds):
        for server in servers:

            def once(server: Server = server) -> None:
                with started(server) as running:
                    for key, section in sections.items():
                        compressed = key in COMPRESSED
                        if compressed and server.name == "granian":
                            continue  # it has no compression
                        payload = records(COMPRESSED[key]) if compressed else os.urandom(SIZES[key])
                        play(section, running, payload, compressed=compressed, seconds=0.6)

            attempt(list(sections.values()), server.name, once)


def measure(quick: bool) -> list[Section]:
    measured = sections()
    compare(servers(), measured, 1 if quick else 3)
    return list(measured.values())
