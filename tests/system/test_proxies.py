"""Behind a proxy: whose word is believed, by hand and with real ones in front."""

import json
import os
import shutil
import signal
import socket
import ssl
import struct
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from prefork.config.values import FORWARDING_HEADERS
from tests.support.certificates import Authority
from tests.support.nginx import nginx_command
from tests.support.processes import peers_of
from tests.support.raw_http import Answer, Raw, request, talk
from tests.support.server import BRIDGED, Server, Start, servers
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.basic:app"
PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
HAPROXY = shutil.which("haproxy", path=PATH)
TRUSTED = '["127.0.0.1", "10.0.0.0/8", "unix"]'

SPOOFED = (
    "X-Forwarded-For: 203.0.113.9",
    "X-Forwarded-Proto: https",
    "X-Forwarded-Host: spoofed.example",
    "X-Forwarded-Port: 1",
    "X-Forwarded-Prefix: /spoofed",
    "X-Forwarded-Other: 1",
)


def environ_of(client: Raw, *headers: str) -> dict[str, Any]:
    answer = client.ask(request("/environ", *headers))
    assert answer.status == 200, answer
    environ: dict[str, Any] = json.loads(answer.body)
    return environ


# Headers.


each_kind = pytest.mark.parametrize("kind", [(APP,), BRIDGED], ids=["wsgi", "asgi"])


@pytest.fixture(scope="module", params=[(APP,), BRIDGED], ids=["wsgi", "asgi"])
def trusting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Believes 127.0.0.1 and the peers of its Unix socket, in each header."""
    tmp = tmp_path_factory.mktemp("trusting")
    for start in servers(tmp):
        yield start(
            *(*request.param, "--workers", "1", "--set", f"http.trusted_proxies={TRUSTED}"),
            *("--set", "log.access=" + str(tmp / "access.log")),
            *("--set", "http.max_connections_per_address=1"),
            *("--set", f"http.trusted_headers={json.dumps(FORWARDING_HEADERS)}"),
            bind=("127.0.0.1:0", f"unix:{tmp}/sock"),
        ).wait_ready(1)


@each_kind
def test_only_the_client_and_the_scheme_are_believed_by_default(
    start: Start, kind: tuple[str, ...]
) -> None:
    """The other headers go through most proxies as a client has sent them."""
    server = start(
        *(*kind, "--workers", "1", "--set", f"http.trusted_proxies={TRUSTED}"),
    ).wait_ready(1)
    with talk(server) as client:
        told = environ_of(client, *SPOOFED, "Forwarded: for=203.0.113.8;host=spoofed.example")
    assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"]) == ("203.0.113.9", "https")
    assert told["SCRIPT_NAME"] == ""
    forwarded = [name for name in told if "FORWARDED" in name]
    assert sorted(forwarded) == ["HTTP_X_FORWARDED_FOR", "HTTP_X_FORWARDED_PROTO"]
    assert "spoofed" not in json.dumps(told)


@each_kind
def test_a_header_of_a_trusted_proxy_that_is_not_believed_is_reported_once(
    start: Start, kind: tuple[str, ...]
) -> None:
    server = start(
        *(*kind, "--workers", "1", "--set", f"http.trusted_proxies={TRUSTED}"),
    ).wait_ready(1)
    with talk(server) as client:
        for lines in (("X-Forwarded-For: 203.0.113.9", "X_Forwarded_Host: a.example"), ()):
            assert client.ask(request("/", *lines)).status == 200
        assert not server.find("forwarded headers ignored")
        for _ in range(3):
            assert client.ask(request("/", "X-Forwarded-PREFIX: /shop")).status == 200
    event = server.wait("forwarded headers ignored")
    assert (event["peer"], event["header"]) == ("127.0.0.1", "X-Forwarded-Prefix")
    assert 'add "X-Forwarded-Prefix" to http.trusted_headers' in event["hint"]
    server.stop()
    assert len(server.find("forwarded headers ignored")) == 1


def test_a_trusted_proxy_speaks_for_its_client(trusting: Server) -> None:
    with talk(trusting) as client:
        told = environ_of(
            client,
            "X-Forwarded-For: 198.51.100.1, 203.0.113.1, 10.1.1.1",
            "X-Forwarded-Proto: https",
            "X-Forwarded-Host: shop.example",
            "X-Forwarded-Prefix: /shop",
        )
        assert told["REMOTE_ADDR"] == "203.0.113.1"
        assert (told["wsgi.url_scheme"], told["HTTPS"]) == ("https", "on")
        assert (told["HTTP_HOST"], told["SERVER_NAME"]) == ("shop.example", "shop.example")
        assert (told["SERVER_PORT"], told["SCRIPT_NAME"]) == ("443", "/shop")
        # What was said of one request is not said of the next.
        told = environ_of(client)
        assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"]) == ("127.0.0.1", "http")
        assert "HTTPS" not in told
        told = environ_of(client, 'Forwarded: for="[2001:db8::1]:99";proto=https;host=a.example')
        assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == ("2001:db8::1", "99")
        assert (told["wsgi.url_scheme"], told["HTTP_HOST"]) == ("https", "a.example")
        refused = client.ask(request("/", "Forwarded: for=1.2.3.4", "X-Forwarded-For: 1.2.3.5"))
        assert (refused.status, refused.closes) == (400, True)


def test_the_access_log_has_the_client(trusting: Server) -> None:
    with talk(trusting) as client:
        environ_of(client, "X-Forwarded-For: 203.0.113.77")
    log = trusting.control.parent.parent / "access.log"
    until(lambda: "203.0.113.77" in log.read_text(), "the client's address in the access log")


def test_a_proxy_has_more_connections_than_one_address_may(trusting: Server) -> None:
    with talk(trusting) as first, talk(trusting) as second:
        assert environ_of(first)["REMOTE_ADDR"] == environ_of(second)["REMOTE_ADDR"]
    place, own = ("127.0.0.1", trusting.port), ("127.0.0.3", 0)
    with (
        socket.create_connection(place, PATIENCE, own) as third,
        socket.create_connection(place, PATIENCE, own) as fourth,
    ):
        assert Raw(third).ask(request("/nolength")).status == 200
        assert Raw(fourth).ask(request("/nolength")).status == 429


def test_a_proxy_on_a_unix_socket(trusting: Server) -> None:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(trusting.addresses[1].removeprefix("unix:"))
        assert environ_of(Raw(sock), "X-Forwarded-For: 203.0.113.1")["REMOTE_ADDR"] == "203.0.113.1"


def test_no_proxy_is_believed_by_default(prefork_server: Server) -> None:
    with talk(prefork_server) as client:
        told = environ_of(client, *SPOOFED, "Forwarded: for=203.0.113.9")
    assert told["REMOTE_ADDR"] == "127.0.0.1"
    assert (told["wsgi.url_scheme"], told["HTTP_HOST"]) == ("http", "test")
    assert not [name for name in told if "FORWARDED" in name]


@pytest.mark.parametrize("preload", ["true", "false"])
def test_a_proxy_on_this_machine_that_is_not_trusted_is_reported_once(
    start: Start, tmp_path: Path, preload: str
) -> None:
    path = f"{tmp_path}/sock"
    server = start(
        *(APP, "--workers", "3", "--set", f"workers.preload={preload}"),
        bind=("127.0.0.1:0", f"unix:{path}"),
    ).wait_ready(3)
    with talk(server) as client:
        client.ask(request("/", "X_Forwarded_Proto: https", "X-Forwarded-Host: a.example"))
    assert not server.find("forwarded headers ignored")
    with ExitStack() as stack:
        clients = [stack.enter_context(talk(server)) for _ in range(12)]
        pids: set[bytes] = set()
        while len(pids) < 3:  # each worker has had such a request
            for client in clients:
                client.send(request("/pid", "X-Forwarded-Proto: https"))
            pids |= {client.answer().body for client in clients}
    event = server.wait("forwarded headers ignored")
    assert event["peer"] == "127.0.0.1"
    assert 'http.trusted_proxies = ["127.0.0.1"]' in event["hint"]
    assert len(server.find("forwarded headers ignored")) == 1


@each_kind
def test_a_proxy_on_a_unix_socket_that_is_not_trusted_is_reported(
    start: Start, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    server = start(*kind, "--workers", "1", bind=(f"unix:{tmp_path}/sock",)).wait_ready(1)
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(f"{tmp_path}/sock")
        assert Raw(sock).ask(request("/", "X-Forwarded-For: 203.0.113.1")).status == 200
    assert server.wait("forwarded headers ignored")["peer"] == "unix"


# The PROXY protocol.


def v2(*, command: int = 0x21, tlvs: bytes = b"") -> bytes:
    addresses = socket.inet_aton("203.0.113.2") + socket.inet_aton("192.0.2.1")
    body = addresses + struct.pack("!HH", 4242, 443) + tlvs
    return b"\r\n\r\n\0\r\nQUIT\n" + struct.pack("!BBH", command, 0x11, len(body)) + body


V1 = b"PROXY TCP4 203.0.113.1 192.0.2.1 4711 443\r\n"


@pytest.fixture(scope="module", params=[(APP,), BRIDGED], ids=["wsgi", "asgi"])
def proxied(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """Wants a PROXY header on each connection, and speaks TLS on its second address."""
    tmp = tmp_path_factory.mktemp("proxied")
    certificate = Authority(tmp / "authority").issue("site.pem", "localhost")
    for start in servers(tmp):
        yield start(
            *(*request.param, "--workers", "1", "--set", 'http.trusted_proxies=["127.0.0.1"]'),
            *("--set", "http.proxy_protocol=true", "--set", f"tls.certificate={certificate}"),
            *("--set", 'tls.bind=["127.0.0.2:0"]', "--set", "http.header_timeout=60"),
            bind=("127.0.0.1:0", "127.0.0.2:0"),
        ).wait_ready(1)


@pytest.mark.parametrize(
    ("header", "peer"),
    [
        (V1, ("203.0.113.1", "4711")),
        (v2(), ("203.0.113.2", "4242")),
        (v2(tlvs=b"\x02\0\x03abc"), ("203.0.113.2", "4242")),
        (v2(command=0x20), None),
        (b"PROXY UNKNOWN\r\n", None),
    ],
    ids=["v1", "v2", "v2 with TLVs", "LOCAL", "UNKNOWN"],
)
def test_a_proxy_header_names_the_client(
    proxied: Server, header: bytes, peer: tuple[str, str] | None
) -> None:
    with talk(proxied) as client:
        own = client.sock.getsockname()
        client.send(header + request("/environ"))
        for _ in range(2):
            told = json.loads(client.answer().body)
            assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == (peer or (own[0], str(own[1])))
            client.send(request("/environ"))
        client.answer()


def test_a_proxy_header_cut_into_bytes(proxied: Server) -> None:
    for header in (V1, v2()):
        with talk(proxied) as client:
            for byte in header:
                client.send(bytes([byte]))
            assert environ_of(client)["REMOTE_ADDR"].startswith("203.0.113.")


def test_an_address_that_a_header_names_is_not_trusted_for_that(proxied: Server) -> None:
    """Its own X-Forwarded-For comes from an address that nobody trusts."""
    with talk(proxied) as client:
        client.send(V1)
        told = environ_of(client, *SPOOFED)
    assert told["REMOTE_ADDR"] == "203.0.113.1"
    assert told["wsgi.url_scheme"] == "http"
    assert not [name for name in told if "FORWARDED" in name]


@pytest.mark.parametrize(
    "data",
    [request("/"), b"PROXY TCP4 nonsense\r\n", b"PROXY " + b"x" * 200, v2(command=0x29), b"PROXY"],
    ids=["none", "malformed", "too long", "unknown command", "cut"],
)
def test_a_connection_without_a_header_is_closed_unanswered(proxied: Server, data: bytes) -> None:
    with proxied.connect() as sock:
        sock.sendall(data)
        with suppress(OSError):  # it is closed, and what it had not read resets the connection
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""


def test_a_header_from_a_peer_that_is_not_trusted_closes(proxied: Server) -> None:
    with socket.socket() as sock:
        sock.settimeout(PATIENCE)
        sock.bind(("127.0.0.3", 0))
        sock.connect(("127.0.0.1", proxied.port))
        sock.sendall(V1 + request("/"))
        with suppress(ConnectionResetError):
            assert read_all(sock) == b""
    event = proxied.wait("connection refused", peer="127.0.0.3")
    assert event["reason"] == "the peer is not one of http.trusted_proxies"


def test_a_handshake_comes_after_the_header(proxied: Server) -> None:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    port = int(proxied.addresses[1].rpartition(":")[2])
    with socket.create_connection(("127.0.0.2", port), PATIENCE, ("127.0.0.1", 0)) as sock:
        sock.sendall(v2())
        with context.wrap_socket(sock) as tls:
            told = environ_of(Raw(tls))
    assert (told["REMOTE_ADDR"], told["wsgi.url_scheme"]) == ("203.0.113.2", "https")


@each_kind
def test_the_client_in_the_header_has_its_share_of_connections(
    start: Start, kind: tuple[str, ...]
) -> None:
    server = start(
        *(*kind, "--workers", "1", "--set", 'http.trusted_proxies=["127.0.0.1"]'),
        *("--set", "http.proxy_protocol=true", "--set", "http.max_connections_per_address=1"),
    ).wait_ready(1)

    def asked(client: Raw, header: bytes) -> Answer:
        client.send(header)
        return client.ask(request("/nolength"))

    with talk(server) as one:
        assert asked(one, V1).status == 200
        with talk(server) as other:
            assert asked(other, v2()).status == 200
        with talk(server) as another:
            answer = asked(another, V1)
            assert (answer.status, answer["Retry-After"], answer.closes) == (429, "1", True)
            assert another.at_end()
        with talk(server) as itself:  # the proxy has no share
            assert asked(itself, v2(command=0x20)).status == 200
        assert one.ask(request("/nolength")).status == 200

    def again() -> bool:
        with talk(server) as client:
            return asked(client, V1).status == 200

    until(again, "the first is gone, and another may come")


def test_a_connection_moves_when_its_header_was_read(start: Start, tmp_path: Path) -> None:
    """From a busy worker to an idle one, and from one generation to the next."""
    server = start(
        *(APP, "--workers", "2", "--set", 'http.trusted_proxies=["127.0.0.1"]'),
        *("--set", "http.proxy_protocol=true", "--set", "http.keepalive=0"),
    ).wait_ready(2)
    with ExitStack() as stack:
        kept: dict[bytes, list[Raw]] = defaultdict(list)
        while len(clients := max(kept.values(), key=len, default=[])) < 2:
            client = stack.enter_context(talk(server))
            client.send(V1)
            kept[client.ask(request("/pid")).body].append(client)
        busy, other = clients
        held = tmp_path / "held"
        busy.send(request(f"/hold?path={held}"))
        until(held.exists, "a request that is held")

        def asked(client: Raw) -> None:
            told = environ_of(client, *SPOOFED)
            assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == ("203.0.113.1", "4711")
            assert not [name for name in told if "FORWARDED" in name]

        asked(other)
        held.unlink()
        assert busy.answer().status == 200
        server.ask("reload")
        for number in (1, 2):
            server.wait("worker exited", number)
        for client in clients:
            asked(client)


# The same before a protocol of one's own.


@pytest.fixture(scope="module", params=["1", "2"], ids=["1 thread", "2 threads"])
def greeting(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Server]:
    """A handler that says whom it was called for, and answers with what it gets."""
    for start in servers(tmp_path_factory.mktemp("greeting")):
        yield start(
            *("--tcp", "tests.apps.tcp_apps:greets", "--workers", "1", "--threads", request.param),
            *("--set", f"http.trusted_proxies={TRUSTED}", "--set", "http.proxy_protocol=true"),
            *("--set", "http.header_timeout=60"),
        ).wait_ready(1)


@pytest.mark.parametrize(
    ("header", "address"),
    [
        (V1, ("203.0.113.1", 4711)),
        (v2(tlvs=b"\x02\0\x03abc"), ("203.0.113.2", 4242)),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", ("2001:db8::1", 4711, 0, 0)),
        (v2(command=0x20), None),
        (b"PROXY UNKNOWN\r\n", None),
    ],
    ids=["v1", "v2", "IPv6", "LOCAL", "UNKNOWN"],
)
def test_a_handler_is_called_with_the_address_in_the_header(
    greeting: Server, header: bytes, address: tuple[Any, ...] | None
) -> None:
    for pieces in ((header + b"behind it",), (bytes([byte]) for byte in header + b"behind it")):
        with greeting.connect() as sock:
            told = f"{address or sock.getsockname()!r}\n".encode()
            for piece in pieces:
                sock.sendall(piece)
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == told + b"behind it"


def test_a_client_that_owes_a_header_keeps_no_handler_from_others(greeting: Server) -> None:
    with ExitStack() as stack:
        owing = [stack.enter_context(greeting.connect()) for _ in range(5)]
        for number, sock in enumerate(owing):
            sock.sendall(V1[:number])
        with greeting.connect() as other:
            other.sendall(v2())
            other.shutdown(socket.SHUT_WR)
            assert read_all(other) == b"('203.0.113.2', 4242)\n"
        for number, sock in enumerate(owing):
            sock.sendall(V1[number:])
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b"('203.0.113.1', 4711)\n"


def test_a_client_that_owes_a_header_waits_for_no_busy_worker_and_outlives_a_reload(
    start: Start,
) -> None:
    server = start(
        *("--tcp", "tests.apps.tcp_apps:greets", "--workers", "2"),
        *("--set", f"http.trusted_proxies={TRUSTED}", "--set", "http.proxy_protocol=true"),
        *("--set", "http.header_timeout=0"),
    ).wait_ready(2)
    with ExitStack() as stack:
        owing = {}
        for _ in range(3):
            sock = stack.enter_context(server.connect())
            owing[sock.getsockname()[1]] = sock
        pids = [worker.pid for worker in server.workers()]

        def taken() -> list[set[int]]:
            held = [owing.keys() & peers_of(pid, server.port) for pid in pids]
            return held if set.union(*held) == set(owing) else []

        ports = max(until(taken, "the workers have all of them"), key=len)
        both = [owing.pop(port) for port in list(ports)[:2]]
        # The first keeps its worker's only thread, so the other one answers the second.
        for sock in both:
            sock.sendall(V1)
            assert sock.recv(100) == b"('203.0.113.1', 4711)\n"
        for sock in both:
            sock.close()
        server.ask("reload")
        for number in (1, 2):
            server.wait("worker exited", number)
        for sock in owing.values():
            sock.sendall(V1)
            assert sock.recv(100) == b"('203.0.113.1', 4711)\n"


@pytest.mark.parametrize("data", [b"hello", V1[:-2] + b"x\r\n", b"PROXY", b""])
def test_a_handler_is_not_called_without_a_header(greeting: Server, data: bytes) -> None:
    with greeting.connect() as sock:
        sock.sendall(data)
        with suppress(OSError):
            sock.shutdown(socket.SHUT_WR)
            assert read_all(sock) == b""


def test_a_handler_is_not_called_for_a_peer_that_is_not_trusted(greeting: Server) -> None:
    place = ("127.0.0.1", greeting.port)
    with socket.create_connection(place, PATIENCE, ("127.0.0.3", 0)) as sock:
        sock.sendall(V1)
        with suppress(ConnectionResetError):
            assert read_all(sock) == b""
        peer = f"127.0.0.3:{sock.getsockname()[1]}"
    event = greeting.wait("connection refused", peer=peer)
    assert event["reason"] == "the peer is not one of http.trusted_proxies"


def test_a_header_that_does_not_come_ends_the_connection_and_holds_up_no_stop(start: Start) -> None:
    target = ("--tcp", "tests.apps.tcp_apps:greets", "--workers", "1")
    proxy = ("--set", f"http.trusted_proxies={TRUSTED}", "--set", "http.proxy_protocol=true")
    impatient = start(*target, *proxy, "--set", "http.header_timeout=0.2").wait_ready(1)
    with impatient.connect() as sock:
        assert sock.recv(1) == b""
    patient = start(*target, *proxy, "--set", "http.header_timeout=0").wait_ready(1)
    with patient.connect() as sock:
        (worker,) = patient.workers()
        own = sock.getsockname()[1]
        until(lambda: own in peers_of(worker.pid, patient.port), "the worker has it")
        patient.signal(signal.SIGTERM)
        assert sock.recv(1) == b""
        assert patient.wait_exit() == 0


# Real ones.


@contextmanager
def in_front(command: list[str | Path], bound: socket.socket, log: Path) -> Iterator[Raw]:
    """A connection to a proxy that inherits a listener, or has our port by SO_REUSEPORT."""

    def connect() -> socket.socket | None:
        with suppress(ConnectionRefusedError):
            return socket.create_connection(bound.getsockname(), PATIENCE, ("127.0.0.9", 0))
        return None

    with log.open("wb") as stderr:
        process = subprocess.Popen(command, pass_fds=[bound.fileno()], stdout=stderr, stderr=stderr)
    try:
        with until(connect, "a connection to the proxy") as sock:
            yield Raw(sock)
    finally:
        process.kill()
        process.wait()
        print(log.read_text())


HAPROXY_CONFIG = """
global
    log stderr format raw local0
defaults
    timeout connect 30s
    timeout client 30s
    timeout server 30s
frontend f
    mode {mode}
    {more}
    bind fd@{fd}
    default_backend b
backend b
    mode {mode}
    server s {server} {options}
"""


@pytest.mark.skipif(HAPROXY is None, reason="haproxy is not installed")
@pytest.mark.parametrize(
    ("mode", "number", "options"),
    [
        ("tcp", 0, "send-proxy"),
        ("http", 0, "send-proxy"),
        ("tcp", 0, "send-proxy-v2 proxy-v2-options unique-id,crc32c"),
        ("http", 0, "send-proxy-v2"),
        ("http", 1, "send-proxy-v2 ssl verify none"),
    ],
)
def test_haproxy_in_front(
    proxied: Server, tmp_path: Path, mode: str, number: int, options: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        config = tmp_path / "haproxy.cfg"
        config.write_text(
            HAPROXY_CONFIG.format(
                mode=mode,
                fd=listener.fileno(),
                server=proxied.addresses[number],
                options=options + (" source 127.0.0.1" if number else ""),
                more="unique-id-format %[uuid]" if "unique-id" in options else "",
            )
        )
        assert HAPROXY is not None
        with in_front([HAPROXY, "-f", config, "-db"], listener, tmp_path / "log") as client:
            for _ in range(3):
                told = environ_of(client)
                assert (told["REMOTE_ADDR"], told["REMOTE_PORT"]) == (
                    "127.0.0.9",
                    str(client.sock.getsockname()[1]),
                )
                assert told["wsgi.url_scheme"] == ("https" if number else "http")


NGINX_SITE = """
    upstream prefork {{ server {server}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port} reuseport;
        location /shop/ {{
            proxy_pass http://prefork/;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header Host inner;
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto https;
            proxy_set_header X-Forwarded-Host $host;
            proxy_set_header X-Forwarded-Port 8443;
            proxy_set_header X-Forwarded-Prefix /shop;
        }}
    }}
"""


def test_nginx_in_front(trusting: Server, tmp_path: Path) -> None:
    with socket.socket() as bound:
        bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        bound.bind(("127.0.0.1", 0))  # it never listens: it keeps the port for nginx
        site = NGINX_SITE.format(server=trusting.addresses[0], port=bound.getsockname()[1])
        command = nginx_command(tmp_path, site)
        with in_front(command, bound, tmp_path / "log") as client:
            for _ in range(3):
                answer = client.ask(request("/shop/environ", *SPOOFED))
                told = json.loads(answer.body)
                # What the client has claimed stands left of what nginx has seen.
                assert told["HTTP_X_FORWARDED_FOR"] == "203.0.113.9, 127.0.0.9"
                assert told["REMOTE_ADDR"] == "127.0.0.9"
                assert (told["wsgi.url_scheme"], told["HTTP_HOST"]) == ("https", "test:8443")
                assert (told["SCRIPT_NAME"], told["PATH_INFO"]) == ("/shop", "/environ")
                assert told["SERVER_PORT"] == "8443"
            # A client that says more than nginx knows of is found out.
            forged = client.ask(request("/shop/environ", "Forwarded: for=10.0.0.1"))
            assert forged.status == 400
