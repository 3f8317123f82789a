"""A socket that is sealed by TLS: it never blocks, and loses nothing however bytes are cut."""

import contextlib
import os
import socket
import ssl
from collections.abc import Iterator

import pytest
import trustme
from hypothesis import given
from hypothesis import strategies as st

from prefork.http.head_rules import Reject
from prefork.worker.transport.tls_transport import TlsTransport, distinguished_name

AUTHORITY = trustme.CA()
SERVER = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
AUTHORITY.issue_cert("localhost").configure_cert(SERVER)
CLIENT = ssl.create_default_context()
AUTHORITY.configure_trust(CLIENT)
DONTWAIT = socket.MSG_DONTWAIT


class Client:
    """The other side, by hand: what it has sealed is sent when, and in the pieces, that we say."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self.tls = CLIENT.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def sealed(self) -> bytes:
        return self._outgoing.read()

    def take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while data := self.sock.recv(65536, DONTWAIT):
                self._incoming.write(data)

    def shake(self) -> bool:
        self.take()
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            return False
        return True

    def read(self) -> bytes:
        self.take()
        parts = []
        with contextlib.suppress(ssl.SSLWantReadError, ssl.SSLZeroReturnError):
            while part := self.tls.read(65536):
                parts.append(part)
        return b"".join(parts)


@contextlib.contextmanager
def pair(buffer: int = 0) -> Iterator[tuple[TlsTransport, Client]]:
    ours, theirs = socket.socketpair()
    with ours, theirs:
        if buffer:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffer)
        yield TlsTransport(ours, SERVER), Client(theirs)


def connect(server: TlsTransport, client: Client) -> None:
    """The client sends its last flight as late as it can: the data that follow are in it."""
    done = False
    for _ in range(10):
        ready = client.shake()
        if done and ready:
            return
        client.sock.sendall(client.sealed())
        done = server.shake_hands() or done
    raise AssertionError("no end of the handshake")


def cut(data: bytes, sizes: list[int]) -> Iterator[bytes]:
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
    yield data[at:]


def received(server: TlsTransport) -> bytes:
    parts = []
    with contextlib.suppress(BlockingIOError):
        while part := server.recv(1000, DONTWAIT):
            parts.append(part)
    return b"".join(parts)


SIZES = st.lists(st.integers(1, 3000), max_size=12)


@given(st.lists(st.binary(max_size=20000), max_size=4), SIZES, SIZES)
def test_any_cut_gives_the_same_bytes(
    pieces: list[bytes], first: list[int], sizes: list[int]
) -> None:
    """Also of the handshake; nothing waits in the object when the socket has nothing to read."""
    with pair() as (server, client):
        done = ready = False
        for _ in range(10):
            ready = client.shake()
            for part in cut(client.sealed(), first):
                if part:
                    client.sock.sendall(part)
                    done = server.shake_hands() or done
            if done and ready:
                break
        assert done
        got = b""
        for piece in pieces:
            client.tls.write(piece)
            for part in cut(client.sealed(), sizes):
                client.sock.sendall(part)
                got += received(server)
        assert got == b"".join(pieces)


def test_what_comes_with_the_end_of_the_handshake_is_there_at_once() -> None:
    with pair() as (server, client):
        client.shake()
        client.sock.sendall(client.sealed())
        assert not server.shake_hands()
        assert client.shake()
        client.tls.write(b"GET /")
        client.sock.sendall(client.sealed())
        assert server.shake_hands()
        assert server.recv(100) == b"GET /"
        with pytest.raises(BlockingIOError):
            server.recv(100)


@pytest.mark.parametrize("size", [1, 100_000, 1_000_000])
def test_bytes_count_as_sent_when_the_kernel_has_them(size: int) -> None:
    """Who is told that it took less begins the next call with the rest."""
    data = memoryview(os.urandom(size))
    with pair(buffer=4096) as (server, client):
        connect(server, client)
        client.read()
        sent, got, refused = 0, b"", 0
        while sent < size:
            try:
                count = server.send(data[sent:], DONTWAIT)
                assert count > 0
                sent += count
            except BlockingIOError:
                refused += 1
            got += client.read()
            assert len(got) >= sent
        got += client.read()
        assert got == data
        assert not server.unsent
        assert refused or size == 1


def test_the_end_is_sent_and_received() -> None:
    with pair() as (server, client):
        connect(server, client)
        client.tls.write(b"last")
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.sock.sendall(client.sealed())
        assert server.recv(100) == b"last"
        assert server.ended
        assert server.recv(100) == b""
        assert server.send(b"answer") == 6
        server.shutdown(socket.SHUT_WR)
        assert client.read() == b"answer"
        with pytest.raises(ssl.SSLZeroReturnError):
            client.tls.read(1)  # close_notify has come
        assert client.sock.recv(1) == b""


def test_an_end_that_comes_alone_is_an_end() -> None:
    with pair() as (server, client):
        connect(server, client)
        with pytest.raises(ssl.SSLWantReadError):
            client.tls.unwrap()
        client.sock.sendall(client.sealed())
        assert server.recv(100) == b""


def test_a_record_that_was_tampered_with_ends_the_connection() -> None:
    with pair() as (server, client):
        connect(server, client)
        client.tls.write(b"secret")
        record = bytearray(client.sealed())
        record[-1] ^= 1
        client.sock.sendall(record)
        with pytest.raises(OSError, match=r"(?i)decryption|record"):
            server.recv(100)


def test_a_request_in_the_plain_gets_an_answer_and_noise_an_end() -> None:
    with pair() as (server, client):
        client.sock.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises(Reject) as caught:
            server.shake_hands()
        assert caught.value.status == 400
    for noise in (b"\0" * 20, b"\x16\x03\x01\0\x05hello"):
        with pair() as (server, client):
            client.sock.sendall(noise)
            with pytest.raises(ssl.SSLError):
                server.shake_hands()
    with pair() as (server, client):
        client.sock.close()
        with pytest.raises(ConnectionError):
            server.shake_hands()


@given(st.binary(min_size=1, max_size=200))
def test_any_bytes_end_or_wait(data: bytes) -> None:
    with pair() as (server, client):
        client.sock.sendall(data)
        with contextlib.suppress(OSError, Reject):
            assert server.shake_hands() is False


def test_a_name_in_a_certificate_as_a_string() -> None:
    name = (
        (("countryName", "DE"),),
        (("organizationName", "A, B + C"),),
        (("commonName", " #x "), ("userId", "7")),
    )
    assert distinguished_name(name) == "CN=\\ #x\\ +UID=7,O=A\\, B \\+ C,C=DE"
