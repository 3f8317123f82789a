"""The load generator against servers that lie, and a whole run against one that errs at times."""

import contextlib
import json
import re
import shutil
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psutil
import pytest

import bench.__main__ as command
from bench import closed_loop, servers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.servers import ROOT, BenchError, Server

pytestmark = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")

BODY = "hello world\n"
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\nhello world\n"
CLOSING = GOOD.replace(b"200 OK\r\n", b"200 OK\r\nConnection: close\r\n")


def compiled(directory: Path, name: str, *flags: str) -> str:
    command = ["cc", "-O2", "-Wall", "-Wextra", "-Werror", *flags, "-o", f"{directory}/{name}"]
    subprocess.run([*command, f"{ROOT}/bench/{name}.c"], check=True)
    return f"{directory}/{name}"


@pytest.fixture(scope="module")
def binary(tmp_path_factory: pytest.TempPathFactory) -> str:
    return compiled(tmp_path_factory.mktemp("bench"), "load")


def asked(sock: socket.socket) -> bool:
    """Reads one request; False at the end of the connection."""
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        piece = sock.recv(4096)
        if not piece:
            return False
        head += piece
    return True


@contextlib.contextmanager
def serving(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """A server on a port of its own; `answer` gets each connection in a thread, then it closes."""

    def serve(sock: socket.socket) -> None:
        with sock, contextlib.suppress(OSError):
            answer(sock)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0), backlog=64) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def keeps(sock: socket.socket) -> None:
    while asked(sock):
        sock.sendall(GOOD)


def says(reply: bytes) -> Callable[[socket.socket], None]:
    """One answer, then the end of the connection."""

    def answer(sock: socket.socket) -> None:
        if asked(sock):
            sock.sendall(reply)

    return answer


def drips(sock: socket.socket) -> None:
    if asked(sock):
        for byte in CLOSING:
            sock.sendall(bytes([byte]))


def resets(sock: socket.socket) -> None:
    if asked(sock):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def holds(sock: socket.socket) -> None:
    if asked(sock):
        sock.sendall(GOOD)
        sock.recv(1)


def load(
    binary: str, mode: str, port: int, requests: int = 20, body: str = BODY, *options: str
) -> dict[str, object]:
    command = [binary, *options, mode, "127.0.0.1", str(port), "4", str(requests), body]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    told["errors"] = {kind: number for kind, number in told["errors"].items() if number}
    return dict(told)


def test_right_answers_over_connections_that_stay(binary: str) -> None:
    with serving(keeps) as port:
        told = load(binary, "keepalive", port, 500)
    assert (told["ok"], told["connections"], told["errors"]) == (500, 4, {})
    assert 0 < float(str(told["p50_us"])) <= float(str(told["p99_us"]))
    assert float(str(told["p99_us"])) <= float(str(told["max_us"]))


@pytest.mark.parametrize("mode", ["keepalive", "close"])
@pytest.mark.parametrize("answer", [says(CLOSING), drips], ids=["at once", "byte by byte"])
def test_right_answers_over_a_connection_each(
    binary: str, mode: str, answer: Callable[[socket.socket], None]
) -> None:
    with serving(answer) as port:
        told = load(binary, mode, port)
    assert (told["ok"], told["connections"], told["errors"]) == (20, 20, {})


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        pytest.param(says(CLOSING.replace(b"200", b"503")), "status", id="another status"),
        pytest.param(says(CLOSING.replace(b"/1.1", b"/1.0")), "status", id="another version"),
        pytest.param(says(CLOSING.replace(b": 12", b": 11")), "body", id="another length"),
        pytest.param(says(CLOSING.replace(b"Content-", b"X-")), "body", id="no length"),
        pytest.param(says(CLOSING.replace(b"hello", b"hallo")), "body", id="another byte"),
        pytest.param(says(CLOSING + b"more"), "body", id="bytes after the answer"),
        pytest.param(says(CLOSING[:-1]), "short", id="a byte less"),
        pytest.param(says(b""), "short", id="nothing"),
        pytest.param(resets, "reset", id="a reset"),
    ],
)
def test_each_wrong_answer_is_counted_by_its_kind(
    binary: str, answer: Callable[[socket.socket], None], kind: str
) -> None:
    with serving(answer) as port:
        told = load(binary, "close", port)
    assert told["errors"] == {kind: 20}
    assert told["ok"] == 0


def test_a_connection_that_the_server_does_not_close_is_a_timeout(tmp_path: Path) -> None:
    impatient = compiled(tmp_path, "load", "-DSILENCE_MS=300")
    with serving(holds) as port:
        told = load(impatient, "close", port)
    assert (told["ok"], told["errors"]) == (0, {"timeout": 20})


def test_a_connection_that_ends_unannounced_is_an_error(binary: str) -> None:
    with serving(says(GOOD)) as port:
        told = load(binary, "keepalive", port)
    errors = told["errors"]
    assert isinstance(errors, dict)
    assert set(errors) <= {"short", "reset"}
    assert sum(errors.values()) + int(str(told["ok"])) == 20
    assert sum(errors.values()) >= 8  # each connection answers once, then fails


def test_a_server_that_is_not_there_is_counted_and_the_run_ends(binary: str) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))  # not listening
        told = load(binary, "close", bound.getsockname()[1])
    assert told["errors"] == {"connect": 20}


@pytest.mark.parametrize(
    "wrong", [["other", "127.0.0.1", "1", "1", "1"], ["close", "localhost", "1", "1", "1"], []]
)
def test_wrong_arguments_are_reported(binary: str, wrong: list[str]) -> None:
    done = subprocess.run([binary, *wrong, BODY], capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("usage: load")


# A server for whole runs: it answers every request right but each so-manieth.
ERRING = """
import socketserver, sys

class Handler(socketserver.StreamRequestHandler):
    asked = 0

    def handle(self):
        while True:
            while (line := self.rfile.readline()) not in (b"", b"\\r\\n"):
                pass
            if not line:
                return
            Handler.asked += 1
            status = b"500 No" if Handler.asked % int(sys.argv[2]) == 0 else b"200 OK"
            self.wfile.write(b"HTTP/1.1 " + status + b"\\r\\nContent-Length: 12\\r\\n"
                             b"Connection: close\\r\\n\\r\\nhello world\\n")
            return

class Server(socketserver.ThreadingTCPServer):
    allow_reuse_address = daemon_threads = True
    request_queue_size = 64

Server(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


@pytest.fixture
def whole_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, binary: str
) -> Callable[[int, list[str]], int]:
    """The bench with one part of our own: a server that is wrong at each so-manieth request."""
    script = tmp_path / "erring.py"
    script.write_text(ERRING)
    (tmp_path / "build").mkdir()
    shutil.copy(binary, tmp_path / "build/load")
    monkeypatch.setattr(command, "prepare", lambda: None)
    monkeypatch.setattr(closed_loop, "BUILD", tmp_path / "build")
    monkeypatch.setattr(command, "machine", lambda: "- a machine")
    monkeypatch.setattr(command, "PARTS", ("erring",))

    def start(each: int, given: list[str]) -> int:
        def measure(quick: bool) -> list[Section]:
            row = Row(loop_section("erring", "Erring", "It errs."), Ask(connections=4))
            own = (sys.executable, str(script), "{port}", str(each))
            compare([Server("prefork", own), Server("gone", ("/nowhere",))], [row], 2, 0.2)
            if each == 50:
                return [row.section]
            del row.section.servers["gone"]
            return [row.section]

        part = SimpleNamespace(measure=measure)
        monkeypatch.setitem(sys.modules, "bench.parts.erring", part)
        return command.main(given)

    return start


def test_a_run_without_errors_prints_its_tables_and_leaves_no_process(
    whole_run: Callable[[int, list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert whole_run(100_000_000, []) == 0
    printed = capsys.readouterr().out
    assert printed.count("| 1.00 |") == 1
    assert "invalid" not in printed
    assert not psutil.Process().children(recursive=True)


def test_servers_are_up_at_the_same_time_and_asked_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    up: list[str] = []
    asked: list[tuple[str, float]] = []
    used = dict.fromkeys("ABC", 0.0)

    @contextlib.contextmanager
    def started(server: Server) -> Iterator[Any]:
        up.append(server.name)
        yield SimpleNamespace(
            name=server.name, port=server.name, cpu=lambda name=server.name: used[name]
        )
        up.remove(server.name)

    def load(ask: Ask, port: str, seconds: float) -> dict[str, Any]:
        assert up == ["A", "B", "C"]
        asked.append((port, round(seconds, 3)))
        used[port] += 0.003
        turn = len(asked) // 3  # 0 is the warm-up
        return {"ok": 100, "seconds": 0.1, "p50_us": turn, "p99_us": 10 * turn, "errors": {}}

    monkeypatch.setattr(closed_loop, "started", started)
    monkeypatch.setattr(closed_loop, "load", load)
    row = Row(loop_section("x", "X", "It is asked."), Ask())
    other = Row(loop_section("y", "Y", "Nobody takes part."), Ask(), ("D",))
    compare([Server(name, ("x",)) for name in "ABC"], [row, other], 1, 0.3)
    assert up == []
    assert asked[:3] == [("A", 0.06), ("B", 0.06), ("C", 0.06)]
    assert [name for name, seconds in asked[3:] if seconds == 0.1] == list("ABCBCACAB")
    values = row.section.of("B").values
    assert values.pop("CPU a request, us") == [pytest.approx(30)]
    assert values == {
        "requests a second": [pytest.approx(1000)],
        "p50, us": [2],
        "p99, us": [20],
    }
    assert other.section.servers == {}


def test_write_puts_the_figures_between_the_words_of_the_documents(
    whole_run: Callable[[int, list[str]], int],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    figures = tmp_path / "docs/performance"
    figures.mkdir(parents=True)
    for name in ("README.md", "docs/performance.md"):
        shutil.copy(ROOT / name, tmp_path / name)
    drawn: list[tuple[str, Path]] = []

    def draw(section: Section, where: Path) -> None:
        drawn.append((section.key, where))

    charts = SimpleNamespace(draw=draw)
    monkeypatch.setitem(sys.modules, "bench.charts", charts)  # matplotlib is not needed for tests
    monkeypatch.setattr(command, "DOCUMENTS", tmp_path)
    assert whole_run(100_000_000, ["--write"]) == 0
    assert drawn == [("erring", figures)]
    assert "](erring.svg)" in (figures / "figures.md").read_text()
    for name in ("README.md", "docs/performance.md"):
        text = (tmp_path / name).read_text()
        assert text.startswith((ROOT / name).read_text()[:100])
        assert "hello that repeats" not in text.partition("<!-- end of the headline -->")[0]
    (raw,) = json.loads((figures / "figures.json").read_text())["sections"]
    (median, _) = raw["servers"]["prefork"]["values"]["CPU a request, us"]
    assert f"{median:,.1f}" in capsys.readouterr().out


@pytest.mark.parametrize(
    "given", [["hello"], ["--quick"], ["compiled", "hello"], ["compiled", "--quick"]]
)
def test_a_part_of_the_figures_is_not_written(
    given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as left:
        command.main([*given, "--write"])
    assert left.value.code == 2
    assert "--write takes a whole run" in capsys.readouterr().err


def test_a_run_with_errors_is_refused_and_says_which(
    whole_run: Callable[[int, list[str]], int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert whole_run(50, []) == 1
    printed = capsys.readouterr().out
    assert "| prefork | invalid: " in printed
    assert "status" in printed
    assert "| gone | gone: /nowhere: No such file" in printed


def test_a_large_body_and_an_upload_are_held_against_what_they_have_to_be(
    binary: str, tmp_path: Path
) -> None:
    content = bytes(range(256)) * 4000
    (tmp_path / "right").write_bytes(content)
    (tmp_path / "wrong").write_bytes(content[:-1] + b"x")
    bodies: list[bytes] = []

    def answer(sock: socket.socket) -> None:
        with sock.makefile("rb") as file:
            while line := file.readline():
                size = 0
                while line.strip():
                    name, _, value = line.partition(b":")
                    size = int(value) if name == b"Content-Length" else size
                    line = file.readline()
                bodies.append(file.read(size))
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(content))
                sock.sendall(content)

    with serving(answer) as port:
        right = load(binary, "keepalive", port, 8, f"@{tmp_path}/right", "-u", "300000")
        wrong = load(binary, "keepalive", port, 8, f"@{tmp_path}/wrong", "-p", "/x")
    assert (right["ok"], right["errors"]) == (8, {})
    assert [len(body) for body in bodies[:8]] == [300_000] * 8
    assert (wrong["ok"], wrong["errors"]) == (0, {"body": 8})


def test_marks_in_a_request_are_other_digits_in_each(binary: str) -> None:
    heads: list[bytes] = []

    def answer(sock: socket.socket) -> None:
        while head := sock.recv(4096):
            heads.append(head)
            sock.sendall(GOOD)

    request = "POST /#### HTTP/1.1\r\nX: #-########################\r\nContent-Length: 2\r\n\r\nhi"
    with serving(answer) as port:
        told = load(binary, "keepalive", port, 40, BODY, "-r", request)
    assert (told["ok"], told["errors"]) == (40, {})
    sent = [re.fullmatch(rb"POST /(\w{4}) H.*: #-(\w{24})\r\n.*\r\n\r\nhi", each, re.DOTALL)
            for each in heads]  # fmt: skip
    assert None not in sent
    assert len({match[2] for match in sent if match}) == 40


def test_a_request_that_is_given_has_no_room_for_an_upload(binary: str) -> None:
    command = [binary, "-r", "GET / HTTP/1.1\r\n\r\n", "-u", "1"]
    command += ["keepalive", "127.0.0.1", "1", "1", "1", BODY]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr[:11]) == (2, "usage: load")


def test_a_time_ends_the_run_before_the_requests_do(binary: str) -> None:
    with serving(keeps) as port:
        told = load(binary, "keepalive", port, 10_000_000, BODY, "-t", "0.2")
    assert told["ok"] == told["requests"]
    assert 4 <= int(str(told["ok"])) < 10_000_000


def test_cpu_time_is_that_of_the_whole_tree_with_children_that_ended() -> None:
    spin = "import time\nwhile time.process_time() < 0.2: pass\n"
    script = (
        "import subprocess, sys\n"
        f"subprocess.run([sys.executable, '-c', {spin!r}])\n"
        f"alive = subprocess.Popen([sys.executable, '-c', {spin!r} + 'print(1, flush=True)\\n'"
        " 'import sys; sys.stdin.read()'], stdout=subprocess.PIPE)\n"
        "alive.stdout.readline(); print('done', flush=True)\n"
        "alive.wait()\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        running = servers.Running("some", process, 0)
        used = running.cpu()
        process.stdin.close()
        process.wait()
    assert 0.38 < used < 2  # two children of 0.2 s, one of which has ended, and their starts
    with pytest.raises(BenchError, match="some: it or a process of it ended"):
        running.cpu()


def test_a_server_that_does_not_start_is_reported_with_its_output() -> None:
    server = Server("some", (sys.executable, "-c", "import sys; sys.exit('no such thing')"))
    with pytest.raises(BenchError, match="some did not start: no such thing"):
        servers.started(server).__enter__()
    with pytest.raises(BenchError, match="other: /nowhere/other: No such file"):
        servers.started(Server("other", ("/nowhere/other",))).__enter__()


FORKS_AT_ITS_END = """
import os, signal, sys, http.server

def end(*_):
    child = os.fork()
    if child == 0:
        signal.pause()
    with open(sys.argv[2], "w") as file:
        file.write(str(child))
    os._exit(0)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello world\\n")

signal.signal(signal.SIGTERM, end)
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""


def test_what_a_server_forks_at_its_stop_ends_with_it(tmp_path: Path) -> None:
    told = tmp_path / "pid"
    command = (sys.executable, "-c", FORKS_AT_ITS_END, "{port}", str(told))
    with servers.started(Server("some", command)):
        pass
    assert not psutil.pid_exists(int(told.read_text()))


def test_missing_peers_are_reported_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(servers, "PEERS", tmp_path)
    assert command.main(["hello"]) == 1
    assert "`make bench` puts it there" in capsys.readouterr().err


def test_an_unknown_part_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as left:
        command.main(["hallo"])
    assert left.value.code == 2
    assert "'hallo' is not one of traffic, transfer" in capsys.readouterr().err


def test_the_c_loop_answers_right_in_both_ways(binary: str, tmp_path: Path) -> None:
    program = compiled(tmp_path, "accept_loop")
    for mode, connections in (("keepalive", 4), ("close", 200)):
        with servers.started(Server("C", (program, mode, "{port}"))) as running:
            told = load(binary, mode, running.port, 200)
        assert (told["ok"], told["connections"], told["errors"]) == (200, connections, {})
