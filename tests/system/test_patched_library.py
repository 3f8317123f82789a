"""Applications that replace parts of the standard library, as gevent and eventlet do."""

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.commands import run_prefork
from tests.support.raw_http import request, talk
from tests.support.server import Start

PATCHES = {
    "gevent": "from gevent import monkey; monkey.patch_all()",
    "eventlet": "import eventlet; eventlet.monkey_patch()",
}
APP = """
import threading, time

def app(environ, start_response):
    time.sleep(0.02)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"fine ", environ["wsgi.input"].read()]
"""


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("threads", ["1", "3"])
def test_the_server_uses_nothing_that_an_application_replaces(
    start: Start, preload: str, threads: str
) -> None:
    server = start(
        *("tests.apps.patched:app", "--workers", "2", "--threads", threads),
        *("--set", f"workers.preload={preload}", "--set", "log.access=stderr"),
        *("--set", "workers.slow_request=0.001", "--set", "http.stream_body=true"),
    ).wait_ready(2)
    upload = b"x" * 300_000
    with talk(server) as slow:  # parked, with a body that comes in two parts
        slow.send(request("/", f"Content-Length: {len(upload)}", method="POST") + upload[:100_000])
        with ThreadPoolExecutor(8) as clients:
            answers = list(clients.map(lambda _: server.get(), range(40)))
        assert {status for status, _ in answers} == {200}
        assert slow.ask(upload[100_000:]).body.endswith(upload)
    # The loop itself may be compiled.
    assert "worker/boot/process.py" in server.command("status", "--stack", "0").stdout
    server.ask("reopen")
    server.ask("reload")
    server.ask("upgrade")
    assert server.get()[0] == 200


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize("threads", ["1", "3"])
@pytest.mark.parametrize("library", PATCHES)
def test_applications_of_other_event_loops_boot_and_serve(
    start: Start, tmp_path: Path, library: str, preload: str, threads: str
) -> None:
    why = f"does not apply: httpbin, which other tests need, keeps {library} from being installed"
    pytest.importorskip(library, reason=why)
    (tmp_path / "patching.py").write_text(f"{PATCHES[library]}\n{APP}")
    server = start(
        *("patching:app", "--workers", "2", "--threads", threads),
        *("--set", f"workers.preload={preload}", "--set", f"server.pythonpath=['{tmp_path}']"),
        env={"PYTHONWARNINGS": "ignore"},
    ).wait_ready(2)
    with ThreadPoolExecutor(8) as clients:
        answers = list(clients.map(lambda _: server.get(), range(40)))
    assert answers == [(200, b"fine ")] * 40
    server.signal(signal.SIGHUP)
    server.wait_settled(2)
    assert server.get() == (200, b"fine ")


def test_a_server_in_a_program_that_has_replaced_threads_says_so(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(
        "import threading\n"
        "threading._start_new_thread = threading._start_joinable_thread = lambda *_: None\n"
        "import prefork\n"
        "prefork.serve('tests.apps.basic:app', bind='127.0.0.1:0')\n"
    )
    done = subprocess.run(
        [sys.executable, program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "StartError: the threads of Python are replaced in this process" in done.stderr
    assert run_prefork("--version").returncode == 0
