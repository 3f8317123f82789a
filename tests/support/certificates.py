"""Certificates for tests, and clients that trust them."""

import os
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import trustme

from tests.support.raw_http import Raw
from tests.support.server import Server


class Authority:
    """An authority of our own, and the certificates that it has signed, as files."""

    def __init__(self, place: Path) -> None:
        place.mkdir(exist_ok=True)
        self._place = place
        self._authority = trustme.CA()
        self.path = place / "ca.pem"
        self._authority.cert_pem.write_to_path(self.path)

    def issue(self, file: str, *names: str, common_name: str | None = None) -> Path:
        """Certificate and key for these names in one file, which is replaced in one step."""
        issued = self._authority.issue_cert(
            *names, common_name=common_name, organization_name="Tests, Inc."
        )
        path = self._place / file
        new = path.with_suffix(".new")
        issued.private_key_and_cert_chain_pem.write_to_path(new)
        os.replace(new, path)
        return path

    def client(self, own: Path | None = None) -> ssl.SSLContext:
        """A client that trusts this authority, with or without a certificate of its own."""
        context = ssl.create_default_context(cafile=self.path)
        if own is not None:
            context.load_cert_chain(own)
        return context


def serial(sock: ssl.SSLSocket) -> str:
    certificate = sock.getpeercert()
    assert certificate
    return str(certificate["serialNumber"])


@contextmanager
def talk_tls(
    server: Server,
    context: ssl.SSLContext,
    name: str = "localhost",
    before: bytes = b"",
) -> Iterator[Raw]:
    """A connection over TLS; `before`: bytes that are sent before the handshake."""
    with server.connect() as sock:
        sock.sendall(before)
        with context.wrap_socket(sock, server_hostname=name) as wrapped:
            yield Raw(wrapped)
