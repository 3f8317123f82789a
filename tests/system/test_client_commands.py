"""`get` and `talk` as processes: what they print, and their exit codes."""

import contextlib
import os
import pty
import re
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.commands import prefork_command
from tests.support.hostile_servers import (
    OK,
    Handler,
    Recorder,
    answer,
    answers,
    expect_end,
    reset,
    serving,
)
from tests.support.sockets import closed_port, read_head

MIB = 1 << 20


def command(name: str, *arguments: str) -> list[str]:
    return prefork_command(name, *arguments)


class Done:
    """How a command ended."""

    def __init__(self, done: subprocess.CompletedProcess[bytes]) -> None:
        self.code = done.returncode
        self.out = done.stdout
        self.err = done.stderr.decode()
        assert "Traceback" not in self.err, self.err


def get(*arguments: str, stdin: bytes = b"") -> Done:
    """Standard input is a pipe."""
    return Done(
        subprocess.run(command("get", *arguments), input=stdin, capture_output=True, timeout=60)
    )


def talk(*arguments: str, stdin: bytes = b"") -> Done:
    return Done(
        subprocess.run(command("talk", *arguments), input=stdin, capture_output=True, timeout=60)
    )


# get


def test_bodies_of_several_urls_on_standard_output() -> None:
    def handle(sock: socket.socket) -> None:
        for body in (b"\0one\n", b"two"):
            read_head(sock)
            sock.sendall(answer(body))
        expect_end(sock)

    with serving(handle) as server:
        done = get(server.url, f"127.0.0.1:{server.port}")
    assert (done.code, done.out, done.err) == (0, b"\0one\ntwo", "")


def test_bodies_in_files(tmp_path: Path) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    with serving(Recorder()) as server:
        done = get(*[server.url] * 3, "-o", str(first), "-o", "-")
        assert (done.code, done.out, first.read_bytes()) == (0, b"okok", b"ok")
    with serving(answers(answer(bytes(3 * MIB)))) as server:
        done = get(server.url, "--output", str(second))
    assert (done.code, done.out, second.read_bytes()) == (0, b"", bytes(3 * MIB))
    # No terminal, no bar.
    assert done.err == ""


def test_the_head_before_the_body() -> None:
    with serving(answers(answer(b"x", "X-Case: Kept", status="404 Nowhere"))) as server:
        done = get("-i", server.url)
    assert done.out == b"HTTP/1.1 404 Nowhere\r\nContent-Length: 1\r\nX-Case: Kept\r\n\r\nx"
    assert done.code == 0


def test_each_system_call_on_standard_error() -> None:
    with serving(answers(answer(b"x"))) as server:
        done = get("-v", server.url)
    lines = done.err.splitlines()
    took = r" \[[\d.]+ (us|ms|s)\]"
    patterns = [
        r"getaddrinfo\(127.0.0.1, \d+\) = 127.0.0.1:\d+",
        r"socket\(AF_INET, SOCK_STREAM\) = \d+",
        r"connect\(\d+, 127.0.0.1:\d+\) = 0",
        r'sendall\(\d+, \d+ bytes "GET / HTTP/1.1\\r\\n.*"\.\.\.\) = 0',
        r'recv\(\d+, 65536\) = \d+ bytes "HTTP/1.1 200 OK\\r\\n.*"(\.\.\.)?',
        r"shutdown\(\d+, SHUT_WR\) = 0",
        r"close\(\d+\) = 0",
    ]
    assert len(lines) == len(patterns)
    for line, pattern in zip(lines, patterns, strict=True):
        assert re.fullmatch(pattern + took, line), line
    assert done.out == b"x"


def test_method_headers_and_text() -> None:
    recorder = Recorder()
    with serving(recorder) as server:
        done = get(
            *["-X", "PATCH", "-H", "X-A: b", "-H", "Accept:", "--data", "a=ü", server.url + "x"]
        )
    assert (done.code, done.out) == (0, b"ok")
    assert recorder.lines == ["PATCH /x"]
    assert recorder.bodies == ["a=ü".encode()]
    assert recorder.heads[0]["x-a"] == "b"
    assert "accept" not in recorder.heads[0]


def test_data_makes_it_a_post() -> None:
    recorder = Recorder()
    with serving(recorder) as server:
        get("-d", "", server.url)
    assert recorder.lines == ["POST /"]


def test_data_from_a_pipe_and_from_files(tmp_path: Path) -> None:
    data = os.urandom(2 * MIB)
    path = tmp_path / "data"
    path.write_bytes(data)
    recorder = Recorder()
    with serving(recorder, recorder, recorder) as server, open(path, "rb") as file:
        assert get("-d", "@-", server.url, stdin=data).code == 0
        assert get("-d", f"@{path}", server.url, server.url).code == 0
        subprocess.run(
            command("get", "-d", "@-", server.url),
            stdin=file,
            stdout=subprocess.DEVNULL,
            timeout=60,
            check=True,
        )
    assert recorder.bodies == [data] * 4
    lengths = [head.get("content-length") for head in recorder.heads]
    assert lengths == [None, *[str(len(data))] * 3]


def test_a_unix_socket(tmp_path: Path) -> None:
    with serving(Recorder(), path=tmp_path / "sock"):
        done = get("--unix", str(tmp_path / "sock"), "http://any.example/")
    assert (done.code, done.out) == (0, b"ok")


def redirects(count: int) -> Handler:
    """So many redirects, then an answer, all on one connection."""

    def handle(sock: socket.socket) -> None:
        for _ in range(count):
            read_head(sock)
            sock.sendall(answer(b"moved", "Location: /again", status="302 Found"))
        read_head(sock)
        sock.sendall(answer(b"there"))
        expect_end(sock)

    return handle


def test_redirects_are_followed_when_asked_for() -> None:
    moved = answers(answer(b"moved", "Location: /b", status="302 Found"))
    with serving(moved, redirects(10), moved) as server:
        assert get(server.url).out == b"moved"
        assert get("-L", server.url).out == b"there"
        done = get("-L", "--max-redirs", "0", server.url)
    assert (done.code, done.out) == (1, b"")
    assert done.err == f"prefork get: {server.url}: redirect: more than 0 in a row\n"


def test_headers_of_the_users_that_another_origin_does_not_get_are_named() -> None:
    with serving(Recorder()) as there:
        moved = answers(answer(b"", f"Location: {there.url}", status="302 Found"))
        with serving(moved) as server:
            done = get("-L", "-H", "X-Token: s3cret", "-H", "Accept: text/plain", server.url)
    assert (done.code, done.out) == (0, b"ok")
    assert done.err == (
        f"prefork get: {server.url}: redirect: to another origin, without your headers: X-Token\n"
    )


def test_a_status_that_fails() -> None:
    missing = answers(answer(b"body", status="404 Not Found"))
    with serving(missing, missing, answers(answer(b"ok"))) as server:
        assert get(server.url).code == 0
        done = get("-f", server.url)
        assert (done.code, done.out) == (22, b"")
        assert done.err == f"prefork get: {server.url}: 404 Not Found\n"
        assert get("-f", server.url).code == 0


def test_a_failure_is_one_line_and_does_not_stop_the_others(tmp_path: Path) -> None:
    bad = f"http://127.0.0.1:{closed_port()}/"
    kept = tmp_path / "kept"
    kept.write_text("old")
    with serving(Recorder()) as server:
        done = get(bad, server.url, "-o", str(kept))
    assert (done.code, done.out) == (1, b"ok")
    host = bad.removeprefix("http://").removesuffix("/")
    assert done.err == f"prefork get: {bad}: connect: {host}: Connection refused\n"
    # Nothing came: the file is as it was.
    assert kept.read_text() == "old"


def test_timeouts() -> None:
    with serving(answers()) as server:
        done = get("--timeout", "0.3", server.url)
    assert done.code == 1
    assert "timed out" in done.err
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(2):  # One more than the backlog is let in, listen(2).
            waiting = stack.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        port = full.getsockname()[1]
        done = get("--connect-timeout", "0.1", f"127.0.0.1:{port}")
    assert (done.code, done.err.endswith("timed out\n")) == (1, True)


def test_a_file_that_cannot_be_written() -> None:
    with serving(Recorder(), Recorder()) as server:
        done = get("-o", "/dev/full", server.url)
        assert done.code == 1
        assert done.err == f"prefork get: {server.url}: write /dev/full: No space left on device\n"
        done = get("-o", "/nowhere/x", server.url)
        assert "write /nowhere/x: No such file or directory" in done.err


def endless(sock: socket.socket) -> None:
    read_head(sock)
    with contextlib.suppress(ConnectionError):
        sock.sendall(OK + b"\r\n")
        while True:
            sock.sendall(bytes(65536))


@pytest.mark.parametrize("name", ["get", "talk"])
def test_a_reader_that_leaves_is_no_matter(name: str) -> None:
    with serving(endless) as server:
        where = server.url if name == "get" else f"127.0.0.1:{server.port}"
        with subprocess.Popen(
            command(name, where),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            assert process.stderr is not None
            process.stdin.write(b"GET / HTTP/1.1\r\n\r\n")
            process.stdin.flush()
            assert process.stdout.read(10)
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 1


def on_terminal(*arguments: str) -> tuple[int, str]:
    """Runs `get` with standard error on a terminal: its exit code and what the terminal shows."""
    ours, theirs = pty.openpty()
    done = subprocess.run(command("get", *arguments), stderr=theirs, timeout=60)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    return done.returncode, shown


def test_a_bar_on_a_terminal(tmp_path: Path) -> None:
    with serving(answers(answer(bytes(MIB)))) as server:
        code, shown = on_terminal("-o", str(tmp_path / "x"), server.url)
    assert code == 0
    assert "100%  1.0 MiB of 1.0 MiB" in shown
    assert shown.endswith("\r\n")


def test_a_bar_that_stops_stays_above_the_error(tmp_path: Path) -> None:
    short = OK + b"Content-Length: 2097152\r\n\r\n" + bytes(MIB)
    with serving(answers(short, ends=True)) as server:
        code, shown = on_terminal("-o", str(tmp_path / "x"), server.url)
    assert code == 1
    bar, error, _ = shown.split("\r\n")
    assert " 50%  1.0 MiB of 2.0 MiB" in bar
    assert error.startswith("prefork get: ")


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        ([], "Missing argument 'URL...'"),
        (["ftp://h/"], "ftp://h/: unknown scheme 'ftp'"),
        (["http://h/", "-H", "nonsense"], "not a header: 'nonsense'"),
        (["http://h/", "-X", "A B"], "not a method: 'A B'"),
        (["http://h/", "-d", "@/nowhere"], "--data @/nowhere: No such file or directory"),
        (["http://h/", "--timeout", "-1"], "expected 0 (no limit) to 1000000 seconds"),
        (["http://h/", "--timeout", "nan"], "expected 0 (no limit) to 1000000 seconds"),
        (["http://h/", "--connect-timeout", "1e300"], "expected 0 (no limit) to 1000000 seconds"),
        (["http://h/", "-o", "a", "-o", "b"], "more --output options than URLs"),
        (["http://h/", "http://h/", "-d", "@-"], "a body from a pipe can be sent to one URL only"),
        (["http+unix://%2Fa/", "--unix", "/b"], "the socket is given twice"),
    ],
)
def test_bad_usage(arguments: list[str], reason: str) -> None:
    done = get(*arguments)
    assert done.code == 2
    assert reason in done.err.splitlines()[-1]


@pytest.mark.parametrize(("name", "target"), [("get", "http://h/"), ("talk", "h:1")])
def test_a_closed_standard_output_is_bad_usage(name: str, target: str) -> None:
    """A socket would get its number, and the answer would go back to the server."""
    done = subprocess.run(
        ["sh", "-c", 'exec "$@" >&-', "sh", *command(name, target)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        timeout=60,
    )
    assert done.returncode == 2
    assert b"standard output is closed" in done.stderr


# talk


def echo_after_the_end(sock: socket.socket) -> None:
    """Can answer only to a client that ends one direction and keeps the other."""
    got = b""
    while data := sock.recv(65536):
        got += data
    sock.sendall(got[::-1])


@pytest.mark.parametrize("size", [0, 3, 3 * MIB])
def test_talk_sends_all_and_then_hears_all(size: int) -> None:
    data = os.urandom(size)
    with serving(echo_after_the_end) as server:
        done = talk(f"127.0.0.1:{server.port}", stdin=data)
    assert (done.code, done.err) == (0, "")
    assert done.out == data[::-1]


def test_talk_hears_while_it_speaks() -> None:
    def echo(sock: socket.socket) -> None:
        while data := sock.recv(65536):
            sock.sendall(data)

    data = os.urandom(8 * MIB)
    with serving(echo) as server:
        assert talk(f"127.0.0.1:{server.port}", stdin=data).out == data


@pytest.mark.parametrize("kind", ["path", "abstract"])
def test_talk_to_a_unix_socket(tmp_path: Path, kind: str) -> None:
    path = Path(f"\0prefork-test-{os.getpid()}") if kind == "abstract" else tmp_path / "sock"
    address = f"unix:{path}".replace("\0", "@")
    with serving(echo_after_the_end, path=path):
        done = talk(address, stdin=b"abc")
    assert (done.code, done.out) == (0, b"cba")


def test_talk_ends_when_the_other_side_does() -> None:
    def greet(sock: socket.socket) -> None:
        sock.sendall(b"hello")

    with (
        serving(greet) as server,
        subprocess.Popen(
            command("talk", f"127.0.0.1:{server.port}"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as process,
    ):
        assert process.stdout is not None
        assert process.stdout.read() == b"hello"
        # Its standard input is still open.
        assert process.wait(60) == 0


def test_talk_prints_what_was_said_before_a_reset() -> None:
    def refuse(sock: socket.socket) -> None:
        sock.sendall(b"go away\n")
        sock.recv(1)
        sock.shutdown(socket.SHUT_WR)

    with serving(refuse) as server:
        done = talk(f"127.0.0.1:{server.port}", stdin=bytes(64 * MIB))
    assert done.out == b"go away\n"


def test_talk_and_a_reset() -> None:
    def cut(sock: socket.socket) -> None:
        sock.recv(1)
        reset(sock)

    with serving(cut) as server:
        done = talk(f"127.0.0.1:{server.port}", stdin=b"x")
    assert done.code == 1
    assert re.fullmatch(
        rf"prefork talk: 127.0.0.1:{server.port}: (receive|shutdown|send): .*\n", done.err
    )


def test_talk_to_a_port_without_a_listener() -> None:
    address = f"127.0.0.1:{closed_port()}"
    done = talk(address)
    assert done.code == 1
    assert done.err == f"prefork talk: {address}: connect: {address}: Connection refused\n"


def test_talk_shows_the_system_calls() -> None:
    with serving(echo_after_the_end) as server:
        done = talk("-v", f"127.0.0.1:{server.port}", stdin=b"abc")
    calls = [line.partition("(")[0] for line in done.err.splitlines()]
    assert [name for name in calls if name != "poll"] == [
        "getaddrinfo",
        "socket",
        "connect",
        "send",
        "shutdown",
        "recv",
        "recv",
        "close",
    ]


@pytest.mark.parametrize("address", ["", "nonsense", "fd:3", "systemd", "127.0.0.1:0"])
def test_talk_to_what_is_no_address(address: str) -> None:
    done = talk(address)
    assert done.code == 2
    assert done.err.splitlines()[-1].startswith(f"Error: {address}: ")
