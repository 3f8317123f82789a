"""SystemExit and KeyboardInterrupt that an ASGI application raises outside of its calls."""

from pathlib import Path

import pytest

from tests.support.server import Start
from tests.support.waiting import until

EVENTS = {"exit": "application exits", "interrupt": "worker interrupted"}
ASGI = ("--workers", "1", "--set", "server.protocol=asgi")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_exit_in_the_background_lets_the_worker_leave_in_order(
    start: Start, tmp_path: Path, loop: str
) -> None:
    """Its other call is answered, its lifespan shut down, and it is replaced."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    down = tmp_path / "down"
    server = start(
        *("tests.apps.loop_exits:app", *ASGI, "--set", f"workers.loop={loop}"),
        env={"SHUT_DOWN": str(down)},
    ).wait_ready(1)
    kinds = [(way, error) for way in ("task", "callback") for error in ("exit", "interrupt")]
    for number, (way, error) in enumerate(kinds, 1):
        (worker,) = server.ready_pids()
        gate = tmp_path / f"gate-{number}"
        held = server.http()
        held.request("GET", f"/hold?path={gate}", headers={"Connection": "close"})
        until(gate.exists, "it is in the application")
        assert server.get(f"/?way={way}&error={error}") == (200, str(worker).encode())
        told = server.wait(EVENTS[error], pid=worker)
        assert told["level"] == "warning"
        kind = {"exit": "SystemExit", "interrupt": "KeyboardInterrupt"}[error]
        assert told["traceback"].endswith(f"{kind}: enough")
        assert "loop_exits.py" in told["traceback"]
        assert "asyncio" not in told["traceback"]
        server.wait("worker leaving", pid=worker)
        gate.unlink()
        assert held.getresponse().read() == str(worker).encode()
        server.wait("worker exited", pid=worker, how="exit status 0")
        assert down.exists()
        down.unlink()
        server.wait("worker ready", number + 1)


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
def test_an_application_that_stops_the_event_loop_lets_the_worker_leave_in_order(
    start: Start, tmp_path: Path, loop: str
) -> None:
    """As the handlers of signals do that many applications set (`loop.stop`)."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    down, gate = tmp_path / "down", tmp_path / "gate"
    server = start(
        *("tests.apps.loop_exits:app", *ASGI, "--set", f"workers.loop={loop}"),
        env={"SHUT_DOWN": str(down)},
    ).wait_ready(1)
    (worker,) = server.ready_pids()
    held = server.http()
    held.request("GET", f"/hold?path={gate}", headers={"Connection": "close"})
    until(gate.exists, "it is in the application")
    assert server.get("/?way=stop") == (200, str(worker).encode())
    told = server.wait("application exits", pid=worker)
    assert told["traceback"] == "RuntimeError: the application has stopped the event loop"
    server.wait("worker leaving", pid=worker)
    gate.unlink()
    assert held.getresponse().read() == str(worker).encode()
    server.wait("worker exited", pid=worker, how="exit status 0")
    assert down.exists()
    server.wait_ready(2)


def test_an_exit_of_a_task_that_is_cancelled_at_the_end_is_no_failure(
    start: Start, tmp_path: Path
) -> None:
    server = start(
        *("tests.apps.loop_exits:app", *ASGI, "--set", "workers.loop=asyncio"),
        env={"SHUT_DOWN": str(tmp_path / "down")},
    ).wait_ready(1)
    server.get("/?way=cancelled")
    server.get("/?way=cancelled&error=interrupt")
    server.stop()
    assert [len(server.find(event)) for event in EVENTS.values()] == [1, 1]
    assert server.find("worker exited", how="exit status 0")
