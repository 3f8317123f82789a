"""HTTPS: certificates, handshakes, and what a client and an application see of them."""

import hashlib
import json
import os
import socket
import ssl
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.certificates import Authority, serial, talk_tls
from tests.support.commands import ROOT, prefork_command
from tests.support.raw_http import Raw, request
from tests.support.server import BRIDGED, Server, Start, servers
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.basic:app"
MIB = 1 << 20


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(
    scope="module", params=["1", "4", "asgi"], ids=["1 thread", "4 threads", "event loop"]
)
def server(
    request: pytest.FixtureRequest, authority: Authority, tmp_path_factory: Any
) -> Iterator[Server]:
    """One worker that knows two more names and asks clients for a certificate."""
    pairs = {
        name: str(authority.issue(f"{name[-9]}.pem", name)) for name in ("a.example", "*.b.example")
    }
    table = ", ".join(f'"{name}" = {{ certificate = "{at}" }}' for name, at in pairs.items())
    kind = BRIDGED if request.param == "asgi" else (APP, "--threads", request.param)
    for start in servers(tmp_path_factory.mktemp("tls")):
        yield start(
            *(*kind, "--workers", "1"),
            *("--set", f"tls.certificate={authority.issue('site.pem', 'localhost')}"),
            *("--set", f"tls.sni={{ {table} }}"),
            *("--set", f"tls.client_ca={authority.path}", "--set", "tls.client_auth=optional"),
            *("--set", "http.response_memory=64KiB", "--set", "http.response_spill=256KiB"),
            *("--set", "log.level=debug", "--set", "http.keepalive=300"),
            # With several threads the application reads bodies while they come.
            *("--set", f"http.stream_body={str(request.param == '4').lower()}"),
        ).wait_ready(1)


@contextmanager
def talking(server: Server, authority: Authority, name: str = "localhost") -> Iterator[Raw]:
    with talk_tls(server, authority.client(), name) as raw:
        yield raw


def version(raw: Raw) -> str | None:
    assert isinstance(raw.sock, ssl.SSLSocket)
    return raw.sock.version()


def test_requests_on_one_connection(server: Server, authority: Authority) -> None:
    with talking(server, authority) as client:
        for _ in range(3):
            assert client.ask(request("/nolength")).body == b"no length given"
        assert version(client) == "TLSv1.3"


def test_the_scope_over_tls(start: Start, authority: Authority) -> None:
    own = authority.issue("caller.pem", "client.example", common_name="Ann")
    server = start(
        *("tests.apps.async_basic:app", "--workers", "1"),
        *("--set", f"tls.certificate={authority.issue('asgi.pem', 'localhost')}"),
        *("--set", f"tls.client_ca={authority.path}", "--set", "tls.client_auth=required"),
    ).wait_ready(1)
    with talk_tls(server, authority.client(own)) as client:
        scope = json.loads(client.ask(request("/scope")).body)
    assert scope["scheme"] == "https"
    tls = scope["extensions"]["tls"]
    assert tls["tls_version"] == 0x0304
    assert tls["client_cert_name"].startswith("CN=Ann,")
    assert tls["client_cert_chain"][0].startswith("-----BEGIN CERTIFICATE-----")


def test_what_the_application_sees(server: Server, authority: Authority) -> None:
    if server.is_asgi:
        pytest.skip("does not apply: a scope has the names of ASGI: see test_the_scope_over_tls")
    with talking(server, authority) as client:
        environ = json.loads(client.ask(request("/environ")).body)
    assert environ["wsgi.url_scheme"] == "https"
    assert environ["HTTPS"] == "on"
    assert environ["SSL_PROTOCOL"] == "TLSv1.3"
    assert environ["SSL_CIPHER"].startswith("TLS_")
    assert environ["SSL_CLIENT_VERIFY"] == "NONE"
    assert "SSL_CLIENT_S_DN" not in environ


def test_pipelined_requests_in_one_record(server: Server, authority: Authority) -> None:
    with talking(server, authority) as client:
        client.send(request("/nolength") * 5)
        for _ in range(5):
            assert client.answer().body == b"no length given"


def test_a_pipeline_waits_for_its_reader(server: Server, authority: Authority) -> None:
    with talking(server, authority) as reader, talking(server, authority) as good:
        before = int(good.ask(request("/turn")).body)
        # More than the kernels on the way take while nobody reads, and less than it keeps.
        reader.send(request("/turn?n=1000000") * 3)
        for more in range(5):
            assert int(good.ask(request("/turn")).body) <= before + 2 + more
        numbers = [int(reader.answer().body) for _ in range(3)]
        assert numbers == sorted(numbers)


def test_a_request_cut_into_records_of_one_byte(server: Server, authority: Authority) -> None:
    with talking(server, authority) as client:
        for byte in request("/nolength"):
            client.send(bytes([byte]))
        assert client.answer().body == b"no length given"


def test_a_large_body_and_a_large_answer(server: Server, authority: Authority) -> None:
    body = os.urandom(5 * MIB)
    with talking(server, authority) as client:
        client.send(request("/echo", method="POST", body=body))
        assert client.answer().body == body


@pytest.mark.parametrize("size", [100, 3 * MIB], ids=["small", "large"])
def test_a_file_that_the_kernel_cannot_send(
    server: Server, authority: Authority, tmp_path: Path, size: int
) -> None:
    path = tmp_path / "file"
    path.write_bytes(os.urandom(size))
    with talking(server, authority) as client:
        for _ in range(2):
            answer = client.ask(request(f"/file?path={path}"))
            assert (
                hashlib.sha256(answer.body).digest() == hashlib.sha256(path.read_bytes()).digest()
            )


def test_a_slow_reader_keeps_no_client_waiting(server: Server, authority: Authority) -> None:
    """What it does not take is kept in memory and on disk, and finished from the epoll."""
    size = 300 * 1024
    with socket.socket() as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.settimeout(PATIENCE)
        sock.connect(("127.0.0.1", server.port))
        with authority.client().wrap_socket(sock, server_hostname="localhost") as slow:
            slow.sendall(request(f"/big?n={size}") * 2)
            with talking(server, authority) as client:
                assert client.ask(request("/nolength")).status == 200
            raw = Raw(slow)
            for _ in range(2):
                assert raw.answer().body == b"x" * size


def test_the_end_is_told_by_close_notify(server: Server, authority: Authority) -> None:
    context = authority.client()
    with (
        server.connect() as sock,
        context.wrap_socket(sock, server_hostname="localhost", suppress_ragged_eofs=False) as tls,
    ):
        tls.sendall(request("/nolength", "Connection: close"))
        # Without one, recv raises ssl.SSLEOFError.
        assert read_all(tls).endswith(b"no length given")


def test_a_client_that_ends_its_side_is_answered_and_closed(
    server: Server, authority: Authority
) -> None:
    """It has sent close_notify, but TCP stays open: the epoll tells nothing of that."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = authority.client().wrap_bio(incoming, outgoing, server_hostname="localhost")
    with server.connect() as sock:
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                sock.sendall(outgoing.read())
                incoming.write(sock.recv(65536))
        tls.write(request("/nolength"))
        with pytest.raises(ssl.SSLWantReadError):
            tls.unwrap()
        sock.sendall(outgoing.read())
        assert read_all(sock)  # to the end


@pytest.mark.parametrize(
    ("asked", "shown"),
    [
        ("localhost", "localhost"),
        ("a.example", "a.example"),
        ("A.Example", "a.example"),
        ("any.b.example", "*.b.example"),
        ("two.any.b.example", "localhost"),
        ("unknown.example", "localhost"),
        (None, "localhost"),
    ],
)
def test_the_name_that_is_asked_for_chooses_the_certificate(
    server: Server, authority: Authority, asked: str | None, shown: str
) -> None:
    context = authority.client()
    context.check_hostname = False
    with server.connect() as sock, context.wrap_socket(sock, server_hostname=asked) as tls:
        certificate: Any = tls.getpeercert()
    assert certificate["subjectAltName"] == (("DNS", shown),)


def test_alpn_offers_http_1_1(server: Server, authority: Authority) -> None:
    for name in ("localhost", "a.example"):
        context = authority.client()
        context.set_alpn_protocols(["h2", "http/1.1"])
        with server.connect() as sock, context.wrap_socket(sock, server_hostname=name) as tls:
            assert tls.selected_alpn_protocol() == "http/1.1"


def test_a_session_is_resumed(server: Server, authority: Authority) -> None:
    context = authority.client()
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    with server.connect() as sock, context.wrap_socket(sock, server_hostname="localhost") as first:
        session = first.session
    with (
        server.connect() as sock,
        context.wrap_socket(sock, server_hostname="localhost", session=session) as second,
    ):
        assert second.session_reused


def test_a_client_certificate_reaches_the_application(server: Server, authority: Authority) -> None:
    if server.is_asgi:
        pytest.skip("does not apply: a scope has the names of ASGI: see test_the_scope_over_tls")
    own = authority.issue("client.pem", "client.example", common_name="Ann")
    with talk_tls(server, authority.client(own)) as client:
        environ = json.loads(client.ask(request("/environ")).body)
    assert environ["SSL_CLIENT_VERIFY"] == "SUCCESS"
    assert environ["SSL_CLIENT_S_DN"].startswith("CN=Ann,")
    assert "O=Tests\\, Inc." in environ["SSL_CLIENT_S_DN"]
    assert environ["SSL_CLIENT_I_DN"]
    assert environ["SSL_CLIENT_CERT"].startswith("-----BEGIN CERTIFICATE-----")
    assert environ["SSL_CLIENT_CERT"].strip() in own.read_text()


def test_a_client_certificate_of_another_authority_is_refused(
    server: Server, authority: Authority, tmp_path: Path
) -> None:
    own = Authority(tmp_path / "other").issue("client.pem", "client.example")
    failed = len(server.find("handshake failed"))

    def refused_and_logged() -> bool:
        with (
            pytest.raises(ssl.SSLError, match=r"(?i)unknown.ca"),
            talk_tls(server, authority.client(own)) as client,
        ):
            client.ask(request())
        return len(server.find("handshake failed")) > failed

    # After ten handshakes of other tests, lines are left out for some seconds.
    until(refused_and_logged, "the line of a handshake")
    with talking(server, authority) as client:
        assert client.ask(request()).status == 200


def test_the_client_of_ours(server: Server, authority: Authority) -> None:
    done = subprocess.run(
        prefork_command("get", f"https://localhost:{server.port}/nolength"),
        cwd=ROOT,
        env={**os.environ, "SSL_CERT_FILE": str(authority.path)},
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.stdout == b"no length given", done.stderr


def test_plain_http_gets_an_answer_that_says_so(server: Server) -> None:
    answer = server.raw(request("/"))
    assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert answer.endswith(b"this port speaks TLS: use https://\n")


@pytest.mark.parametrize("data", [b"\0" * 100, b"\x16\x03\x01\x02\0" + b"\xff" * 512, b"\x16"])
def test_what_is_no_handshake_ends(server: Server, authority: Authority, data: bytes) -> None:
    with server.connect() as sock:
        sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        read_all(sock)
    with talking(server, authority) as client:
        assert client.ask(request()).status == 200


def test_idle_handshakes_keep_no_client_waiting(server: Server, authority: Authority) -> None:
    context = authority.client()
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname="localhost").do_handshake()
    hello = outgoing.read()
    idle = [server.connect() for _ in range(20)]
    try:
        for number, sock in enumerate(idle):
            sock.sendall(hello[: 1 + number * len(hello) // 20])
        with talking(server, authority) as client:
            assert client.ask(request()).status == 200
    finally:
        for sock in idle:
            sock.close()


def test_a_handshake_has_its_own_time_limit(start: Start, authority: Authority) -> None:
    server = start(
        *(APP, "--workers", "1", "--set", "tls.handshake_timeout=0.3"),
        *("--set", "http.header_timeout=60", "--set", "http.keepalive=60"),
        *("--set", f"tls.certificate={authority.issue('limit.pem', 'localhost')}"),
        *("--set", "tls.min_version=1.3", "--set", "workers.request_timeout=1"),
        *("--set", "workers.graceful_timeout=0.3"),
    ).wait_ready(1)
    with server.connect() as silent, server.connect() as slow, talking(server, authority) as done:
        slow.sendall(b"\x16\x03\x01")
        assert read_all(silent) == read_all(slow) == b""
        # Whose handshake is complete is under the limits of HTTP.
        assert done.ask(request()).status == 200
    old = authority.client()
    old.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(ssl.SSLError), talk_tls(server, old):
        pass
    # What the application does not answer in time is answered by a signal handler.
    server.expected_errors = {"request timed out", "worker died"}
    with talking(server, authority) as client:
        assert client.ask(request("/sleep?s=60")).status == 504


def test_some_addresses_ask_for_certificates_and_others_are_plain(
    start: Start, authority: Authority, tmp_path: Path
) -> None:
    plain = f"unix:{tmp_path}/plain.sock"
    server = start(
        *(APP, "--workers", "1", "--set", 'tls.bind=["127.0.0.1:0"]'),
        *("--set", f"tls.certificate={authority.issue('some.pem', 'localhost')}"),
        *("--set", f"tls.client_ca={authority.path}", "--set", "tls.client_auth=required"),
        *("--set", "workers.preload=true"),
        bind=("127.0.0.1:0", plain),
    ).wait_ready(1)
    with (
        pytest.raises(ssl.SSLError, match=r"(?i)certificate.required"),
        talking(server, authority) as client,
    ):
        client.ask(request())
    own = authority.issue("client.pem", "client.example")
    with talk_tls(server, authority.client(own)) as client:
        assert client.ask(request()).status == 200
    with socket.socket(socket.AF_UNIX) as sock:
        sock.connect(plain.removeprefix("unix:"))
        answer = Raw(sock).ask(request("/environ"))
    assert json.loads(answer.body)["wsgi.url_scheme"] == "http"


# Reload.


def test_a_reload_reads_certificates_anew_and_loses_no_connection(
    start: Start, authority: Authority
) -> None:
    path = authority.issue("renewed.pem", "localhost")
    server = start(APP, "--workers", "2", "--set", f"tls.certificate={path}").wait_ready(2)
    stop, serials = threading.Event(), set()
    problems: list[BaseException] = []
    context = authority.client()

    def ask() -> None:
        try:
            while not stop.is_set():
                with talk_tls(server, context) as client:
                    assert client.ask(request("/nolength")).body == b"no length given"
                    assert isinstance(client.sock, ssl.SSLSocket)
                    serials.add(serial(client.sock))
        except BaseException as problem:
            problems.append(problem)

    asking = threading.Thread(target=ask)
    asking.start()
    with talking(server, authority) as kept:
        assert kept.ask(request()).status == 200
        authority.issue("renewed.pem", "localhost")
        server.ask("reload")
        with talking(server, authority) as client:
            assert isinstance(client.sock, ssl.SSLSocket)
            new = serial(client.sock)
        # A connection from before has its answer still, or was closed properly while idle.
        kept.send(request("/nolength", "Connection: close"))
        rest = kept.rest()
        assert not rest or rest.endswith(b"no length given")

    # A pair that does not fit changes nothing.
    path.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    assert str(path) in server.refusal("reload")
    assert str(path) in server.refusal("upgrade")
    with talking(server, authority) as client:
        assert isinstance(client.sock, ssl.SSLSocket)
        assert serial(client.sock) == new
    # Nor does one that would block the master.
    path.unlink()
    os.mkfifo(path)
    assert f"{path}: it is a FIFO, and not a regular file" in server.refusal("reload")
    path.unlink()
    # New code in the master reads them, too.
    authority.issue("renewed.pem", "localhost")
    server.ask("upgrade")
    until(lambda: len(serials) == 3 or problems, "answers with each certificate")
    stop.set()
    asking.join(PATIENCE)
    assert not problems
    server.expected_errors |= {"reload failed", "upgrade failed", "certificate not read"}
