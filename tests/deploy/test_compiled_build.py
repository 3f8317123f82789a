"""The compiled wheel: built, and a server that runs it.

It takes minutes to compile, once for this file. Where the compiled build is installed, as by
`make test-compiled`, that one is used.
"""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import sysconfig
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import prefork
from prefork.compiled import COMPILED
from tests.support.source_tree import copy_of_source
from tests.support.waiting import until

pytestmark = [] if COMPILED else [pytest.mark.nightly, pytest.mark.timeout(1800)]

APP = """\
import time

def app(environ, start_response):
    if environ["PATH_INFO"] == "/slow":
        deep_in_the_application()
    if environ["PATH_INFO"] == "/broken":
        raise LookupError("of the application")
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [environ["QUERY_STRING"].encode()]

def deep_in_the_application():
    time.sleep(3600)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the compiled build is."""
    if COMPILED:
        return Path(prefork.__file__).parents[1]
    if shutil.which("cc") is None or not Path(sysconfig.get_path("include"), "Python.h").exists():
        pytest.skip("does not apply: nothing can be compiled here")
    if sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("does not apply: free-threaded CPython has no compiled build")
    place = tmp_path_factory.mktemp("compiled")
    source = copy_of_source(place / "source")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*command, "--wheel-dir", str(place), str(source)],
        env={**os.environ, "PREFORK_COMPILE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (wheel,) = place.glob("*.whl")
    version = "cp{}{}".format(*sys.version_info)
    machine = sysconfig.get_platform().replace("-", "_")
    assert wheel.name == f"prefork-{prefork.__version__}-{version}-{version}-{machine}.whl"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(place / "site")
    return place / "site"


class CompiledServer:
    """A server of one worker that runs the compiled build."""

    def __init__(self, site: Path, place: Path) -> None:
        (place / "hello.py").write_text(APP)
        self.place = place
        self.log = place / "log"
        self._environ = {**os.environ, "PYTHONPATH": str(site)}
        self._command = [sys.executable, "-m", "prefork"]
        keys = (f"control.path={place / 'c'}", f"log.error={self.log}", "workers.count=1")
        settings = [word for key in keys for word in ("--set", key)]
        self.process = subprocess.Popen(
            [*self._command, "serve", "hello:app", "--bind", f"unix:{place / 's'}", *settings],
            cwd=place,
            env=self._environ,
        )
        until(lambda: "generation settled" in self.text)

    @property
    def text(self) -> str:
        return self.log.read_text() if self.log.exists() else ""

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [*self._command, *arguments],
            cwd=self.place,
            env=self._environ,
            text=True,
            capture_output=True,
        )
        return done.stdout

    def url(self, path: str) -> str:
        return f"http+unix://{str(self.place / 's').replace('/', '%2F')}{path}"

    def get(self, path: str) -> str:
        return self.run("get", self.url(path))

    def begin(self, path: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [*self._command, "get", self.url(path)],
            cwd=self.place,
            env=self._environ,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def command(self, *arguments: str) -> str:
        return self.run(*arguments, "--control", str(self.place / "c"))


@pytest.fixture
def server(site: Path, tmp_path: Path) -> Iterator[CompiledServer]:
    running = CompiledServer(site, tmp_path)
    try:
        yield running
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.process.send_signal(signal.SIGQUIT)
        running.process.wait()


def test_it_serves_and_says_which_build_it_is(server: CompiledServer) -> None:
    assert [server.get(f"/?{number}") for number in range(3)] == ["0", "1", "2"]
    assert "\nBuild: compiled\n" in server.run("--version")
    assert json.loads(server.command("status", "--json"))["build"] == "compiled"
    assert " (compiled)," in server.command("status")


def test_frames_of_the_application_stay(server: CompiledServer) -> None:
    """Those of compiled functions are not in a stack; from where a traceback is logged, too."""
    server.get("/broken")
    until(lambda: "LookupError: of the application" in server.text)
    assert "hello.py" in server.text
    slow = server.begin("/slow")
    until(lambda: "deep_in_the_application" in server.command("status", "--stack", "0"))
    stack = server.command("status", "--stack", "0")
    assert "http_connection.py" not in stack
    slow.kill()
    slow.wait()


@pytest.mark.parametrize("busy", [False, True])
def test_signals_are_answered(server: CompiledServer, busy: bool) -> None:
    server.process.send_signal(signal.SIGHUP)
    until(lambda: server.text.count("generation settled") == 2)
    server.log.rename(server.log.with_suffix(".1"))
    server.process.send_signal(signal.SIGUSR1)
    until(server.log.exists)
    assert server.get("/?again") == "again"
    if busy:
        slow = server.begin("/slow")
        until(lambda: "/slow" in server.command("status"))
        server.process.send_signal(signal.SIGQUIT)
        slow.wait()
    else:
        server.process.send_signal(signal.SIGTERM)
    assert server.process.wait() == 0


def test_a_source_that_was_changed_runs_as_it_is(site: Path, tmp_path: Path) -> None:
    """The extension module beside it is of the source before."""
    place = tmp_path / "site"
    shutil.copytree(site / "prefork", place / "prefork")
    for extension in site.glob("*__mypyc*.so"):  # what the modules share
        shutil.copy(extension, place)
    with (place / "prefork/http/limits.py").open("a") as source:
        source.write("CHANGED = True\n")
    code = "import prefork.compiled as c, prefork.http.limits as l; print(c.BUILD, l.CHANGED)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=place,
        env={**os.environ, "PYTHONPATH": str(place)},
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("pure Python True\n", "")
