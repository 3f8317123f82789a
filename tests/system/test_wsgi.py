"""PEP 3333 as an application meets it: each test is run plain and under `wsgiref.validate` where
the validator allows what it does, by the main thread and by pool threads."""

import contextlib
import hashlib
import json
import os
import random
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from tests.apps import basic, environs
from tests.support.raw_http import chunked, request, talk
from tests.support.server import Event, Server, Start, servers
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"
VALIDATED = "tests.apps.validated:app"


def serving(app: str, threads: int, tmp: Path) -> Iterator[Server]:
    for start in servers(tmp):
        server = start(app, "--workers", "1", "--threads", str(threads)).wait_ready(1)
        server.expected_errors.add("application failed")
        yield server


THREADS = pytest.mark.parametrize("threads", [1, 4])


@pytest.fixture(
    scope="module", params=[(BASIC, 1), (BASIC, 4), (VALIDATED, 1), (VALIDATED, 4)], ids=str
)
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    app, threads = request.param
    for server in serving(app, threads, tmp_path_factory.mktemp("wsgi")):
        yield server
        # What the validator warns of, and what an interpreter says of lost exceptions.
        assert server.other == []


@pytest.fixture(scope="module", params=[1, 4])
def plain(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    """Without the validator, for what it forbids."""
    for server in serving(BASIC, request.param, tmp_path_factory.mktemp("wsgi")):
        yield server
        assert server.other == []


def failure(server: Server, before: int) -> Event:
    """The only failure that was logged since there were so many."""
    event = server.wait("application failed", before + 1)
    assert len(server.find("application failed")) == before + 1
    return event


def failures(server: Server) -> int:
    return len(server.find("application failed"))


def test_options_of_the_whole_server_has_the_path_that_the_validator_wants(
    server: Server,
) -> None:
    """RFC 3875 section 4.1.5: a path begins with a slash."""
    with talk(server) as client:
        answer = client.ask(request("*", method="OPTIONS"))
        assert (answer.status, answer.body) == (200, client.ask(request("/")).body)


ROUTES: list[tuple[str, int, bytes]] = [
    ("/big?n=1", 200, b"x"),
    ("/big?n=1000000", 200, b"x" * 1_000_000),
    ("/stream?n=4", 200, b"piece 0\npiece 1\npiece 2\npiece 3\n"),
    ("/stream?n=0", 200, b""),
    ("/write", 200, b"written twice, returned once"),
    ("/gen", 200, b"generated in pieces"),
    ("/close", 200, b"one two"),
    ("/nolength", 200, b"no length given"),
    ("/exc_info", 503, b"replaced"),
    ("/empty?status=204", 204, b""),
    ("/empty?status=304", 304, b""),
    ("/file", 200, Path(basic.__file__).read_bytes()),
    ("/file?offset=100", 200, Path(basic.__file__).read_bytes()[100:]),
    ("/file?memory=1", 200, b"from memory"),
    ("/missing", 404, b"not found"),
]


@pytest.mark.parametrize(("path", "status", "body"), ROUTES)
def test_each_kind_of_answer(server: Server, path: str, status: int, body: bytes) -> None:
    before = failures(server)
    with talk(server) as client:
        for _ in range(2):
            answer = client.ask(request(path))
            assert (answer.status, answer.body, answer.closes) == (status, body, False)
        head = client.ask(request(path, method="HEAD"), "HEAD")
        assert (head.status, head.body) == (status, b"")
        old = client.ask(request(path, version="HTTP/1.0"))
        assert (old.status, old.body, old.closes) == (status, body, True)
        assert old["Transfer-Encoding"] is None
        assert client.at_end()
    assert failures(server) == before


def test_the_server_knows_the_length_of_a_body_in_one_piece(plain: Server) -> None:
    with talk(plain) as client:
        assert client.ask(request("/nolength"))["Content-Length"] == "15"
        assert client.ask(request("/file"))["Content-Length"] == str(
            Path(basic.__file__).stat().st_size
        )


def test_headers_in_and_out(server: Server) -> None:
    with talk(server) as client:
        answer = client.ask(request("/headers", "X-Latin: caf\xe9", "X-Two: 1", "X-Two: 2"))
        assert answer.all("Set-Cookie") == ["a=1", "b=2"]
        assert answer["X-Latin"] == "caf\xe9"
        told = json.loads(answer.body)
        assert told["HTTP_X_LATIN"] == "caf\xe9"
        assert told["HTTP_X_TWO"] == "1, 2"
        assert json.loads(client.ask(request("/")).body)["hello"] == "world"


def test_bodies_come_and_go_unchanged(server: Server) -> None:
    body = random.Random(7).randbytes(300_000)
    with talk(server) as client:
        echo = ("/echo", "Content-Type: text/x")
        answer = client.ask(request(*echo, method="POST", body=body))
        assert answer.body == body
        assert answer["Content-Type"] == "text/x"
        head = request("/digest", "Transfer-Encoding: chunked", method="POST")
        told = json.loads(client.ask(head + chunked(body[:1000], body[1000:])).body)
        assert told == {"size": len(body), "sha256": hashlib.sha256(body).hexdigest()}


@THREADS
def test_what_the_environ_says_of_the_server(start: Start, threads: int) -> None:
    server = start(BASIC, "--workers", "1", "--threads", str(threads)).wait_ready(1)
    with talk(server) as client:
        environ = json.loads(client.ask(request("/environ")).body)
    assert environ["wsgi.version"] == [1, 0]
    assert environ["wsgi.multithread"] is (threads > 1)
    assert environ["wsgi.multiprocess"] is True
    assert environ["wsgi.run_once"] is False
    assert environ["wsgi.url_scheme"] == "http"
    assert environ["SERVER_SOFTWARE"].startswith("prefork/")


def test_each_piece_is_sent_as_it_is_made(server: Server, tmp_path: Path) -> None:
    held = tmp_path / "held"
    with talk(server) as client:
        client.send(request(f"/gate?path={held}"))
        assert client.head().status == 200
        assert client.line() == "8"
        assert client.line() == "before, "
        until(held.exists, "the application is at its second piece")
        held.unlink()
        assert b"".join(client.chunks()) == b"after"


# wsgi.input.

LINES = b"one\ntwo is longer\n\nfour without an end"


def lines_then(*rest: bytes) -> list[bytes]:
    return [*BytesIO(LINES).readlines(), *rest]


@pytest.mark.parametrize(
    ("how", "pieces"),
    [
        ("sizes", [LINES[:3], b"", LINES[3:], b""]),
        ("line", [b"one\n", b"tw", b"o is longer\n", b"\nfou"]),
        ("lines", lines_then(b"|")),
        ("hint", [b"one\n", b"two is longer\n", b"|", b"\nfour without an end"]),
        ("iteration", lines_then(b"|", b"")),
    ],
)
def test_each_way_to_read_the_body(server: Server, how: str, pieces: list[bytes]) -> None:
    with talk(server) as client:
        data = request(f"/read?how={how}", method="POST", body=LINES)
        told = json.loads(client.ask(data).body)
        assert [piece.encode("latin-1") for piece in told] == pieces
        # What was not read is not taken for the next request.
        assert client.ask(request("/nolength")).body == b"no length given"


@pytest.mark.parametrize("how", ["all", "minus"])
def test_read_without_a_size_is_all_there_is(plain: Server, how: str) -> None:
    with talk(plain) as client:
        answer = client.ask(request(f"/read?how={how}", method="POST", body=LINES))
        assert json.loads(answer.body) == [LINES.decode(), ""]
        assert json.loads(client.ask(request(f"/read?how={how}")).body) == ["", ""]


def test_a_body_that_the_application_leaves_unread_is_not_the_next_request(plain: Server) -> None:
    with talk(plain) as client:
        for body in (request("/error"), request("/error") * 5000):
            assert client.ask(request("/nolength", method="POST", body=body)).status == 200
        assert client.ask(request("/nolength")).status == 200


def test_each_way_to_read_a_body_that_is_on_disk(server: Server) -> None:
    body = b"".join(b"line %d\n" % number for number in range(20_000))
    expected = {
        "sizes": ["lin", "", body[3:].decode(), ""],
        "lines": [*body.decode().splitlines(keepends=True), "|"],
        "iteration": [*body.decode().splitlines(keepends=True), "|", ""],
    }
    with talk(server) as client:
        for how, pieces in expected.items():
            told = client.ask(request(f"/read?how={how}", method="POST", body=body))
            assert json.loads(told.body) == pieces


# Errors.


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_an_application_error_is_logged_and_answered_with_a_plain_500(
    server: Server, method: str
) -> None:
    before = failures(server)
    with talk(server) as client:
        body = b"unread" if method == "POST" else None
        answer = client.ask(request("/error?secret", method=method, body=body), method)
        assert (answer.status, answer.closes) == (500, True)
        assert answer["Content-Type"] == "text/plain; charset=utf-8"
        assert b"raised" not in answer.body
        assert b"Traceback" not in answer.body
        assert client.at_end()
    event = failure(server, before)
    assert event["level"] == "error"
    assert event["request"] == f"{method} /error?secret"
    assert event["peer"] == "127.0.0.1"
    assert event["traceback"].startswith("Traceback (most recent call last):\n")
    assert "basic.py" in event["traceback"]
    assert event["traceback"].rstrip().endswith("RuntimeError: raised by /error")


@pytest.mark.parametrize(
    ("path", "got"),
    [
        ("/error?after=1", b"first"),
        ("/close?fail=1", b"one "),
        ("/exc_info?sent=1", b"already out"),
    ],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_an_error_after_the_head_ends_the_answer_visibly_short(
    server: Server, path: str, got: bytes, version: str
) -> None:
    before = failures(server)
    with talk(server) as client:
        client.send(request(path, version=version) + request("/nolength"))
        head = client.head()
        assert head.status == 200
        if head["Transfer-Encoding"] == "chunked":
            assert client.rest() == b"%x\r\n%b\r\n" % (len(got), got)  # and no last chunk
        elif head["Content-Length"] is not None:
            assert client.rest() == got
        else:  # the end of the connection is the end of the body, so it has to be a reset
            assert client.rest_until_reset() == got
    assert "Error: raised by " in failure(server, before)["traceback"]


def test_exc_info_before_the_head_replaces_all_that_was_said(server: Server) -> None:
    with talk(server) as client:
        answer = client.ask(request("/exc_info"))
        assert (answer.status, answer.reason) == (503, "Service Unavailable")
        assert answer["X-Replaced"] is None


@pytest.mark.parametrize("code", [0, 3])
def test_sys_exit_ends_the_request_and_not_the_worker(plain: Server, code: int) -> None:
    before = failures(plain)
    with talk(plain) as client:
        pid = client.ask(request("/pid")).body
        assert client.ask(request(f"/exit?code={code}")).status == 500
        assert client.at_end()
    assert failure(plain, before)["traceback"].rstrip().endswith(f"SystemExit: {code}")
    with talk(plain) as client:
        assert client.ask(request("/pid")).body == pid


# A body that is not as long as its Content-Length says.

SOURCE = Path(basic.__file__).read_bytes()


@pytest.mark.parametrize(
    ("path", "claimed", "sent"),
    [
        ("/badlength?claim=10&send=5", 10, b"x" * 5),
        ("/badlength?claim=10&send=0", 10, b""),
        ("/badlength?claim=5&send=10", 5, b"x" * 5),
        ("/badlength?claim=0&send=10", 0, b""),
        ("/badlength?claim=200000&send=100000", 200_000, b"x" * 100_000),
        ("/badlength?claim=100000&send=200000", 100_000, b"x" * 100_000),
        ("/file?claim=1000000", 1_000_000, SOURCE),
    ],
)
@pytest.mark.parametrize("version", ["HTTP/1.1", "HTTP/1.0"])
def test_a_wrong_length_is_logged_and_the_connection_never_loses_step(
    plain: Server, path: str, claimed: int, sent: bytes, version: str
) -> None:
    before = failures(plain)
    with talk(plain) as client:
        stay = request(path, "Connection: keep-alive", version=version)
        client.send(stay + request("/nolength") * 2)
        head = client.head()
        assert (head.status, head["Content-Length"]) == (200, str(claimed))
        # Not a byte of what the next request would have got, then the end.
        assert client.rest() == sent
    event = failure(plain, before)
    assert event["request"] == f"GET {path}"
    assert "Content-Length" in event["traceback"]


def test_a_wrong_length_of_head_disturbs_no_client(plain: Server) -> None:
    with talk(plain) as client:
        answer = client.ask(request("/badlength?claim=10&send=5", method="HEAD"), "HEAD")
        assert answer["Content-Length"] == "10"
        assert client.ask(request("/nolength")).status == 200


@pytest.mark.parametrize(
    ("path", "body"), [("/file?claim=100", SOURCE[:100]), (f"/file?claim={len(SOURCE)}", SOURCE)]
)
def test_of_a_file_as_much_is_sent_as_the_application_says(
    plain: Server, path: str, body: bytes
) -> None:
    with talk(plain) as client:
        for _ in range(2):
            assert client.ask(request(path)).body == body


# close().


def closed(server: Server) -> int:
    with talk(server) as client:
        return int(client.ask(request("/close?count=1")).body)


@pytest.mark.parametrize(
    ("path", "method"), [("/close", "GET"), ("/close", "HEAD"), ("/close?fail=1", "GET")]
)
def test_the_iterable_is_closed_once_whatever_became_of_it(
    server: Server, path: str, method: str
) -> None:
    before = closed(server)
    with talk(server) as client:
        client.ask(request("/pid"))
        client.send(request(path, "Connection: close", method=method))
        client.rest()
    until(lambda: closed(server) == before + 1, "one more is closed")


def test_the_iterable_is_closed_when_its_client_goes(server: Server) -> None:
    before = closed(server)
    for _ in range(3):
        with talk(server) as client:
            client.send(request("/endless"))
            assert client.head().status == 200
    until(lambda: closed(server) == before + 3, "all are closed")


@THREADS
def test_the_iterable_is_closed_when_its_client_stays_and_takes_nothing(
    start: Start, threads: int
) -> None:
    server = start(
        *(BASIC, "--workers", "1", "--threads", str(threads)),
        *("--set", "http.write_timeout=0.3", "--set", "http.response_spill=100000"),
    ).wait_ready(1)
    with talk(server, receive_buffer=65_536) as client:
        client.send(request("/endless"))
        assert client.head().status == 200
        until(lambda: closed(server) == 1, "it is closed")


# wsgi.file_wrapper.


@pytest.fixture(scope="module")
def large(tmp_path_factory: Any) -> Path:
    path: Path = tmp_path_factory.mktemp("large") / "large"
    path.write_bytes(random.Random(3).randbytes(6_000_000))
    return path


@pytest.mark.parametrize("offset", [0, 1, 5_999_999, 6_000_000])
def test_a_large_file_arrives_whole_from_its_position_on(
    server: Server, large: Path, offset: int
) -> None:
    with talk(server) as client:
        for _ in range(2):
            answer = client.ask(request(f"/file?path={large}&offset={offset}"))
            assert answer.body == large.read_bytes()[offset:]


def test_files_are_closed_behind_their_answers(server: Server, large: Path) -> None:
    (worker,) = server.workers()
    with talk(server) as client:
        for _ in range(5):
            client.ask(request(f"/file?path={large}"))
    with talk(server) as client:
        client.send(request(f"/file?path={large}"))
        client.head()
    until(
        lambda: str(large) not in [file.path for file in worker.open_files()],
        "all are closed again",
    )


@pytest.mark.skipif(
    shutil.which("strace") is None and os.environ.get("CI") != "true",
    reason="strace is not installed",
)
@THREADS
def test_the_kernel_sends_the_file_itself(
    start: Start, threads: int, large: Path, tmp_path: Path
) -> None:
    server = start(BASIC, "--workers", "1", "--threads", str(threads)).wait_ready(1)
    (worker,) = server.workers()
    calls = tmp_path / "calls"
    command = ["strace", "-f", "-p", str(worker.pid), "-o", str(calls), "-e", "signal=none"]
    command += ["-e", "trace=sendfile,read,pread64"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as strace:
        try:
            assert strace.stderr is not None
            first = strace.stderr.readline()
            if "attached" not in first and os.environ.get("CI") != "true":
                pytest.skip(f"strace may not look at a process here: {first.strip()}")
            with talk(server) as client:
                answer = client.ask(request(f"/file?path={large}"))
                assert answer.body == large.read_bytes()
                # Not before the last call for the file has come back, and so been written down.
                assert client.ask(request("/pid")).status == 200
        finally:
            strace.send_signal(signal.SIGINT)
            strace.wait(PATIENCE)
    traced = calls.read_text()
    sent = [int(n) for n in re.findall(r"sendfile\(.*\)\s*= (\d+)$", traced, re.MULTILINE)]
    sent += [int(n) for n in re.findall(r"sendfile resumed>.*\)\s*= (\d+)$", traced, re.MULTILINE)]
    assert sum(sent) == 6_000_000, traced
    read = [int(n) for n in re.findall(r" (?:p?read(?:64)?)\(.*= (\d+)$", traced, re.MULTILINE)]
    assert sum(read) < 1_000_000, traced


# What an application does to its environ.

ENVIRONS = "tests.apps.environs:app"


@THREADS
@pytest.mark.parametrize("access", ["common", "combined", "json"])
def test_an_application_may_empty_its_environ(
    start: Start, tmp_path: Path, threads: int, access: str
) -> None:
    log = tmp_path / "access.log"
    settings = ("--set", f"log.access={log}", "--set", f"log.access_format={access}")
    server = start(ENVIRONS, "--workers", "1", "--threads", str(threads), *settings).wait_ready(1)
    server.expected_errors = {"application failed"}
    for _ in range(5):  # a request that came before is answered in another way
        with contextlib.closing(server.http()) as connection:
            for path in ("/", "/pieces"):
                connection.request("GET", path)
                answer = connection.getresponse()
                assert (answer.status, answer.read()) == (200, environs.BODY)
    assert server.get("/raises")[0] == 500
    assert "with an empty environ" in server.wait("application failed")["traceback"]
    assert not server.find("worker died")
    until(lambda: len(log.read_text().splitlines()) == 11, "a line for each answer")


def test_a_request_that_takes_too_long_is_given_up_without_its_environ(start: Start) -> None:
    settings = ("--set", "workers.request_timeout=0.5", "--set", "workers.graceful_timeout=1")
    server = start(ENVIRONS, "--workers", "1", *settings).wait_ready(1)
    server.expected_errors = {"request timed out", "worker died", "worker killed"}
    assert server.get("/stuck")[0] == 504
    server.wait("worker ready", 2)


@THREADS
def test_the_method_of_the_client_decides_whether_it_gets_a_body(
    start: Start, threads: int
) -> None:
    """Some serve HEAD as if it were GET; a body would be read as the head of the next answer."""
    server = start(ENVIRONS, "--workers", "1", "--threads", str(threads)).wait_ready(1)
    asked = [
        ("HEAD", "/as-get", b""),
        ("GET", "/as-head", environs.BODY),
        ("HEAD", "/as-head", b""),
    ]
    with contextlib.closing(server.http()) as connection:
        for method, path, body in asked * 6:
            connection.request(method, path)
            answer = connection.getresponse()
            assert answer.status == 200
            assert answer.headers["Content-Length"] == str(len(environs.BODY))
            assert answer.read() == body
