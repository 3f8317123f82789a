"""The lifespan of ASGI applications: start, failure, state, reload, shutdown."""

import json
import signal
from pathlib import Path

import pytest

from tests.support.raw_http import Raw
from tests.support.server import Server, Start
from tests.support.waiting import until
from tests.support.websocket_client import raw_websocket, server_frame

ARGS = ("tests.apps.lifespans:app", "--set", "server.protocol=asgi", "--set", "workers.count=1")


@pytest.fixture
def mode(tmp_path: Path) -> Path:
    """The file that says what the application does."""
    file = tmp_path / "mode"
    file.write_text("ok")
    return file


def serve(start: Start, mode: Path, *args: str) -> Server:
    return start(*ARGS, *args, env={"LIFESPAN": str(mode)})


def notes(mode: Path) -> list[str]:
    file = Path(f"{mode}.notes")
    return file.read_text().split() if file.exists() else []


@pytest.mark.parametrize("preload", ["false", "true"])
@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_start_state_and_shutdown(start: Start, mode: Path, preload: str, loop: str) -> None:
    server = serve(
        start, mode, "--set", f"workers.preload={preload}", "--set", f"workers.loop={loop}"
    ).wait_ready(1)
    assert notes(mode) == ["startup"]
    for _ in range(2):
        assert json.loads(server.get("/")[1]) == {"number": 7, "list": []}
    server.stop()
    assert notes(mode) == ["startup", "shutdown", "exit"]


def test_shutdown_comes_after_the_last_call(start: Start, mode: Path) -> None:
    server = serve(start, mode).wait_ready(1)
    with server.connect() as sock:
        sock.sendall(b"GET /sleep HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: "begun" in notes(mode))
        server.stop()
        assert sock.recv(100).startswith(b"HTTP/1.1 200 ")
    assert notes(mode) == ["startup", "begun", "ended", "shutdown", "exit"]


def test_an_application_without_a_lifespan(start: Start, mode: Path) -> None:
    mode.write_text("unsupported")
    server = serve(start, mode).wait_ready(1)
    assert server.get("/") == (200, b"null")
    mode.write_text("return")
    server.ask("reload")
    assert server.wait_settled(2).get("/") == (200, b"null")


def test_a_lifespan_that_is_off(start: Start, mode: Path) -> None:
    server = serve(start, mode, "--set", "server.lifespan=off").wait_ready(1)
    assert server.get("/") == (200, b"null")
    assert notes(mode) == []


@pytest.mark.parametrize(
    ("kind", "lifespan", "reason"),
    [
        ("unsupported", "on", "does not support the lifespan protocol"),
        ("raise", "auto", "RuntimeError: no database"),
        ("fail", "auto", "the application cannot start: no database"),
        ("leave", "auto", "left its lifespan before lifespan.startup.complete"),
    ],
)
def test_a_start_that_fails(
    start: Start, mode: Path, kind: str, lifespan: str, reason: str
) -> None:
    mode.write_text(kind)
    server = serve(start, mode, "--set", f"server.lifespan={lifespan}")
    server.expected_errors |= {"worker failed to boot", "first boot failed"}
    assert server.wait_exit() == 3
    assert reason in server.find("first boot failed")[0]["traceback"]


def test_a_reload_whose_start_fails_keeps_the_old_generation(start: Start, mode: Path) -> None:
    server = serve(start, mode, "--set", "workers.boot_timeout=3").wait_ready(1)
    server.expected_errors |= {"worker failed to boot", "reload failed", "worker boots slowly"}
    for kind, reason in (
        ("raise", "RuntimeError: no database"),
        ("fail", "the application cannot start: no database"),
        ("hang", "not ready within 3 s"),
    ):
        mode.write_text(kind)
        assert reason in server.refusal("reload"), kind
        assert json.loads(server.get("/")[1])["number"] == 7, kind
    server.wait("reload failed", 3)
    server.wait("worker boots slowly")
    slow = server.find("worker boots slowly")[-1]["traceback"]
    _, _, task = slow.partition("Task lifespan (most recent call first):")
    assert "tests/apps/lifespans.py" in task


def test_a_reload_starts_the_new_one_before_the_old_one_shuts_down(
    start: Start, mode: Path
) -> None:
    server = serve(start, mode).wait_ready(1)
    server.ask("reload")
    server.wait("worker exited")
    assert notes(mode) == ["startup", "startup", "shutdown", "exit"]


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGQUIT])
def test_a_stop_at_once_runs_the_shutdown_and_waits_for_no_call(
    start: Start, mode: Path, number: signal.Signals, loop: str
) -> None:
    args = ("--set", "workers.graceful_timeout=0", "--set", f"workers.loop={loop}")
    server = serve(start, mode, *args).wait_ready(1)
    with server.connect() as sock, raw_websocket(server, "/") as websocket:
        raw = Raw(sock)
        raw.send(b"GET /stay HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: "begun" in notes(mode))
        server.signal(number)
        assert raw.answer().status == 503
        assert server_frame(websocket) == (0x88, b"\x03\xe9")  # 1001
        assert server.wait_exit() == 0
    assert notes(mode) == ["startup", "begun", "cancelled", "shutdown", "exit"]
    assert not server.find("worker killed")


def test_a_stop_at_once_does_not_wait_for_a_shutdown_that_hangs(start: Start, mode: Path) -> None:
    mode.write_text("hang shutdown")
    server = serve(start, mode).wait_ready(1)
    server.signal(signal.SIGINT)
    assert server.wait_exit() == 0
    assert server.find("lifespan cut off")
    assert notes(mode) == ["startup", "shutdown", "exit"]


def test_a_second_signal_ends_a_shutdown_that_hangs(start: Start, mode: Path) -> None:
    mode.write_text("hang shutdown")
    server = serve(start, mode, "--set", "workers.graceful_timeout=0").wait_ready(1)
    server.signal(signal.SIGTERM)
    until(lambda: "shutdown" in notes(mode))
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert notes(mode) == ["startup", "shutdown", "exit"]


def test_a_stop_at_once_of_a_blocked_loop(start: Start, mode: Path) -> None:
    server = serve(start, mode, "--set", "workers.graceful_timeout=0").wait_ready(1)
    server.expected_errors |= {"worker exited", "worker died"}  # they name what was cut off
    with server.connect() as sock:
        sock.sendall(b"GET /block HTTP/1.1\r\nHost: x\r\n\r\n")
        until(lambda: "begun" in notes(mode))
        server.signal(signal.SIGINT)
        assert server.wait_exit() == 0
    assert "shutdown" not in notes(mode)


@pytest.mark.parametrize("kind", ["die", "fail shutdown"])
def test_a_lifespan_that_fails_later_is_logged(start: Start, mode: Path, kind: str) -> None:
    mode.write_text(kind)
    server = serve(start, mode).wait_ready(1)
    server.expected_errors.add("lifespan failed")
    assert server.get("/")[0] == 200
    server.stop()
    event = server.find("lifespan failed")[0]
    assert event["phase"] == ("serving" if kind == "die" else "shutdown")


def test_warm_up(start: Start, mode: Path) -> None:
    serve(start, mode, "--set", 'workers.warmup=["/"]').wait_ready(1)
    server = serve(start, mode, "--set", 'workers.warmup=["/fail"]')
    server.expected_errors |= {"worker failed to boot", "first boot failed"}
    assert server.wait_exit() == 3
    assert "/fail answered 500" in server.find("first boot failed")[0]["traceback"]
