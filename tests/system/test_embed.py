"""`prefork.serve`: a server that a Python program starts."""

import importlib
import os
import signal
import subprocess
import sys
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

import prefork
from tests.support.commands import ROOT, prefork_command, run_prefork
from tests.support.waiting import PATIENCE, until

SCRIPT = """
import sys
import prefork

def app(environ, start_response):
    start_response("200 OK", [])
    return [b"VERSION"]

status = prefork.serve(
    TARGET,
    bind="unix:s",
    workers=1,
    settings={"control.path": "c", "log.error": "log", "process.pidfile": "pid", **SETTINGS},
)
print("returned", status)
THEN
sys.exit(status + 40)
"""


UNGUARDED = """
import prefork

def app(environ, start_response): ...

prefork.serve("run:app", bind="unix:s", workers=1, settings={"control.path": "c"})
"""


class Program:
    """A script in a directory of its own."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.write("one")

    def write(
        self, version: str, target: str = "app", settings: str = "{}", then: str = ""
    ) -> None:
        text = SCRIPT.replace("VERSION", version).replace("TARGET", target)
        text = text.replace("SETTINGS", settings).replace("THEN", then)
        (self.place / "run.py").write_text(text)

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "run.py"],
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def command(self, *args: str) -> str:
        done = subprocess.run(
            prefork_command(*args),
            cwd=self.place,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )
        assert done.returncode == 0, done.stderr + self.log()
        return done.stdout

    def get(self) -> str:
        return self.command("get", f"http+unix://{str(self.place / 's').replace('/', '%2F')}/")

    def log(self) -> str:
        return (self.place / "log").read_text()


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    program = Program(tmp_path)
    yield program
    if (tmp_path / "pid").exists():
        master = psutil.Process(int((tmp_path / "pid").read_text()))
        for process in (*master.children(recursive=True), master):
            process.kill()


def test_an_application_that_is_an_object(program: Program) -> None:
    with program.start() as running:
        until(lambda: (program.place / "log").exists() and "settled" in program.log(), "it serves")
        assert program.get() == "one"
        program.write("two")
        told = program.command("reload", "--control", "c")
        assert "was given as an object, so its code stays as it is" in told
        assert "application not renewed" in program.log()
        assert program.get() == "one"
        program.command("upgrade", "--control", "c")  # runs the script anew, in the same process
        assert program.get() == "two"
        assert running.pid == int((program.place / "pid").read_text())
        program.command("stop", "--control", "c")
        assert running.stdout is not None
        assert running.stdout.read() == "returned 0\n"
        assert running.wait(PATIENCE) == 40


def test_a_name_is_served_and_its_code_renewed_in_a_daemon(program: Program) -> None:
    module = program.place / "named.py"
    module.write_text(SCRIPT.split("status =")[0].replace("VERSION", "first"))
    program.write("", target='"named:app"', settings='{"process.daemon": True}')
    with program.start() as running:
        # It has returned in the process that was started, and nowhere else.
        assert running.communicate(timeout=PATIENCE)[0] == "returned 0\n"
        assert running.returncode == 40
    assert program.get() == "first"
    module.write_text(module.read_text().replace("first", "second"))
    program.command("reload", "--control", "c")
    assert program.get() == "second"
    program.command("stop", "--control", "c")
    assert "returned" not in program.log()  # the daemon does not go on in the caller's code


def test_a_program_that_its_workers_import_has_to_guard_its_call(program: Program) -> None:
    (program.place / "run.py").write_text(UNGUARDED)
    with program.start() as running:
        log = running.communicate(timeout=PATIENCE)[1]
    assert 'put the call below `if __name__ == "__main__":`' in log
    assert "stop that server" not in log


def test_a_stop_is_over_when_the_process_is(program: Program) -> None:
    program.write("slow", then="import time; time.sleep(0.5)")
    with program.start() as running:
        until(lambda: (program.place / "log").exists() and "settled" in program.log(), "it serves")
        program.command("stop", "--control", "c")
        assert running.poll() == 40


def test_a_stop_does_not_wait_for_what_a_program_does_afterwards(program: Program) -> None:
    program.write("more", then="sys.stdin.read()")
    with program.start() as running:
        until(lambda: (program.place / "log").exists() and "settled" in program.log(), "it serves")
        program.command("stop", "--control", "c")
        assert running.poll() is None
        running.communicate(timeout=PATIENCE)  # ends its input
    assert running.returncode == 40


def test_a_program_that_goes_on_can_be_interrupted(program: Program) -> None:
    then = "try: sys.stdin.read()\nexcept KeyboardInterrupt: status = 2"
    program.write("goes on", then=then)
    with program.start() as running:
        until(lambda: (program.place / "log").exists() and "settled" in program.log(), "it serves")
        program.command("stop", "--control", "c")
        assert running.stdout is not None
        running.send_signal(signal.SIGINT)
        assert running.wait(PATIENCE) == 42


def test_what_it_cannot_serve() -> None:
    with pytest.raises(prefork.StartError, match="3 is not an application: it cannot be called"):
        prefork.serve(3)
    with pytest.raises(prefork.StartError, match=r"prefork.serve\(\): workers.count: expected"):
        prefork.serve("a:b", workers=0)
    with pytest.raises(prefork.StartError, match=r"unknown key; did you mean http\.keepalive"):
        prefork.serve("a:b", settings={"http.keepalve": 3})
    raised = []

    def elsewhere() -> None:
        try:
            prefork.serve("a:b")
        except RuntimeError as error:
            raised.append(str(error))

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert raised == ["prefork.serve() has to be called in the main thread: it handles signals"]


PRINTING = """
import sys
import prefork
print("printed before")
sys.stdout.write("and no end of line")
prefork.serve("tests.apps.basic:app", bind="127.0.0.1:0", settings={settings})
print("; printed after")
"""


@pytest.mark.parametrize("preload", [True, False])
def test_what_is_printed_before_a_daemon_starts_is_shown_once(
    tmp_path: Path, preload: bool
) -> None:
    control, log = tmp_path / "control", tmp_path / "log"
    settings = {
        "process.daemon": True,
        "workers.preload": preload,
        "control.path": str(control),
        "log.error": str(log),
    }
    program = tmp_path / "program.py"
    program.write_text(PRINTING.format(settings=settings))
    with (tmp_path / "out").open("wb") as out:  # not a terminal: print keeps it in a buffer
        subprocess.run(
            [sys.executable, program],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdout=out,
            check=True,
            timeout=PATIENCE,
        )
    run_prefork("stop", "--control", str(control))
    assert (tmp_path / "out").read_text() == "printed before\nand no end of line; printed after\n"
    assert "printed" not in log.read_text()


PASTE = """
import sys
from prefork.embed import serve_for_paste
from tests.apps.basic import app
serve_for_paste(app, {{}}, **{settings})
"""


def run_paste(tmp_path: Path, **settings: str) -> list[str]:
    program = tmp_path / "paste.py"
    program.write_text(PASTE.format(settings=settings))
    return [sys.executable, str(program)]


def test_a_paste_file_starts_it(tmp_path: Path) -> None:
    address, control = tmp_path / "web", tmp_path / "control"
    command = run_paste(
        tmp_path,
        listen=f"unix:{address} 127.0.0.1:0",
        workers="1",
        **{"control.path": str(control), "http.keepalive": "7"},
    )
    with subprocess.Popen(
        command, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, stderr=subprocess.PIPE
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if b"generation settled" in line:
                break
        found = run_prefork("status", "--control", str(control)).stdout
        assert f"unix:{address}, 127.0.0.1:" in found
        assert "target 1 worker" in found
        run_prefork("stop", "--control", str(control))
        assert process.wait(PATIENCE) == 0


def test_an_error_in_a_paste_file_is_a_line(tmp_path: Path) -> None:
    done = subprocess.run(
        run_paste(tmp_path, host="127.0.0.1", port="99999"),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.startswith("prefork: prefork.serve(): server.bind:")


def test_the_package_has_the_entry_point_of_paste() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    target = project["entry-points"]["paste.server_runner"]["main"]
    module, _, name = target.partition(":")
    assert callable(getattr(importlib.import_module(module), name))
