"""Whatever an application leaves behind of one request, the next one and the worker are unhurt."""

import contextlib
import json
from pathlib import Path

import pytest

from tests.support.raw_http import request, talk
from tests.support.server import Start

CARELESS = "tests.apps.careless:app"

KEYS = (
    *("REMOTE_ADDR", "REMOTE_USER", "REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"),
    *("HTTP_REFERER", "HTTP_USER_AGENT", "prefork.request_id", "wsgi.input", "wsgi.errors"),
    *("PATH_INFO", "wsgi.early_hints"),
)


@pytest.mark.parametrize("format", ["common", "combined", "json"])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_an_unreadable_object_in_the_environ_costs_nobody_a_connection(
    start: Start, tmp_path: Path, format: str, threads: str
) -> None:
    """Neither for one key nor for all at once, and the access log has a line for each response."""
    log = tmp_path / "access"
    server = start(
        *(CARELESS, "--workers", "1", "--threads", threads),
        *("--set", f"log.access={log}", "--set", f"log.access_format={format}"),
        *("--set", "http.request_id_header=X-Request-ID"),
    ).wait_ready(1)
    server.expected_errors.add("application failed")
    paths = [f"/leave?key={key}" for key in KEYS] + [f"/leave?key={','.join(KEYS)}"]
    with talk(server) as other:
        assert other.ask(request("/keep")).status == 200
        with talk(server) as client:
            for path in paths:
                assert client.ask(request(path)).status == 200
        for path in paths:
            with talk(server) as client:
                assert client.ask(request(f"{path}&fail=1")).status == 500
        assert other.ask(request("/keep")).status == 200
    event = server.wait("access log value unreadable", level="warning")
    assert event["reason"] == "LookupError: the database is away"
    assert len(server.find("worker ready")) == 1
    server.stop()
    lines = log.read_text(encoding="ascii").splitlines()
    assert len(lines) == 2 * len(paths) + 2
    assert sum("(unreadable)" in line for line in lines) >= 2 * len(KEYS[:5])
    if format == "json":
        assert {json.loads(line)["status"] for line in lines} == {200, 500}


@pytest.mark.parametrize("stream", ["true", "false"])
def test_what_a_thread_kept_of_a_request_writes_nothing_into_the_next(
    start: Start, stream: str
) -> None:
    """write() raises after the end; early hints and the body have no effect on another request."""
    server = start(CARELESS, "--workers", "1", "--set", f"http.stream_body={stream}")
    with talk(server) as client:
        for by in ("list", "iterator", "write"):
            for _ in range(3):  # the third is one whose head was read before
                assert (by, client.ask(request(f"/keep?by={by}")).body) == (by, b"kept")
        answer = client.ask(request("/late"))
        first, *said = answer.body.decode().splitlines()
        assert (answer.status, first) == (200, "first")
        assert len(said) == 27
        for write in said[::3]:
            assert (
                write == "MisbehavedApplication: write() was called after the end of the response"
            )
        assert set(said[1::3]) == {"-"}
        assert client.ask(request("/keep")).body == b"kept"


def test_a_thread_that_writes_until_it_is_refused_stays_in_its_own_response(start: Start) -> None:
    """Also when the end of the response comes in the middle of a write()."""
    server = start(CARELESS, "--workers", "1", "--threads", "1").wait_ready(1)
    times = 50
    with talk(server) as client:
        for _ in range(times):
            answer = client.ask(request("/hammer"))
            assert answer.status == 200
            assert set(answer.body) <= set(b"wi")
            assert answer.body.count(b"i") == 10
            assert client.ask(request("/keep")).body == b"kept"
        assert client.ask(request(f"/refusals?n={times}")).body == b"all refused"


def test_a_thread_that_reads_on_after_the_response_takes_nothing_of_the_next_request(
    start: Start,
) -> None:
    """The connection ends if such a thread is waiting for the body, and goes on if it is not."""
    server = start(CARELESS, "--workers", "1", "--set", "http.stream_body=true")
    for _ in range(20):
        with talk(server) as client:
            client.send(request("/overread", "Content-Length: 10", method="POST") + b"four")
            assert client.answer().body == b"answered"
            with contextlib.suppress(ConnectionError):
                client.send(b"sixsix" + request("/keep"))
                if not client.at_end():
                    assert client.answer().body == b"kept"
