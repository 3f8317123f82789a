"""With nginx or HAProxy in front: where it forwards, both sides read the same requests.

One of each and one server for the whole corpus, for each of two ways to read a body. The proxy
writes down what it believes that it forwards, the application what it gets; the PROXY protocol's
port names the framing in both logs.
"""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
from collections import defaultdict
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from tests.support.framings import INNER, LAST, corpus
from tests.support.nginx import nginx_running
from tests.support.server import Server, servers
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until

SITE = """
    log_format both escape=json '{{"id": "$proxy_protocol_port", "method": "$request_method", '
        '"uri": "$request_uri", "body": "$request_body", "status": "$upstream_status", '
        '"seen": "$upstream_http_x_seen"}}';
    ignore_invalid_headers off;
    underscores_in_headers on;
    merge_slashes off;
    client_header_timeout 300ms;
    client_body_timeout 300ms;
    client_body_buffer_size 64k;
    lingering_close off;
    upstream prefork {{
        server unix:{root}/prefork.sock;
        keepalive 4;
    }}
    server {{
        listen unix:{root}/buffered.sock proxy_protocol;
        location / {{
            proxy_pass http://prefork;
            proxy_http_version 1.1;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_set_header X-Origin $proxy_protocol_port;
        }}
    }}
    server {{
        listen unix:{root}/streamed.sock proxy_protocol;
        location / {{
            proxy_pass http://prefork;
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_set_header Host $http_host;
            proxy_set_header Connection "";
            proxy_set_header X-Origin $proxy_protocol_port;
        }}
    }}
"""

# A variable that is set to the sample `method` becomes OPTIONS for each method that HAProxy does
# not know (that is the first of its numbers), so the log takes the captured one.
HAPROXY = """
global
    log stderr format raw local0
defaults
    mode http
    log global
    timeout connect 30s
    timeout server 30s
    timeout client 300ms
    timeout http-request 300ms
frontend f
    bind unix@{root}/haproxy.sock accept-proxy
    http-request set-var(txn.uri) url
    http-request set-header X-Origin %[src_port]
    http-response set-var(txn.status) status
    http-response set-var(txn.seen) res.fhdr(X-Seen)
    log-format '{{"id": "%[src_port]", "method": "%[capture.req.method]", \
"uri": "%[var(txn.uri),json(utf8s)]", "status": "%[var(txn.status)]", \
"seen": "%[var(txn.seen),json(utf8s)]"}}'
    default_backend b
backend b
    server s unix@{root}/prefork.sock
"""

FIRST = {"buffered": 1, "streamed": 10_001, "haproxy": 20_001}
"""The port that the first framing comes from, by the way it takes."""

FRAMINGS = list(corpus().values())

Seen = tuple[str, str, str]
"""Method, target and body."""


@dataclass
class Outcome:
    """What became of one framing."""

    forwarded: list[tuple[str, str, str, str]] = field(default_factory=list)
    """What the proxy says: method, target, the status that it got, what the application saw."""
    bodies: list[str] = field(default_factory=list)
    """The bodies of the same, where nginx had them whole."""
    seen: list[Seen] = field(default_factory=list)
    """What the application got."""


@pytest.fixture(scope="module", params=["false", "true"], ids=["gathered", "stream_body"])
def stream_body(request: pytest.FixtureRequest) -> str:
    """Whether the application reads a body while it comes."""
    return str(request.param)


@pytest.fixture(scope="module")
def place(tmp_path_factory: Any, stream_body: str) -> Path:
    path: Path = tmp_path_factory.mktemp("differential")
    (path / "seen.log").touch()
    return path


@pytest.fixture(scope="module")
def server(place: Path, stream_body: str) -> Iterator[Server]:
    for start in servers(place):
        yield start(
            *("tests.apps.witness:app", "--workers", "1"),
            *("--set", f"http.stream_body={stream_body}"),
            bind=(f"unix:{place}/prefork.sock",),
            env={"WITNESS": f"{place}/seen.log"},
        ).wait_ready(1)


@pytest.fixture(scope="module")
def behind_nginx(place: Path, server: Server) -> dict[str, dict[str, Outcome]]:
    """Of each framing, by the way it took."""
    site, access = SITE.format(root=place), f"{place}/access.log both"
    with nginx_running(place, site, log=place / "error.log", access=access) as process:
        for way in ("buffered", "streamed"):
            for at in range(0, len(FRAMINGS), 50):
                send(place / f"{way}.sock", FIRST[way] + at, FRAMINGS[at : at + 50])
        process.send_signal(signal.SIGQUIT)
        assert process.wait(PATIENCE) == 0
    return {way: collected(place, way, "access.log") for way in ("buffered", "streamed")}


@pytest.fixture(scope="module")
def behind_haproxy(place: Path, server: Server) -> dict[str, Outcome]:
    program = shutil.which("haproxy", path=os.environ.get("PATH", "") + ":/usr/sbin")
    if program is None:
        pytest.skip("haproxy is not installed")
    config = place / "haproxy.cfg"
    config.write_text(HAPROXY.format(root=place))
    path = place / "haproxy.sock"

    def listens() -> bool:
        with socket.socket(socket.AF_UNIX) as sock:
            return sock.connect_ex(str(path)) == 0

    with (
        (place / "haproxy.log").open("wb") as log,
        subprocess.Popen([program, "-db", "-f", config], stderr=log) as process,
    ):
        try:
            until(listens, "HAProxy listens")
            for at in range(0, len(FRAMINGS), 50):
                send(path, FIRST["haproxy"] + at, FRAMINGS[at : at + 50])
            process.send_signal(signal.SIGUSR1)
            process.wait(PATIENCE)
        finally:
            process.kill()
    return collected(place, "haproxy", "haproxy.log")


def send(path: Path, first: int, framings: list[bytes]) -> None:
    """All at once, each on its connection, until the proxy closes them."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in framings]
        for number, (client, data) in enumerate(zip(clients, framings, strict=True), first):
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 %d 80\r\n" % number + data + LAST)
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                read_all(client)


def collected(place: Path, way: str, log: str) -> dict[str, Outcome]:
    """By framing: what the proxy's log and the application's say of those that took that way."""
    found: dict[str, Outcome] = defaultdict(Outcome)
    first = FIRST[way]
    names = {str(number): name for number, name in enumerate(corpus(), first)}
    for line in (place / log).read_bytes().splitlines():
        entry = json.loads(line.decode("latin-1")) if line.startswith(b"{") else {}
        name = names.get(entry.get("id", ""))
        # Else the proxy refused it itself; HAProxy says "-" of what is not there.
        if name is not None and entry["status"].isdigit():
            # Of an absolute target without a path nginx says so, and forwards "/".
            uri = "/" * (entry["uri"][:1] in ("", "?")) + entry["uri"]
            found[name].forwarded.append((entry["method"], uri, entry["status"], entry["seen"]))
            found[name].bodies.append(entry.get("body", ""))
    for line in (place / "seen.log").read_bytes().splitlines():
        origin, *seen = json.loads(line)
        if origin in names:
            found[names[origin]].seen.append(tuple(seen))
    return {name: found[name] for name in names.values()}


def disagreements(outcomes: dict[str, Outcome]) -> dict[str, Outcome]:
    """Where proxy and application have not read the same requests, one by one."""
    wrong = {}
    for name, outcome in outcomes.items():
        # What prefork refused it did not read as a request, and it closed the connection.
        taken = [entry for entry in outcome.forwarded if entry[2] == "200"]
        told = [list(entry[:2]) for entry in taken]
        if told != [list(seen[:2]) for seen in outcome.seen] or told != [
            json.loads(entry[3]) for entry in taken
        ]:
            wrong[name] = outcome
    return wrong


@pytest.mark.parametrize("way", ["buffered", "streamed"])
def test_both_sides_agree_on_number_and_boundaries(
    behind_nginx: dict[str, dict[str, Outcome]], way: str
) -> None:
    assert not disagreements(behind_nginx[way])


def test_haproxy_agrees_as_nginx_does(behind_haproxy: dict[str, Outcome]) -> None:
    assert not disagreements(behind_haproxy)


def test_nginx_and_the_application_have_the_same_bodies(
    behind_nginx: dict[str, dict[str, Outcome]],
) -> None:
    for name, outcome in behind_nginx["buffered"].items():
        bodies = [
            body
            for entry, body in zip(outcome.forwarded, outcome.bodies, strict=True)
            if entry[2] == "200"
        ]
        assert bodies == [seen[2] for seen in outcome.seen], name


def test_a_body_is_the_same_whether_nginx_has_it_first_or_passes_it_on(
    behind_nginx: dict[str, dict[str, Outcome]],
) -> None:
    for name, outcome in behind_nginx["buffered"].items():
        assert behind_nginx["streamed"][name].seen == outcome.seen, name


def test_a_body_is_the_same_behind_either_proxy(
    behind_nginx: dict[str, dict[str, Outcome]], behind_haproxy: dict[str, Outcome]
) -> None:
    """Where both forward all of it: one may refuse what the other does not."""
    compared = 0
    for name, outcome in behind_haproxy.items():
        other = behind_nginx["buffered"][name]
        if [seen[:2] for seen in outcome.seen] == [seen[:2] for seen in other.seen]:
            assert outcome.seen == other.seen, name
            compared += bool(outcome.seen)
    assert compared >= 100


def test_the_corpus_is_large_and_much_of_it_is_forwarded(
    behind_nginx: dict[str, dict[str, Outcome]], behind_haproxy: dict[str, Outcome]
) -> None:
    for outcomes in (*behind_nginx.values(), behind_haproxy):
        assert len(outcomes) >= 300
        assert sum(bool(outcome.seen) for outcome in outcomes.values()) >= 100


def test_nothing_in_a_body_was_taken_for_a_request(
    behind_nginx: dict[str, dict[str, Outcome]], behind_haproxy: dict[str, Outcome]
) -> None:
    """Not by prefork where the proxy did not: those that it reads so are requests to both."""
    for way in (*behind_nginx.values(), behind_haproxy):
        for name, outcome in way.items():
            smuggled = [seen for seen in outcome.seen if seen[1] == "/smuggled"]
            forwarded = [entry for entry in outcome.forwarded if entry[1] == "/smuggled"]
            assert len(smuggled) == len(forwarded), name
    # The corpus does try it.
    assert any(INNER in data for data in corpus().values())
