"""gunicorn and prefork side by side: with the migrated file the same requests and answers.

Both are real servers, gunicorn with a configuration file and prefork with what `migrate` makes of
it. Where they are meant to differ, the test says so, and the report of the migration has to.
"""

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.support.commands import ROOT
from tests.support.raw_http import Answer, Raw, request
from tests.support.server import Server, Start, servers
from tests.support.waiting import PATIENCE

APP = "tests.apps.mirrored:app"
CORPUS = ROOT / "tests" / "corpus" / "gunicorn"

_LISTENING = re.compile(rb"Listening at: (?:http://127\.0\.0\.1:(\d+)|unix:(\S+)) ")


@dataclass
class Side:
    """Where one of the two listens: a port of 127.0.0.1, or a path."""

    port: int = 0
    path: str = ""

    @contextmanager
    def connection(self) -> Iterator[Raw]:
        with socket.socket(socket.AF_UNIX if self.path else socket.AF_INET) as sock:
            sock.settimeout(PATIENCE)
            sock.connect(self.path or ("127.0.0.1", self.port))
            yield Raw(sock)


@dataclass
class Both:
    gunicorn: Side
    prefork: Side
    server: Server
    report: str
    """What the migration wrote on stderr, with its lines joined."""

    def ask(self, data: bytes, method: str = "GET") -> tuple[Answer, Answer]:
        answers = []
        for side in (self.gunicorn, self.prefork):
            with side.connection() as client:
                answers.append(client.ask(data, method))
        return answers[0], answers[1]

    def same(self, data: bytes, method: str = "GET") -> dict[str, Any]:
        """What the application saw, which has to be the same for both, as the answers have."""
        theirs, ours = self.ask(data, method)
        assert (ours.status, ours.closes) == (theirs.status, theirs.closes)
        assert ours["Content-Length"] == theirs["Content-Length"]
        assert ours.body == theirs.body
        seen: dict[str, Any] = json.loads(ours.body) if ours.body else {}
        return seen


@pytest.fixture
def beside(start: Start) -> Iterator[Any]:
    with side_by_side(start) as both:
        yield both


@pytest.fixture(scope="module")
def sync(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Both]:
    """Both with one sync worker, for all tests that leave them as they were."""
    for start in servers(tmp_path_factory.mktemp("sync")):
        with side_by_side(start) as both:
            yield both(SYNC)


@contextmanager
def side_by_side(start: Start) -> Iterator[Any]:
    """`both(text, *options)`: both with this configuration file, in a directory each, and with
    these options of gunicorn's."""
    environ = {
        name: value
        for name, value in os.environ.items()
        if name not in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS")
    }
    environ["PYTHONPATH"] = str(ROOT)
    with ExitStack() as stack:
        # A short one: the path of a Unix socket has at most 107 bytes.
        root = Path(stack.enter_context(TemporaryDirectory()))

        def both(text: str, *options: str) -> Both:
            theirs, ours = root / "theirs" / "site", root / "ours" / "site"
            for directory in (theirs, ours):
                for name in ("src/logs", "run", "var"):
                    (directory / name).mkdir(parents=True)
                (directory / "gunicorn.conf.py").write_text(text)
            words = ["-c", "gunicorn.conf.py", *options, APP]
            side = stack.enter_context(_gunicorn(theirs, words, environ))
            done = subprocess.run(
                [sys.executable, "-m", "prefork", "migrate", "gunicorn", *words],
                cwd=ours,
                env=environ,
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == 0, done.stderr
            (ours / "site.toml").write_text(done.stdout)
            server = start(str(ours / "site.toml"), bind=(), cwd=ours)
            stack.callback(server.stop)  # before its directory is removed: it would miss its socket
            server.wait("worker ready")
            (address,) = server.addresses
            path = address.removeprefix("unix:") if address.startswith("unix:") else ""
            # Before its directory goes: a server notices that its socket is lost.
            stack.callback(server.stop)
            place = Side(0 if path else server.port, path)
            return Both(side, place, server, done.stderr.replace("\n  ", " "))

        yield both


@contextmanager
def _gunicorn(directory: Path, words: list[str], environ: dict[str, str]) -> Iterator[Side]:
    process = subprocess.Popen(
        [sys.executable, "-m", "gunicorn", "--no-control-socket", *words],
        cwd=directory,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if match := _LISTENING.search(line):
                break
        else:
            raise AssertionError("gunicorn does not listen")
        # Its log is short: the pipe has room for the rest of it.
        path = match[2].decode() if match[2] else ""
        chdir = directory / "src" if path.startswith("../") else directory
        yield Side(int(match[1] or 0), os.path.normpath(chdir / path) if path else "")
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


SYNC = "bind = '127.0.0.1:0'\nworkers = 1\n"
THREADS = SYNC + "worker_class = 'gthread'\nthreads = 4\n"
UNIX = "bind = 'unix:run.sock'\nworkers = 1\n"

PROXIED = ("X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.7")


def posted(body: bytes, *headers: str) -> bytes:
    return request("/", f"Content-Length: {len(body)}", *headers, method="POST") + body


def chunked(body: bytes) -> bytes:
    head = request("/", "Transfer-Encoding: chunked", method="POST")
    return head + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)


CONFIGURATIONS = {
    "threads": THREADS,
    "unix": UNIX,
    "a umask": UNIX + "umask = 0o007\n",
    "chdir and a variable": SYNC + "chdir = 'src'\nraw_env = 'MIRRORED=1'\n",
    "strings": "bind = '127.0.0.1:0'\nworkers = '1'\nthreads = '2'\ntimeout = '9'\n",
    "preloaded": THREADS + "preload_app = True\nmax_requests = 1000\nmax_requests_jitter = 50\n",
    "everybody is believed": SYNC + "forwarded_allow_ips = '*'\n",
    "keepalive 0": THREADS + "keepalive = 0\n",
    "keepalive and sync": SYNC + "keepalive = 75\n",
    "a graceful timeout of 0": SYNC + "graceful_timeout = 0\n",
}


ANYWHERE = ("-b", "127.0.0.1:0", "--error-logfile", "-", "--access-logfile", "run/access.log")

FILES: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("auto", "combined", "cpu", "docker", "environment_loop", "example"), ANYWHERE),
    **dict.fromkeys(("gthread", "side_effects", "typos", "trust_everybody"), ANYWHERE),
    "many_threads": (*ANYWHERE, "--preload"),
    "behind_nginx": (),
    "relative_chdir": ("--error-logfile", "-"),
}
"""Files of the corpus that gunicorn can serve on this machine, and options for a free place."""


@pytest.mark.parametrize("name", FILES)
def test_the_same_answers_with_a_file_of_the_corpus(beside: Any, name: str) -> None:
    text = (CORPUS / f"{name}.py").read_text()
    # Nobody has this class, and prefork does not need it.
    text = text.replace('logger_class = "shop.logging.GunicornLogger"', "")
    check_same(beside(text, *FILES[name]), name)


@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_the_same_answers(beside: Any, name: str) -> None:
    check_same(beside(CONFIGURATIONS[name]), name)


def test_the_same_answers_of_a_sync_worker(sync: Both) -> None:
    check_same(sync, "sync")


def check_same(both: Both, name: str) -> None:
    plain = both.same(request("/a%20b/c?d=%20e"))
    assert (plain["scheme"], plain["PATH_INFO"]) == ("http", "/a b/c")
    seen = both.same(request("/", *PROXIED))
    assert (seen["scheme"], seen["HTTP_X_FORWARDED_FOR"]) == ("https", "203.0.113.7")
    assert seen["HTTP_X_FORWARDED_PROTO"] == "https"
    assert both.same(posted(b"x" * 100_000))["size"] == 100_000
    assert both.same(chunked(b"y" * 5000))["size"] == 5000
    both.same(request("/", method="HEAD"), "HEAD")
    assert both.same(request("/", "X-Own: 1"))["HTTP_X_OWN"] == "1"
    for side in (both.gunicorn, both.prefork):
        if side.path:
            mode = {"unix": 0o777, "relative_chdir": 0o660}.get(name, 0o770)
            assert stat.S_IMODE(os.stat(side.path).st_mode) == mode


def test_a_connection_is_kept_or_closed_by_both(beside: Any) -> None:
    both = beside(THREADS + "keepalive = 30\n")
    for side in (both.gunicorn, both.prefork):
        with side.connection() as client:
            for _ in range(3):
                assert not client.ask(request("/")).closes


@pytest.mark.parametrize("is_sync", [True, False], ids=["sync", "keepalive 0"])
def test_a_connection_is_closed_after_one_answer(beside: Any, sync: Both, is_sync: bool) -> None:
    both = sync if is_sync else beside(THREADS + "keepalive = 0\n")
    for side in (both.gunicorn, both.prefork):
        with side.connection() as client:
            assert client.ask(request("/")).closes
            assert client.at_end()


def test_a_proxy_that_is_not_believed(beside: Any) -> None:
    both = beside(SYNC + "forwarded_allow_ips = '10.0.0.1'\n")
    theirs, ours = (json.loads(answer.body) for answer in both.ask(request("/", *PROXIED)))
    assert (theirs["scheme"], ours["scheme"]) == ("http", "http")
    # gunicorn passes on what it does not believe, and the report says that prefork does not.
    assert "HTTP_X_FORWARDED_FOR" in theirs
    assert "HTTP_X_FORWARDED_FOR" not in ours


def test_headers_that_are_not_named_are_reported(sync: Both) -> None:
    theirs, ours = (
        json.loads(answer.body) for answer in sync.ask(request("/", "X-Forwarded-Host: a.example"))
    )
    assert theirs.pop("HTTP_X_FORWARDED_HOST") == "a.example"
    assert ours == theirs
    assert (
        "- X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix, Forwarded: they are removed"
        in (sync.report)
    )


def test_a_large_upload(sync: Both) -> None:
    """Larger than what prefork takes by default."""
    size = 65 << 20
    if shutil.disk_usage("/tmp").free < 4 * size:
        pytest.skip("there is no room for the upload in /tmp")
    assert sync.same(posted(bytes(size)))["size"] == size


def test_requests_of_threaded_workers_have_no_limit(beside: Any) -> None:
    both = beside(THREADS + "timeout = 1\n")
    both.same(request("/?sleep=2.5"))
    assert "timeout = 1: for this kind of worker it was a heartbeat" in both.report


def test_requests_of_sync_workers_have_one(beside: Any) -> None:
    both = beside(SYNC + "timeout = 1\ngraceful_timeout = 1\n")
    both.server.expected_errors |= {"request timed out", "worker died"}
    with both.gunicorn.connection() as client:
        client.send(request("/?sleep=60"))
        assert b" 200 " not in client.rest()  # its worker ends, whatever it still says
    with both.prefork.connection() as client:
        assert client.ask(request("/?sleep=60")).status == 504


@pytest.mark.parametrize(
    ("setting", "data"),
    [
        ("limit_request_fields = 4", request("/", *(f"X-{n}: 1" for n in range(9)))),
        ("limit_request_line = 100", request("/" + "a" * 200)),
    ],
)
def test_limits_of_the_head(beside: Any, setting: str, data: bytes) -> None:
    both = beside(f"{SYNC}{setting}\n")
    for side in (both.gunicorn, both.prefork):
        with side.connection() as client:
            client.send(data)
            # No more of it: gunicorn's head has no empty line at its end on CPython 3.14 and later,
            # whose textwrap.dedent() takes the CR from it.
            assert client.line().startswith("HTTP/1.1 4")
    both.same(request("/"))


def test_a_long_line_without_a_limit(beside: Any) -> None:
    both = beside(SYNC + "limit_request_line = 0\n")
    both.same(request("/?" + "a" * 20_000))
