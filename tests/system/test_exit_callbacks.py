"""What was registered with atexit runs once at the end of each worker that ends in order."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.server import Server, Start
from tests.support.sockets import accepts
from tests.support.waiting import PATIENCE, until

APP = "tests.apps.exit_callbacks:app"

TOOL = """
import atexit, os, sys, threading

def flush():
    worker.set()
    thread.join(5)
    with open(os.environ["EXIT_FILE"], "a") as file:
        file.write(f"tool {os.getpid()}\\n")

def restart():
    global thread, worker
    worker = threading.Event()
    thread = threading.Thread(target=worker.wait, name="tool", daemon=True)
    thread.start()

if "serve" in sys.orig_argv:
    restart()
    os.register_at_fork(after_in_child=restart)
    atexit.register(flush)
"""
"""A sitecustomize as tracers bring it: with a thread that has to end before it is written."""


def traced(start: Start, tmp_path: Path, *args: str) -> Server:
    (tmp_path / "sitecustomize.py").write_text(TOOL)
    (tmp_path / "ends").touch()
    return start(
        *(APP, *args),
        env={"PYTHONPATH": f"{tmp_path}:{ROOT}", "EXIT_FILE": str(tmp_path / "ends")},
    )


def ends(tmp_path: Path) -> Counter[tuple[str, int]]:
    lines = (tmp_path / "ends").read_text().splitlines()
    return Counter((who, int(pid)) for who, pid in map(str.split, lines))


@pytest.mark.parametrize("preload", ["false", "true"])
@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_callbacks_run_once_at_each_orderly_end(
    start: Start, tmp_path: Path, stop: signal.Signals, preload: str
) -> None:
    settings = ["--set", f"workers.preload={preload}", "--set", "workers.max_requests=2"]
    server = traced(start, tmp_path, "--workers", "2", *settings).wait_ready(2)

    def ended(pid: int, end: str) -> None:
        server.wait("worker exited", pid=pid)
        found = ends(tmp_path)
        assert (end, found["tool", pid], found["application", pid]) == (end, 1, 1)

    old = server.ready_pids()
    assert int(server.get("/")[1]) in old
    server.ask("reload")
    for pid in old:
        ended(pid, "reload")

    server.wait_settled(2).signal(signal.SIGTTOU)
    ended(server.wait("worker exited", generation=2)["pid"], "TTOU")

    assert server.get("/") == server.get("/")  # by the worker that is left, at its limit
    pid = server.wait("worker to be recycled")["pid"]
    ended(pid, "max_requests")

    pid = int(server.get("/")[1])
    server.expected_errors.add("worker exited")  # at INT
    server.signal(stop)
    ended(pid, stop.name)
    server.stop()
    workers = {event["pid"] for event in server.find("worker ready")}
    expected = {("application", worker) for worker in workers}
    expected |= {("tool", each) for each in (*workers, server.pid)}
    assert ends(tmp_path) == Counter(expected)


SIGNALS_AT_THE_VERY_END = """
import os, signal, sys

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), numbers=(1, 2, 3, 10, 12, 15), get=os.getpid):
        if get() == pid:
            for number in numbers:
                kill(pid, number)

if "serve" in sys.orig_argv:
    last = Last()
"""
"""A module is cleared when the interpreter handles no signals any more."""


def test_a_signal_that_comes_too_late_is_not_the_exit_status(start: Start, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(SIGNALS_AT_THE_VERY_END)
    path = f"{tmp_path}:{ROOT}"
    server = start("tests.apps.basic:app", "--workers", "1", env={"PYTHONPATH": path}).wait_ready(1)
    server.stop()  # it exits with 0


def test_a_callback_that_fails_is_logged_and_keeps_no_other_from_running(
    start: Start, tmp_path: Path
) -> None:
    server = traced(start, tmp_path, "--workers", "1").wait_ready(1)
    server.expected_errors.add("exit callback failed")
    pid = int(server.get("/fails_in_c")[1])
    assert int(server.get("/fails")[1]) == pid
    server.ask("reload")
    event = server.wait("exit callback failed", pid=pid)
    in_c = server.wait("exit callback failed", 2, pid=pid)
    assert in_c["callback"] == "close"
    assert "OSError: [Errno 9]" in in_c["traceback"]
    assert event["callback"] == "fails"
    assert "LookupError: nothing to flush" in event["traceback"]
    assert "prefork" not in event["traceback"].replace(str(ROOT), "")
    server.wait("worker exited", pid=pid)
    assert ends(tmp_path)["application", pid] == ends(tmp_path)["tool", pid] == 1


def test_a_callback_that_hangs_is_named_and_bounded(start: Start, tmp_path: Path) -> None:
    server = traced(
        *(start, tmp_path, "--workers", "1", "--set", "workers.graceful_timeout=2")
    ).wait_ready(1)
    pid = int(server.get("/hangs")[1])
    server.ask("reload")
    event = server.wait("worker waits for its end", pid=pid)
    assert "in hangs" in event["traceback"]
    assert "worker_end.py" not in event["traceback"]
    server.wait("worker killed", pid=pid)


def test_int_is_not_held_up_by_a_callback_that_hangs(start: Start, tmp_path: Path) -> None:
    server = traced(start, tmp_path, "--workers", "1").wait_ready(1)
    pid = int(server.get("/hangs")[1])
    server.expected_errors.add("worker died")  # INT may be faster than the end of the call
    server.signal(signal.SIGINT)
    server.wait("worker killed", pid=pid)
    assert server.wait_exit() == 0


@pytest.mark.parametrize("end", ["TERM", "INT"])
def test_coverage_run_measures_the_workers(start: Start, tmp_path: Path, end: str) -> None:
    pytest.importorskip("coverage")
    data = tmp_path / "data"
    script = (
        f'exec "$0" -m coverage run --rcfile=/dev/null --parallel-mode --data-file={data}'
        ' --source=tests.apps "$@"'
    )
    server = start(
        *("tests.apps.basic:app", "--workers", "2"), wrapper=("sh", "-c", script)
    ).wait_ready(2)
    assert server.get("/pid")[0] == 200
    server.expected_errors.add("worker exited")  # INT may be faster than the end of the call
    server.signal(signal.Signals[f"SIG{end}"])
    assert server.wait_exit() == 0
    report = tmp_path / "report.json"
    for command in (
        ["combine", "--quiet", f"--data-file={data}", str(tmp_path)],
        ["json", "--quiet", f"--data-file={data}", "-o", str(report)],
    ):
        subprocess.run(
            [sys.executable, "-m", "coverage", command[0], "--rcfile=/dev/null", *command[1:]],
            check=True,
            cwd=ROOT,
            timeout=PATIENCE * 2,
        )
    functions = json.loads(report.read_text())["files"]["tests/apps/basic.py"]["functions"]
    assert functions["pid"]["summary"]["percent_covered"] == 100


PROGRAM = """
import atexit, multiprocessing, os, sys
import prefork

def note(who):
    with open("ends", "a") as file:
        file.write(f"{who} {os.getpid()}\\n")

def app(environ, start_response):
    atexit.register(note, "application")
    start_response("200 OK", [])
    return [str(os.getpid()).encode()]

atexit.register(note, "program")
pool = multiprocessing.get_context("fork").Pool(1)
[child] = multiprocessing.active_children()
print(child.pid, flush=True)
prefork.serve(app, bind="unix:s", workers=1, settings={"control.path": "c", "log.error": "log"})
print("alive" if child.is_alive() else "dead", flush=True)
"""


@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGINT])
def test_what_a_program_registers_for_itself_is_not_its_workers(
    tmp_path: Path, end: signal.Signals
) -> None:
    """Nor do they end the processes that it has started."""
    (tmp_path / "ends").touch()
    (tmp_path / "run.py").write_text(PROGRAM)
    with subprocess.Popen(
        [sys.executable, "run.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as program:
        until(lambda: accepts(tmp_path / "s"), "the server listens")
        told = subprocess.run(
            ["curl", "-sS", "--unix-socket", "s", "http://t"],
            cwd=tmp_path,
            capture_output=True,
            check=True,
        ).stdout
        program.send_signal(end)
        output, _ = program.communicate(timeout=PATIENCE)
    assert output.splitlines()[1] == "alive"
    assert ends(tmp_path) == Counter([("application", int(told)), ("program", program.pid)])
