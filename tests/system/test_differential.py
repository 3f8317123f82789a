"""With nginx in front: where it forwards, both sides read the same requests, one by one.

One nginx and one server for the whole corpus, for each of two ways to read a body. nginx writes
down what it believes that it forwards, the application what it gets; the PROXY protocol's port
names the framing in both logs.
"""

import contextlib
import json
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

from tests.system.framings import INNER, LAST, corpus
from tests.system.nginx import nginx_command
from tests.system.server import PATIENCE, Server, read_all, servers, until

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

Seen = tuple[str, str, str]
"""Method, target and body."""


@dataclass
class Outcome:
    """What became of one framing."""

    forwarded: list[tuple[str, str, str, str]] = field(default_factory=list)
    """What nginx says: method, target, the status that it got, what the application saw."""
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
def outcomes(place: Path, server: Server) -> dict[str, dict[str, Outcome]]:
    """Of each framing, by the way it took."""
    (place / "seen.log").touch()
    site, access = SITE.format(root=place), f"{place}/access.log both"
    command = nginx_command(place, site, log=place / "error.log", access=access)
    process = subprocess.Popen(command)
    framings = list(corpus().items())
    try:
        until((place / "pid").exists, "nginx listens")
        for first, way in ((1, "buffered"), (10_001, "streamed")):
            for at in range(0, len(framings), 50):
                send(
                    place / f"{way}.sock", first + at, [data for _, data in framings[at : at + 50]]
                )
        process.send_signal(signal.SIGQUIT)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        process.wait()
    found = collected(place)
    assert set(found) <= {str(first + n) for first in (1, 10_001) for n in range(len(framings))}
    return {
        way: {
            name: found.get(str(first + number), Outcome())
            for number, (name, _) in enumerate(framings)
        }
        for first, way in ((1, "buffered"), (10_001, "streamed"))
    }


def send(path: Path, first: int, framings: list[bytes]) -> None:
    """All at once, each on its connection, until nginx closes them."""
    with ExitStack() as stack:
        clients = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in framings]
        for number, (client, data) in enumerate(zip(clients, framings, strict=True), first):
            client.settimeout(PATIENCE)
            client.connect(str(path))
            client.sendall(b"PROXY TCP4 127.0.0.1 127.0.0.1 %d 80\r\n" % number + data + LAST)
        for client in clients:
            with contextlib.suppress(ConnectionResetError):
                read_all(client)


def collected(place: Path) -> dict[str, Outcome]:
    found: dict[str, Outcome] = defaultdict(Outcome)
    for line in (place / "access.log").read_bytes().splitlines():
        entry = json.loads(line.decode("latin-1"))
        if entry["status"]:  # else nginx refused it itself
            outcome = found[entry["id"]]
            # Of an absolute target without a path it says so, and forwards "/".
            uri = entry["uri"] if entry["uri"].startswith(("/", "*")) else "/" + entry["uri"]
            outcome.forwarded.append((entry["method"], uri, entry["status"], entry["seen"]))
            outcome.bodies.append(entry["body"])
    for line in (place / "seen.log").read_bytes().splitlines():
        origin, *seen = json.loads(line)
        found[str(origin)].seen.append(tuple(seen))
    return found


@pytest.mark.parametrize("way", ["buffered", "streamed"])
def test_both_sides_agree_on_number_and_boundaries(
    outcomes: dict[str, dict[str, Outcome]], way: str
) -> None:
    wrong = {}
    for name, outcome in outcomes[way].items():
        # What prefork refused it did not read as a request, and it closed the connection.
        taken = [entry for entry in outcome.forwarded if entry[2] == "200"]
        told = [list(entry[:2]) for entry in taken]
        if told != [list(seen[:2]) for seen in outcome.seen] or told != [
            json.loads(entry[3]) for entry in taken
        ]:
            wrong[name] = outcome
        if way == "buffered":
            bodies = [
                body
                for entry, body in zip(outcome.forwarded, outcome.bodies, strict=True)
                if entry[2] == "200"
            ]
            if bodies != [seen[2] for seen in outcome.seen]:
                wrong[name] = outcome
    assert not wrong


def test_a_body_is_the_same_whether_nginx_has_it_first_or_passes_it_on(
    outcomes: dict[str, dict[str, Outcome]],
) -> None:
    for name, outcome in outcomes["buffered"].items():
        assert outcomes["streamed"][name].seen == outcome.seen, name


def test_the_corpus_is_large_and_much_of_it_is_forwarded(
    outcomes: dict[str, dict[str, Outcome]],
) -> None:
    assert len(outcomes["buffered"]) >= 300
    assert sum(bool(outcome.seen) for outcome in outcomes["buffered"].values()) >= 100


def test_nothing_in_a_body_was_taken_for_a_request(
    outcomes: dict[str, dict[str, Outcome]],
) -> None:
    """Not by prefork where nginx did not: those that nginx reads so are requests to both."""
    for way in outcomes.values():
        for name, outcome in way.items():
            smuggled = [seen for seen in outcome.seen if seen[1] == "/smuggled"]
            forwarded = [entry for entry in outcome.forwarded if entry[1] == "/smuggled"]
            assert len(smuggled) == len(forwarded), name
    # The corpus does try it.
    assert any(INNER in data for data in corpus().values())
