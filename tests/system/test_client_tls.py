"""The client over TLS, with certificates that are trusted and some that are not."""

import contextlib
import os
import shutil
import socket
import ssl
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from prefork.client import (
    ClientError,
    ClientRequest,
    HttpClient,
    RequestContent,
    SystemCall,
    parse_url,
)
from tests.support.commands import prefork_command
from tests.support.hostile_servers import OK, Handler, answer, answers, expect_end, serving
from tests.support.sockets import read_head
from tests.support.waiting import PATIENCE

pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="openssl is not installed")

MIB = 1 << 20

Wrapper = Callable[[Handler], Handler]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for localhost, and its key, in one file."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256"),
            *("-nodes", "-days", "2", "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=DNS:localhost", "-keyout", path, "-out", f"{path}.crt"),
        ],
        check=True,
        capture_output=True,
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def tls(certificate: Path) -> Wrapper:
    """Makes a handler one that speaks TLS."""
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)

    def wrap(handler: Handler) -> Handler:
        def handle(sock: socket.socket) -> None:
            # A client that does not trust us ends the handshake.
            with contextlib.suppress(ssl.SSLError):
                wrapped = context.wrap_socket(sock, server_side=True)
                with wrapped:
                    handler(wrapped)

        return handle

    return wrap


@pytest.fixture
def trusted(certificate: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))


@pytest.mark.usefixtures("trusted")
def test_two_requests_on_one_trusted_connection(tls: Wrapper) -> None:
    def handle(sock: socket.socket) -> None:
        for body in (b"one", b"two"):
            read_head(sock)
            sock.sendall(answer(body))
        ends.append(sock.recv(1))

    ends: list[bytes] = []
    calls: list[SystemCall] = []
    with serving(tls(handle)) as server, HttpClient(trace=calls.append) as client:
        request = ClientRequest(parse_url(f"https://localhost:{server.port}/"))
        assert b"".join(client.request(request)) == b"one"
        assert b"".join(client.request(request)) == b"two"
    assert ends == [b""]  # The end of TLS, and not of TCP alone, which would have raised.
    assert server.accepted == 1
    names = [call.name for call in calls if call.name not in ("recv", "poll")]
    assert names[:2] == ["getaddrinfo", "socket"]
    # Before it, ::1 was tried where localhost is this, too.
    last = max(number for number, name in enumerate(names) if name == "connect")
    assert names[last:] == [
        "connect",
        "do_handshake",
        "sendall",
        "sendall",
        "unwrap",
        "shutdown",
        "close",
    ]


def refused(url: str) -> str:
    with HttpClient() as client, pytest.raises(ClientError) as caught:
        client.request(ClientRequest(parse_url(url)))
    return str(caught.value)


def test_an_unknown_signer_is_refused(tls: Wrapper) -> None:
    with serving(tls(expect_end)) as server:
        message = refused(f"https://localhost:{server.port}/")
    assert message == "TLS handshake: certificate not trusted: self-signed certificate"


@pytest.mark.usefixtures("trusted")
def test_another_name_is_refused(tls: Wrapper) -> None:
    with serving(tls(expect_end)) as server:
        message = refused(f"https://127.0.0.1:{server.port}/")
    assert message.startswith("TLS handshake: certificate not trusted: IP address mismatch")


def test_any_certificate_is_taken_where_the_user_says_so(tls: Wrapper) -> None:
    with serving(*[tls(answers(answer(b"ok")))] * 2) as server:
        url = f"https://127.0.0.1:{server.port}/"
        for option, status, output in (("-k", 0, b"ok"), ("-i", 1, b"")):
            done = subprocess.run(
                prefork_command("get", option, url),
                capture_output=True,
                timeout=60,
            )
            assert (done.returncode, done.stdout) == (status, output)


def test_a_server_that_does_not_speak_tls() -> None:
    def plain(sock: socket.socket) -> None:
        sock.recv(1)
        with contextlib.suppress(ConnectionError):
            sock.sendall(answer(b"", status="400 Bad Request"))

    with serving(plain) as server:
        message = refused(f"https://127.0.0.1:{server.port}/")
    assert message == "TLS handshake: the other side does not use TLS"


def test_a_server_that_closes_in_the_handshake() -> None:
    def leave(sock: socket.socket) -> None:
        sock.recv(65536)

    with serving(leave) as server:
        message = refused(f"https://127.0.0.1:{server.port}/")
    assert message.startswith("TLS handshake: ")


def test_a_server_that_is_silent_in_the_handshake() -> None:
    left = threading.Event()

    def silent(_: socket.socket) -> None:
        assert left.wait(PATIENCE)

    with serving(silent) as server, HttpClient(timeout=0.2) as client:
        with pytest.raises(ClientError, match="timed out"):
            client.request(ClientRequest(parse_url(f"https://127.0.0.1:{server.port}/")))
        left.set()


@pytest.mark.parametrize("kind", ["bytes", "file"])
def test_both_directions_at_once(tls: Wrapper, tmp_path: Path, kind: str) -> None:
    size = 4 * MIB

    def echo(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK + b"Content-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = sock.recv(min(left, 16384))
            assert data
            sock.sendall(data)
            left -= len(data)
        assert sock.recv(1) == b""

    data = os.urandom(size)
    path = tmp_path / "body"
    path.write_bytes(data)
    with (
        serving(tls(echo)) as server,
        HttpClient(verify=False, timeout=PATIENCE) as client,
        open(path, "rb") as file,
    ):
        body = RequestContent(data) if kind == "bytes" else RequestContent(fd=file.fileno())
        url = parse_url(f"https://127.0.0.1:{server.port}/")
        assert b"".join(client.request(ClientRequest(url, "POST", body=body))) == data


def cuts(sent: bytes) -> Handler:
    """Ends TCP without the end of TLS, as somebody in between could."""

    def handle(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(sent)
        sock.shutdown(socket.SHUT_RDWR)

    return handle


def test_a_cut_is_not_taken_for_the_end_of_a_body(tls: Wrapper) -> None:
    with serving(tls(cuts(OK + b"\r\npart"))) as server, HttpClient(verify=False) as client:
        response = client.request(ClientRequest(parse_url(f"https://127.0.0.1:{server.port}/")))
        with pytest.raises(ClientError, match="closed early, without close_notify of TLS"):
            b"".join(response)


def test_a_cut_after_a_whole_body_does_no_harm(tls: Wrapper) -> None:
    with serving(tls(cuts(answer(b"whole")))) as server, HttpClient(verify=False) as client:
        response = client.request(ClientRequest(parse_url(f"https://127.0.0.1:{server.port}/")))
        assert b"".join(response) == b"whole"
