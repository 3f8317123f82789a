"""A socket that speaks TLS, with the methods of a plain one, and like that never blocking.

OpenSSL works on memory (SSLObject and two MemoryBIO), since an SSLSocket refuses MSG_DONTWAIT.
Two rules hold so that the epoll reports every event:

- `recv` decrypts all that it has read: no byte waits in here while the epoll is silent;
- `send` counts bytes as sent when the kernel has all of their ciphertext.  Ciphertext that could
  not be sent is kept; the next call must begin with the same bytes, as with SSL_write(3).
"""

import contextlib
import os
import socket
import ssl
from collections.abc import Callable
from typing import Any

from prefork.http.head_rules import Reject

# The most that one record holds, RFC 8446 section 5.1. Bytes are sealed by the record, and so seen
# to be taken by the record: of a slow client the time limits must not miss more.
_RECORD = 16 * 1024
_FILE = 64 * 1024  # bytes of a file read and sealed at one time
# Plain numbers: to combine two flags of an enum takes longer than the call.
_DONTWAIT = int(socket.MSG_DONTWAIT)
_NO_WAIT = int(socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)


class TlsTransport:
    """A connected socket that speaks TLS as a server."""

    __slots__ = (
        *("_begun", "_incoming", "_opened", "_outgoing", "_read", "_rest", "_sealed", "_tls"),
        *("_write", "ended", "plain"),
    )

    def __init__(self, sock: socket.SocketType, context: ssl.SSLContext) -> None:
        self.plain = sock
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        # Without the functions in Python around them, where CPython has it so: a request takes two.
        inner = getattr(tls, "_sslobj", tls)
        self._read: Callable[[int], bytes] = inner.read
        self._write: Callable[[bytes | memoryview], int] = inner.write
        self._begun = False
        self._opened = b""
        self._rest = b""
        self._sealed = 0
        self.ended = False
        """The client has sent its last byte (close_notify)."""

    @property
    def unsent(self) -> bool:
        """There is ciphertext that the client has not taken."""
        return bool(self._rest or self._outgoing.pending)

    def fileno(self) -> int:
        return self.plain.fileno()

    def setsockopt(self, level: int, option: int, value: int | bytes) -> None:
        self.plain.setsockopt(level, option, value)

    def getsockopt(self, level: int, option: int) -> int:
        return self.plain.getsockopt(level, option)

    def setblocking(self, flag: bool) -> None:
        self.plain.setblocking(flag)

    def shake_hands(self) -> bool:
        """Goes on with the handshake; whether it is complete.

        Raises Reject for a client that speaks plain HTTP, to be answered so, and OSError
        (ssl.SSLError is one) if it has failed: the client was sent an alert, if that was possible.
        """
        try:
            if self.unsent:
                self.push()
            data = self.plain.recv(_RECORD, _DONTWAIT)
        except BlockingIOError:
            return False
        if not data:
            raise ConnectionError("the client has left")
        # The first byte of a handshake record is 0x16; that of a request is a letter.
        if not self._begun and data[:1].isalpha():
            raise Reject(400, "this port speaks TLS: use https://")
        self._begun = True
        self._incoming.write(data)
        try:
            self._tls.do_handshake()
        except ssl.SSLWantReadError:
            self._push_some()
            return False
        except ssl.SSLError:
            self._push_some()
            raise
        self._push_some()
        with contextlib.suppress(BlockingIOError):
            # Bytes that came right behind the handshake; the epoll will not report them again.
            self._opened = self._open([])
        return True

    def recv(self, size: int, flags: int = 0) -> bytes:
        """The bytes that have come, b"" for the end; at times a few more than `size`.

        Raises BlockingIOError if none have come, OSError if the connection is lost.
        """
        if self._opened:
            opened, self._opened = self._opened, b""
            return opened
        if self.ended:
            return b""
        data = self.plain.recv(size, _DONTWAIT)
        if not data:
            return b""
        incoming = self._incoming
        incoming.write(data)
        try:
            part = self._read(_RECORD)
        except ssl.SSLError as problem:
            return self._opened_until(problem, [])
        if part and not incoming.pending and not self._outgoing.pending:
            return part  # the only one: to be told so by another read takes as long as this
        return self._open([part])

    def _open(self, parts: list[bytes]) -> bytes:
        """Decrypts all complete records that were read, behind those in `parts`."""
        try:
            while part := self._read(_RECORD):
                parts.append(part)
        except ssl.SSLError as problem:
            return self._opened_until(problem, parts)
        return self._opened_until(ssl.SSLZeroReturnError(), parts)

    def _opened_until(self, problem: ssl.SSLError, parts: list[bytes]) -> bytes:
        """What was decrypted before `problem`, the reason why there is no more now."""
        self._push_some()  # the alert, if there is one
        if not isinstance(problem, ssl.SSLWantReadError):
            if not parts and not isinstance(problem, ssl.SSLZeroReturnError):
                raise problem
            self.ended = True
        if not parts and not self.ended:
            raise BlockingIOError
        return b"".join(parts)

    def send(self, data: bytes | memoryview, flags: int = 0) -> int:
        """Sends `data`; returns how many bytes of it the kernel has taken, encrypted.

        Raises BlockingIOError if it takes none, OSError if the connection is lost.
        """
        sent, size = 0, len(data)
        if 0 < size <= _RECORD and not (self._sealed or self._rest):
            # What the loop below comes to for a single record that the kernel takes at once.
            sealed = self._write(data)
            rest = self._outgoing.read()
            try:
                taken = self.plain.send(rest, _NO_WAIT)
            except OSError:
                self._sealed, self._rest = sealed, rest
                raise
            if taken == len(rest):
                return size
            self._sealed, self._rest = sealed, rest[taken:]
        try:
            while sent < size:
                if not self._sealed:
                    part = data if size <= _RECORD else memoryview(data)[sent : sent + _RECORD]
                    self._sealed = self._write(part)
                self.push()
                sent += self._sealed
                self._sealed = 0
        except BlockingIOError:
            if not sent:
                raise
        return sent

    def send_file(self, fd: int, offset: int, count: int) -> int:
        """As `send` with bytes of a file; 0 at its end."""
        # The kernel can't encrypt it. Bytes that were encrypted but not sent are read again, and
        # are the same: a file must not change while it is sent.
        data = os.pread(fd, min(count, _FILE), offset)
        return self.send(data) if data else 0

    def push(self) -> None:
        """Sends ciphertext that is left; raises BlockingIOError if the client does not take all."""
        self._rest = rest = self._rest or self._outgoing.read()
        while rest:
            sent = self.plain.send(rest, _NO_WAIT)
            self._rest = rest = rest[sent:] or self._outgoing.read()

    def _push_some(self) -> None:
        """As much as the client takes now; a lost connection shows at the next read."""
        with contextlib.suppress(OSError):
            self.push()

    def close_notify(self) -> None:
        """Tells the client that nothing more comes (close_notify, RFC 8446 section 6.1)."""
        with contextlib.suppress(OSError, ValueError):  # most often: it has not said so yet
            self._tls.unwrap()
        self._push_some()

    def shutdown(self, how: int) -> None:
        if how == socket.SHUT_WR:
            self.close_notify()
        self.plain.shutdown(how)

    def close(self) -> None:
        """Says nothing to the client: see `close_notify`."""
        self.plain.close()

    # The session.

    def environ(self) -> dict[str, str]:
        """The session for an application's environ, by the names of Apache's mod_ssl."""
        tls = self._tls
        cipher = tls.cipher()
        found = {
            "SSL_PROTOCOL": tls.version() or "",
            "SSL_CIPHER": cipher[0] if cipher else "",
            "SSL_CLIENT_VERIFY": "NONE",
        }
        certificate = tls.getpeercert()
        binary = tls.getpeercert(binary_form=True)
        if certificate and binary:
            found["SSL_CLIENT_VERIFY"] = "SUCCESS"
            found["SSL_CLIENT_S_DN"] = distinguished_name(certificate["subject"])
            found["SSL_CLIENT_I_DN"] = distinguished_name(certificate["issuer"])
            found["SSL_CLIENT_M_SERIAL"] = str(certificate["serialNumber"])
            found["SSL_CLIENT_V_START"] = str(certificate["notBefore"])
            found["SSL_CLIENT_V_END"] = str(certificate["notAfter"])
            found["SSL_CLIENT_CERT"] = ssl.DER_cert_to_PEM_cert(binary)
        return found


# RFC 4514 section 3, and OpenSSL's names for the rest.
_SHORT = {
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "countryName": "C",
    "streetAddress": "STREET",
    "domainComponent": "DC",
    "userId": "UID",
}


def distinguished_name(name: Any) -> str:
    """A name as `ssl` gives it, in a string by RFC 4514."""
    return ",".join(
        "+".join(f"{_SHORT.get(key, key)}={_escaped(value)}" for key, value in part)
        for part in reversed(name)
    )


def _escaped(value: str) -> str:
    text = "".join(f"\\{char}" if char in '"+,;<>\\' else char for char in value)
    text = text.replace("\0", "\\00")
    if text.startswith(("#", " ")):
        text = "\\" + text
    if text.endswith(" ") and len(text) > 1:
        text = text[:-1] + "\\ "
    return text
