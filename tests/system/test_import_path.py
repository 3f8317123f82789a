"""Nothing is imported from the working directory: there, anybody may have put a `json.py`."""

import _imp
import ast
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.commands import PACKAGE, ROOT
from tests.support.imported_names import imported_names
from tests.support.server import Start
from tests.support.waiting import PATIENCE

OTHERS = ("msgspec", "click", "psutil", "setproctitle", "rich", "scapy", "watchfiles", "zstandard")

LOADED = "import sys; print(*{name.partition('.')[0] for name in sys.modules})"

HOSTILE = """\
import os
with open({marks!r}, "a") as marks:
    marks.write(f"{{os.getpid()}} {name}\\n")
raise ImportError("the file of a stranger was imported")
"""

APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Length", "2")])
    return [b"ok"]
"""

COMMANDS = (
    ("--version",),
    ("--help",),
    ("serve", "--help"),
    ("check", "{site}"),
    ("reload", "{site}"),
    ("upgrade", "{site}"),
    ("stop", "{site}"),
    ("reopen", "{site}"),
    ("scale", "2", "--control", "{there}/control"),
    ("status", "--json", "--control", "{there}/control"),
    ("top", "--control", "{there}/control"),
    ("get", "http://127.0.0.1:1/"),
    ("talk", "127.0.0.1:1"),
    ("wire", "{there}/none.pcap"),
    ("init", "{there}/new.toml"),
    ("explain", "bind"),
    ("migrate", "gunicorn", "{there}/gunicorn.conf.py"),
    ("migrate", "uwsgi", "{there}/uwsgi.ini"),
    ("completion", "bash"),
)


class Trap:
    """A working directory in which each module that Python could look for is a stranger's."""

    def __init__(self, tmp: Path) -> None:
        self.path, self.site, self.marks = tmp / "cwd", tmp / "site", tmp / "marks"
        self.path.mkdir()
        self.site.mkdir()
        (self.site / "shop.py").write_text(APP)
        (self.site / "site.toml").write_text('[server]\napp = "shop:app"\nbind = "127.0.0.1:0"\n')
        (self.site / "gunicorn.conf.py").write_text('wsgi_app = "shop:app"\n')
        (self.site / "uwsgi.ini").write_text("[uwsgi]\nmodule = shop:app\nhttp = :8000\n")
        empty = tmp / "start" / "empty"
        empty.mkdir(parents=True)
        (empty / "__init__.py").touch()
        (empty / "__main__.py").write_text(LOADED)
        started = self._run([sys.executable, "-m", "empty"], empty.parent)
        self.by_python = set(started.stdout.split())
        """What `python -m` imports by itself, before any code of ours."""

    def _run(self, command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            command,
            cwd=cwd,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE * 2,
        )

    def set_up(self, but: set[str]) -> None:
        for name in {*sys.stdlib_module_names, *OTHERS, "prefork"} - but:
            (self.path / f"{name}.py").write_text(HOSTILE.format(name=name, marks=str(self.marks)))

    def run(self, launcher: list[str], *args: str) -> subprocess.CompletedProcess[str]:
        words = [each.format(site=self.site / "site.toml", there=self.site) for each in args]
        return self._run([*launcher, *words], self.path)

    def marked(self) -> list[str]:
        return self.marks.read_text().splitlines() if self.marks.exists() else []


@pytest.fixture
def trap(tmp_path: Path) -> Trap:
    return Trap(tmp_path)


SCRIPT = Path(sys.executable).with_name("prefork")


@pytest.mark.parametrize("launcher", ["script", "-m", "-P -m"])
def test_no_command_imports_from_the_working_directory(trap: Trap, launcher: str) -> None:
    if launcher == "script":
        if not SCRIPT.exists():
            pytest.skip(f"prefork is not installed: there is no {SCRIPT}")
        command, by_python = [str(SCRIPT)], set[str]()
    elif launcher == "-m":
        # A `prefork.py` would be what -m runs, and no code of ours.
        command, by_python = [sys.executable, "-m", "prefork"], {*trap.by_python, "prefork"}
    else:
        command, by_python = [sys.executable, "-P", "-m", "prefork"], set[str]()
    trap.set_up(but=by_python)
    for args in COMMANDS:
        done = trap.run(command, *args)
        assert "Traceback" not in done.stderr, (args, done.stderr)
        assert not trap.marked(), args


@pytest.mark.parametrize("module", ["__init__", "compiled", "stop_notice"])
def test_what_is_imported_before_the_path_is_right_is_part_of_the_interpreter(module: str) -> None:
    """`python -m` runs these before `__main__`; which modules it has loaded differs by version."""
    tree = ast.parse((PACKAGE / f"{module}.py").read_bytes())
    names = imported_names(tree.body)
    assert names
    for name in names - {"prefork", "prefork.stop_notice"}:
        assert name in sys.builtin_module_names or _imp.is_frozen(name), name


def test_a_server_imports_nothing_from_the_working_directory(trap: Trap, start: Start) -> None:
    """Neither do its zygote, its workers, or its master after an upgrade."""
    trap.set_up(but={*trap.by_python, "prefork"})
    site = str(trap.site / "site.toml")
    server = start(site, "--set", "workers.preload=true", cwd=trap.path).wait_ready(1)
    assert server.get()[1] == b"ok"
    server.ask("reload")
    server.signal(signal.SIGUSR2)
    server.wait("upgraded")
    server.wait_settled(3)
    assert server.get()[1] == b"ok"
    assert server.status()
    server.stop()
    assert not trap.marked()


def test_the_application_is_still_found_in_the_working_directory(
    trap: Trap, start: Start, tmp_path: Path
) -> None:
    server = start("shop:app", cwd=trap.site).wait_ready(1)
    assert server.get()[1] == b"ok"


def test_the_operators_path_of_modules_holds(trap: Trap, start: Start) -> None:
    there = {"PYTHONPATH": f"{ROOT}{os.pathsep}{trap.site}"}
    server = start("shop:app", cwd=trap.path, env=there).wait_ready(1)
    assert server.get()[1] == b"ok"
