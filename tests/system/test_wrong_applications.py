"""What is no WSGI application fails the boot, and a reload, with one line that says what it is."""

import signal
from pathlib import Path

import pytest

from tests.support.server import Server, Start

WSGI = "def app(environ, start_response):\n    start_response('200 OK', [])\n    return [b'fine']\n"
WRONG = {
    "ASGI application": "async def app(scope, receive, send): ...\n",
    "this is a factory": f"def app():\n    {WSGI.replace(chr(10), chr(10) + '    ')}\n",
    "`async def`": "async def app(environ, start_response): ...\n",
}


def wsgi(start: Start, tmp_path: Path) -> Server:
    env = {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}
    return start("wrong_site:app", "--set", "server.protocol=wsgi", "--workers", "1", env=env)


def test_it_fails_a_reload(start: Start, tmp_path: Path) -> None:
    site = tmp_path / "wrong_site.py"
    site.write_text(WSGI)
    server = wsgi(start, tmp_path).wait_ready(1)
    server.expected_errors |= {"reload failed", "worker failed to boot"}
    for number, (problem, source) in enumerate(WRONG.items(), 1):
        site.write_text(source)
        server.signal(signal.SIGHUP)
        assert problem in server.wait("reload failed", number)["reason"]
        assert (problem, server.get("/")[1]) == (problem, b"fine")


@pytest.mark.parametrize("problem", WRONG)
def test_it_fails_the_boot(start: Start, tmp_path: Path, problem: str) -> None:
    (tmp_path / "wrong_site.py").write_text(WRONG[problem])
    server = wsgi(start, tmp_path)
    server.expected_errors |= {"first boot failed", "worker failed to boot"}
    assert server.wait_exit() == 3
    assert problem in server.log()


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
