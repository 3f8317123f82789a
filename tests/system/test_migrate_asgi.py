"""uvicorn and hypercorn beside prefork: with the migrated start line the same answers.

All are real servers.  Where they are meant to differ, the test says so.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.commands import ROOT
from tests.support.raw_http import Raw, request
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE

APP = "tests.apps.mirrored_asgi:app"

_LISTENING = re.compile(r"unning on (?:socket unix:|unix socket |unix:)?(\S+)")
_STARTED = {"uvicorn": (), "hypercorn": ("--error-logfile", "-")}

LINES = {
    "uvicorn": ("uvicorn", "--uds", "{path}"),
    "uvicorn, everybody is believed": (
        *("uvicorn", "--uds", "{path}"),
        *("--forwarded-allow-ips", "*"),
    ),
    "uvicorn, no proxy": ("uvicorn", "--uds", "{path}", "--no-proxy-headers", "--loop", "asyncio"),
    "uvicorn, no keep-alive": ("uvicorn", "--uds", "{path}", "--workers", "1", "--lifespan", "off"),
    "hypercorn": ("hypercorn", "-b", "unix:{path}"),
    "hypercorn, uvloop": ("hypercorn", "-b", "unix:{path}", "-k", "uvloop", "-w", "1"),
}


@contextmanager
def connected(path: Path) -> Iterator[Raw]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.settimeout(PATIENCE)
        sock.connect(str(path))
        yield Raw(sock)


@contextmanager
def running(server: str, words: list[str], path: Path) -> Iterator[None]:
    """The old server, once it listens at `path`."""
    process = subprocess.Popen(
        [sys.executable, "-m", server, *words, *_STARTED[server], APP],
        cwd=ROOT,
        env={**os.environ, "MIRRORED": "1"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    try:
        for line in process.stderr:
            if _LISTENING.search(line) and path.exists():
                break
        else:
            raise AssertionError(f"{server} does not listen")
        yield
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stderr.close()


def migrated(start: Start, tmp_path: Path, server: str, words: list[str]) -> Server:
    done = subprocess.run(
        [sys.executable, "-m", "prefork", "migrate", server, "--", server, *words, APP],
        cwd=ROOT,
        env={name: text for name, text in os.environ.items() if name != "WEB_CONCURRENCY"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    file = tmp_path / "site.toml"
    file.write_text(done.stdout)
    return start(str(file), "--workers", "1", bind=(), env={"MIRRORED": "1"})


REQUESTS = {
    "a path": request("/a/b?x=1&y=%20"),
    "an escaped path": request("/caf%C3%A9/a%2Fb"),
    "a field": request("/", "X-Name: v\xe9"),
    "two fields": request("/", "X-A: 1", "X-B: 2"),
    "a body": request("/", "Content-Length: 5", method="POST") + b"hello",
    "chunks": request("/", "Transfer-Encoding: chunked", method="PUT")
    + b"5\r\nhello\r\n1\r\n!\r\n0\r\n\r\n",
    "a large body": request("/", "Content-Length: 3000000", method="POST") + b"x" * 3_000_000,
    "HTTP/1.0": b"GET / HTTP/1.0\r\nHost: x\r\n\r\n",
    "another method": request("/", method="PATCH"),
}


@pytest.mark.parametrize("name", LINES)
def test_the_same_answers(start: Start, tmp_path: Path, name: str) -> None:
    server, *words = LINES[name]
    theirs, ours = tmp_path / "t", tmp_path / "o"
    with running(server, [word.format(path=theirs) for word in words], theirs):
        mine = migrated(start, tmp_path, server, [word.format(path=ours) for word in words])
        mine.wait("worker ready")
        for what, data in REQUESTS.items():
            answers = []
            for path in (theirs, ours):
                with connected(path) as client:
                    answers.append(client.ask(data, "GET"))
            old, new = answers
            assert (new.status, new.closes) == (old.status, old.closes), what
            assert _seen(new.body) == _seen(old.body), what


def _seen(body: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(body)
    # The servers name the peer of a Unix socket in different ways, or not at all.
    del found["client"]
    return found


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        ("uvicorn", "http"),
        ("uvicorn, everybody is believed", "https"),
        ("uvicorn, no proxy", "http"),
    ],
)
def test_the_scheme_of_a_proxy(start: Start, tmp_path: Path, name: str, scheme: str) -> None:
    server, *words = LINES[name]
    theirs, ours = tmp_path / "t", tmp_path / "o"
    data = request("/", "X-Forwarded-Proto: https", "X-Forwarded-For: 203.0.113.7")
    with running(server, [word.format(path=theirs) for word in words], theirs):
        mine = migrated(start, tmp_path, server, [word.format(path=ours) for word in words])
        mine.wait("worker ready")
        for path in (theirs, ours):
            with connected(path) as client:
                seen = json.loads(client.ask(data, "GET").body)
            assert seen["scheme"] == scheme
            if scheme == "https":
                assert seen["client"] == "203.0.113.7"
