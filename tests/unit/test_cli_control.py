"""The commands for a running server, against a control server in this process."""

import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from prefork import control
from prefork.cli.group import group
from prefork.master.control_server import Reply
from tests.support.control_loop import Served, serving
from tests.support.waiting import PATIENCE

STATUS: dict[str, Any] = {
    "name": "site",
    "pid": 4711,
    "version": "0.1.0",
    "generation": 2,
    "uptime": 93784.5,
    "listeners": ["127.0.0.1:8000", "unix:/run/site.sock"],
    "target": 2,
    "reloading": False,
    "requests": 12350,
    "reloads": {"success": 1},
    "restarts": {"crashed": 2, "boot_failed": 1},
    "overflows": 9,
    "queues": [
        {"listener": "127.0.0.1:8000", "depth": 3, "limit": 4096},
        {"listener": "unix:/run/site.sock", "depth": 0, "limit": -1},
    ],
    "workers": [
        {
            "slot": 1,
            "pid": 99,
            "generation": 2,
            "state": "busy",
            "since": 2.5,
            "requests": 12345,
            "held": 7,
            "mean": 0.0015,
            "age": 61.9,
            "error": "GET /b: KeyError: '\x1b[2J'",
            "error_age": 200.0,
            "calls": [
                {"thread": 0, "request": "GET /a\x9b", "peer": "10.0.0.7", "elapsed": 2.5},
                {"thread": 1, "request": "GET /b", "peer": "", "elapsed": 0.25},
            ],
        },
        {"slot": 0, "pid": 100, "generation": 2, "state": "booting", "requests": 0, "age": 0.2},
    ],
}


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "s.sock") as server:
        yield server


def run(name: str, *arguments: str) -> Result:
    return CliRunner().invoke(group, [name, *arguments], prog_name="prefork")


def run_at(served: Served, name: str, *arguments: str) -> Result:
    return run(name, *arguments, "--control", str(served.path))


def answer(served: Served, **fields: Any) -> None:
    served.handle = lambda request, reply: reply.ok(**fields)


def test_reload_prints_what_changed(served: Served) -> None:
    def reload(request: control.Command, reply: Reply) -> None:
        reply.progress("worker 0 of generation 3 ready")
        reply.ok(changes=["workers.count: 2 -> 4"], generation=3)

    served.handle = reload
    result = run_at(served, "reload")
    assert result.exit_code == 0
    assert result.stdout == "workers.count: 2 -> 4\nreloaded: generation 3 serves\n"
    assert result.stderr == "worker 0 of generation 3 ready\n"
    assert served.asked == [control.ReloadCommand()]


def test_reload_that_fails_exits_with_1_and_the_reason(served: Served) -> None:
    served.handle = lambda request, reply: reply.fail("app.py: SyntaxError")
    result = run_at(served, "reload")
    assert result.exit_code == 1
    assert (result.stdout, result.stderr) == ("", "Error: app.py: SyntaxError\n")


@pytest.mark.parametrize("name", ["reload", "upgrade"])
def test_the_generation_that_serves_on_is_named_before_the_reason(
    served: Served, name: str
) -> None:
    served.handle = lambda request, reply: reply.fail("app.py: SyntaxError", serving=4)
    result = run_at(served, name)
    assert (result.exit_code, result.stdout) == (1, "")
    assert result.stderr == (
        f"Error: {name} failed, and generation 4 serves on:\napp.py: SyntaxError\n"
    )


def test_stop_waits_for_the_end_of_the_server(tmp_path: Path) -> None:
    results: list[Result] = []
    asked = threading.Event()

    def stop(request: control.Command, reply: Reply) -> None:
        reply.ok_until_exit()
        asked.set()

    with serving(tmp_path / "s.sock") as served:
        served.handle = stop
        thread = threading.Thread(target=lambda: results.append(run_at(served, "stop")))
        thread.start()
        assert asked.wait(PATIENCE)
        assert served.clients() == 1
        assert not results
    thread.join(30)
    assert (results[0].exit_code, results[0].output) == (0, "stopped\n")
    assert served.asked == [control.StopCommand()]


def test_stop_that_is_refused(served: Served) -> None:
    served.handle = lambda request, reply: reply.fail("not now")
    result = run_at(served, "stop")
    assert (result.exit_code, result.output) == (1, "Error: not now\n")


def test_upgrade_shows_the_versions_and_what_changed(served: Served) -> None:
    served.handle = lambda request, reply: reply.ok(
        generation=3, changes=["workers.count: 2 -> 4"], was="1.0", version="1.1"
    )
    result = run_at(served, "upgrade")
    assert (result.exit_code, result.output) == (
        0,
        "workers.count: 2 -> 4\nupgraded: prefork 1.0 -> 1.1, generation 3 serves\n",
    )
    assert served.asked == [control.UpgradeCommand()]


def test_upgrade_that_failed(served: Served) -> None:
    served.handle = lambda request, reply: reply.fail("the new code did not start within 30 s")
    result = run_at(served, "upgrade")
    assert result.exit_code == 1
    assert result.output == "Error: the new code did not start within 30 s\n"


def test_reopen(served: Served) -> None:
    result = run_at(served, "reopen")
    assert (result.exit_code, result.output) == (0, "reopened\n")
    assert served.asked == [control.ReopenCommand()]


def test_scale(served: Served) -> None:
    result = run_at(served, "scale", "4")
    assert (result.exit_code, result.output) == (0, "scaled to 4\n")
    assert served.asked == [control.ScaleCommand(count=4)]


@pytest.mark.parametrize("count", ["0", "many", "-1"])
def test_scale_to_no_number_of_workers_is_a_usage_error(served: Served, count: str) -> None:
    assert run_at(served, "scale", count).exit_code == 2
    assert served.asked == []


def test_status_of_a_dynamic_pool_has_its_bounds(served: Served) -> None:
    answer(served, **STATUS, bounds={"min": 1, "max": 8, "spare": 2})
    lines = run_at(served, "status").stdout.splitlines()
    assert "target 2 workers (of 1 to 8, 2 spare)" in lines[0]


def test_status_as_text(served: Served) -> None:
    answer(served, **STATUS)
    result = run_at(served, "status")
    assert result.exit_code == 0
    assert result.stdout.splitlines() == [
        "site: pid 4711, prefork 0.1.0, generation 2, up 1 d 2 h, target 2 workers,"
        " listening on 127.0.0.1:8000, unix:/run/site.sock",
        "queue of 127.0.0.1:8000: 3 of 4096",
        "queue of unix:/run/site.sock: 0 of ?",
        "12350 requests; reloads: 1 success; restarts: 1 boot_failed, 2 crashed; 9 overflows of"
        " listen queues",
        "SLOT  PID  GEN    STATE  SINCE  REQUESTS  HELD    MEAN        AGE  NOW",
        "   0  100    2  booting    0 s         0     0    0 ms        0 s",
        "   1   99    2     busy    2 s     12345     7  1.5 ms  1 min 1 s"
        "  GET /a\\x9b for 10.0.0.7, 2.5 s",
        "slot 1: GET /b, 250 ms",
        "slot 1, last error 3 min 20 s ago: GET /b: KeyError: '\\x1b[2J'",
    ]


def test_status_says_when_a_reload_is_going_on(served: Served) -> None:
    answer(served, **STATUS | {"reloading": True})
    assert "generation 2, reloading, up" in run_at(served, "status").stdout


def test_status_without_workers_is_a_table_without_rows(served: Served) -> None:
    answer(served, **STATUS | {"workers": []})
    assert run_at(served, "status").stdout.splitlines()[-1:] == [
        "SLOT  PID  GEN  STATE  SINCE  REQUESTS  HELD  MEAN  AGE  NOW"
    ]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.9, "0 s"), (59, "59 s"), (60, "1 min"), (3600, "1 h"), (3601, "1 h"), (90000, "1 d 1 h")],
)
def test_uptime_in_its_two_largest_units(served: Served, seconds: float, text: str) -> None:
    answer(served, **STATUS | {"uptime": seconds})
    assert f"up {text}," in run_at(served, "status").stdout


def test_status_as_json_is_the_answers_data(served: Served) -> None:
    answer(served, **STATUS, novelty=1)
    result = run_at(served, "status", "--json")
    assert result.exit_code == 0
    assert json.loads(result.stdout) == STATUS | {"novelty": 1}
    assert '\n  "name": "site",\n' in result.stdout


def test_status_of_another_version_points_to_json(served: Served) -> None:
    answer(served, name="site")
    result = run_at(served, "status")
    assert result.exit_code == 1
    assert "another version of prefork; try status --json" in result.stderr


@pytest.mark.parametrize("name", ["reload", "upgrade", "stop", "reopen", "scale", "status"])
def test_without_a_server_the_reason_is_one_line(tmp_path: Path, name: str) -> None:
    arguments = ["4"] if name == "scale" else []
    result = run(name, *arguments, "--control", str(tmp_path / "none.sock"))
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr == (
        f"Error: no server is running at {tmp_path}/none.sock: there is no such socket\n"
    )


@pytest.mark.parametrize("name", ["reload", "upgrade", "stop", "reopen", "scale", "status"])
def test_the_server_of_a_configuration(tmp_path: Path, served: Served, name: str) -> None:
    served.handle = lambda request, reply: reply.fail("enough for this test")
    target = tmp_path / "site.toml"
    target.write_text(f'[static]\nroot = "."\n[control]\npath = "{served.path}"\n')
    run(name, *(["4"] if name == "scale" else []), str(target))
    assert [type(request) for request in served.asked] == [control.COMMANDS[name]]


def test_a_configuration_and_a_path_is_a_usage_error(served: Served) -> None:
    result = run_at(served, "status", "site.toml")
    assert result.exit_code == 2
    assert "not both" in result.stderr


def test_a_configuration_that_does_not_exist_is_one_line(tmp_path: Path) -> None:
    result = run("status", str(tmp_path / "none.toml"))
    assert result.exit_code == 1
    assert "none.toml" in result.stderr
    assert result.stderr.count("\n") == 1
