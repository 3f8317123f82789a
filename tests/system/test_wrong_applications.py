"""What is no WSGI application fails the boot, and a reload, with one line that says what it is."""

import signal
from pathlib import Path

import pytest

from tests.support.server import Start

WSGI = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'fine']\n"
WRONG = {
    "ASGI application": "async def app(scope, receive, send): ...\n",
    "this is a factory": f"def app():\n    {WSGI.replace(chr(10), chr(10) + '    ')}\n",
    "`async def`": "async def app(environ, start_response): ...\n",
}


@pytest.mark.parametrize("problem", WRONG)
def test_it_fails_the_boot_and_a_reload(start: Start, tmp_path: Path, problem: str) -> None:
    site = tmp_path / "wrong_site.py"
    site.write_text(WSGI)
    wsgi = ("--set", "server.protocol=wsgi")
    server = start("wrong_site:app", *wsgi, "--workers", "1", env={"PYTHONPATH": str(tmp_path)})
    server.wait_ready(1)
    server.expected_errors |= {"reload failed", "worker failed to boot"}
    site.write_text(WRONG[problem] + "# longer, so that no old bytecode is taken for it\n")
    server.signal(signal.SIGHUP)
    assert problem in server.wait("reload failed")["reason"]
    assert server.get("/")[1] == b"fine"
    second = start("wrong_site:app", *wsgi, "--workers", "1", env={"PYTHONPATH": str(tmp_path)})
    second.expected_errors |= {"first boot failed", "worker failed to boot"}
    assert second.wait_exit() == 3
    assert problem in second.log()


def test_print_before_a_fork_is_shown_once(start: Start, tmp_path: Path) -> None:
    """At once, and not again by each worker."""
    site = tmp_path / "printing_site.py"
    site.write_text(WSGI + "print('imported')\n")
    shown = tmp_path / "shown"
    with shown.open("wb") as stdout:
        server = start(
            *("printing_site:app", "--workers", "3", "--set", "workers.preload=true"),
            env={"PYTHONPATH": str(tmp_path)},
            stdout=stdout,
        ).wait_ready(3)
    assert shown.read_text() == "imported\n"
    server.stop()
    assert shown.read_text() == "imported\n"
