"""What applications leave behind is named: shared connections, threads and children that stay."""

import os
import signal
import socket
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.server import Server, Start

APP = """
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "0")])
    return [b""]
"""


def serve(start: Start, place: Path, source: str, *more: str, ready: bool = True) -> Server:
    (place / "leftover_app.py").write_text(source + APP)
    server = start(
        *("leftover_app:app", "--workers", "1", *more), cwd=place, env={"PYTHONPATH": str(ROOT)}
    )
    return server.wait_ready(1) if ready else server


PRELOAD = ("--set", "workers.preload=true")


@pytest.mark.parametrize("family", ["tcp", "unix"])
def test_a_connection_that_was_opened_at_import_is_named(
    start: Start, tmp_path: Path, family: str
) -> None:
    database = socket.socket(socket.AF_INET if family == "tcp" else socket.AF_UNIX)
    database.bind(("127.0.0.1", 0) if family == "tcp" else f"{tmp_path}/db")
    database.listen()
    address = database.getsockname()
    source = (
        f"import socket\ndb = socket.socket(socket.{database.family.name})\n"
        f"db.connect({address!r})\n"
    )
    server = serve(start, tmp_path, source, *PRELOAD)
    event = server.wait("connections are shared by the workers")
    assert event["level"] == "warning"
    name = f"127.0.0.1:{address[1]}" if family == "tcp" else f"unix:{address}"
    assert event["peers"] == name
    assert "after_fork" in event["reason"]
    database.close()


def test_a_database_and_an_event_loop_are_named(start: Start, tmp_path: Path) -> None:
    source = (
        "import asyncio, sqlite3\n"
        f"db = sqlite3.connect({str(tmp_path / 'db')!r})\n"
        "db.execute('CREATE TABLE t (x)')\ndb.commit()\n"
        "loop = asyncio.new_event_loop()\n"
    )
    server = serve(start, tmp_path, source, *PRELOAD)
    peers = server.wait("connections are shared by the workers")["peers"]
    assert f"the database {tmp_path / 'db'}" in peers
    assert "an event loop (descriptor" in peers


def test_what_workers_may_share_is_not_reported(start: Start, tmp_path: Path) -> None:
    source = (
        "import socket\n"
        "log = socket.socket(type=socket.SOCK_DGRAM)\nlog.connect(('127.0.0.1', 9))\n"
        "listening = socket.create_server(('127.0.0.1', 0))\nnew = socket.socket()\n"
        f"file = open({str(tmp_path / 'file')!r}, 'w')\n"
        "import threading\nclosed, other = socket.socketpair()\nclosed.close()\nother.close()\n"
    )
    server = serve(start, tmp_path, source, *PRELOAD)
    assert not server.find("connections are shared by the workers")


def test_without_preload_a_connection_is_the_workers_own(start: Start, tmp_path: Path) -> None:
    server = serve(start, tmp_path, "import socket\nends = socket.socketpair()\n")
    assert not server.find("connections are shared by the workers")


THREAD = """
import threading
never = threading.Event()
threading.Thread(target=never.wait, name="backup").start()
threading.Thread(target=never.wait, name="helpful", daemon=True).start()
"""

CHILD = """
import multiprocessing, signal
child = multiprocessing.get_context("fork").Process(target=signal.pause, name="mailer")
child.start()
"""


@pytest.mark.parametrize(("source", "key"), [(THREAD, "threads"), (CHILD, "children")])
def test_what_a_worker_waits_for_is_named(
    start: Start, tmp_path: Path, source: str, key: str
) -> None:
    server = serve(start, tmp_path, source, "--set", "workers.graceful_timeout=8")
    worker = server.ready_pids()[0]
    os.kill(worker, signal.SIGTERM)
    event = server.wait("worker waits for its end", pid=worker)
    if key == "threads":
        assert (event["threads"], event["children"]) == ("backup", None)
    else:
        assert event["threads"] is None
        assert event["children"].startswith("mailer (pid ")
        os.kill(int(event["children"].removeprefix("mailer (pid ").removesuffix(")")), 9)
        server.wait("worker exited", pid=worker)
    assert "before_exit" in event["reason"]
    server.expected_errors |= {"worker died"}
    server.kill()  # its workers would all be waited for, and so would this child's end of the log


PATH = {"PYTHONPATH": str(ROOT)}

LOOP = """
import asyncio, os, threading

held = threading.Event()

async def app(scope, receive, send):
    assert scope["type"] == "http"
    if scope["path"] == "/thread":
        asyncio.get_running_loop().run_in_executor(None, held.wait)
    else:
        asyncio.set_event_loop(None)
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": str(os.getpid()).encode()})
"""


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_a_thread_of_a_loops_executor_that_does_not_end_is_named(
    start: Start, tmp_path: Path, loop: str
) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    (tmp_path / "loop_app.py").write_text(LOOP)
    settings = ("--set", f"workers.loop={loop}", "--set", "workers.graceful_timeout=30")
    server = start("loop_app:app", "--workers", "1", *settings, cwd=tmp_path, env=PATH).wait_ready(
        1
    )
    worker = int(server.get("/thread")[1])
    server.signal(signal.SIGTERM)
    event = server.wait("worker waits for its end", pid=worker)
    # The second is the name that uvloop gives it before 0.20.
    assert event["threads"] in (f"{loop}_0", "ThreadPoolExecutor-0_0")
    server.signal(signal.SIGTERM)  # at once
    assert server.wait_exit() == 0
    assert len(server.find("worker waits for its end")) == 1


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_application_may_unset_the_current_loop(start: Start, tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    (tmp_path / "loop_app.py").write_text(LOOP)
    settings = ("--set", f"workers.loop={loop}")
    server = start("loop_app:app", "--workers", "1", *settings, cwd=tmp_path, env=PATH).wait_ready(
        1
    )
    assert server.get("/")[0] == 200
    server.stop()
    assert server.find("worker exited", how="exit status 0")
