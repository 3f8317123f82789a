"""A server that is started on a terminal: what the terminal sends is no order of an operator."""

import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.server import Start
from tests.support.terminals import Terminal, TerminalServer, terminal
from tests.support.waiting import until


@pytest.fixture
def window() -> Iterator[Terminal]:
    with terminal() as found:
        yield found


@pytest.fixture
def server(tmp_path: Path) -> Iterator[TerminalServer]:
    found = TerminalServer(tmp_path)
    yield found
    found.kill()


INHERIT = ("--set", "process.stdin=inherit")


def test_a_request_that_reads_the_terminal_in_the_background_adds_no_workers(
    window: Terminal, server: TerminalServer
) -> None:
    window.type(f"{server.command(*INHERIT)} &")
    server.wait("worker ready")
    assert server.get("/ask")[0] == 500
    assert "EOFError" in server.wait("application failed")["traceback"]
    assert server.get("/tty")[0] == 500
    assert "OSError: [Errno 5]" in server.wait("application failed", 2)["traceback"]
    # A program that the application starts has the kernel send TTIN to all of the group.
    _, pid = server.get("/child")
    assert server.wait("signal ignored", signal="SIGTTIN")["reason"].startswith("the kernel")
    os.kill(int(pid), signal.SIGKILL)
    window.type(f"kill -TTIN {server.pid}")  # and that of an operator counts
    server.wait("worker ready", 2)
    assert len(server.find("worker ready")) == 2
    assert server.get()[0] == 200


def test_a_background_server_writes_to_a_terminal_with_tostop(
    window: Terminal, server: TerminalServer
) -> None:
    window.type("stty tostop")
    window.type(f"{server.command('--set', 'log.access=stdout')} 2> /dev/null &")
    server.wait("worker ready")
    for _ in range(3):
        assert server.get()[0] == 200
    until(lambda: window.shown.count(b'"GET / ') == 3, "the lines of the access log")
    assert len(server.find("worker ready")) == 1


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("/ask", "EOFError"),
        ("/debug", "SystemExit: 1" if sys.version_info >= (3, 14) else "BdbQuit"),
    ],
)
def test_workers_have_no_standard_input(
    window: Terminal, server: TerminalServer, path: str, error: str
) -> None:
    window.type(server.command())
    server.wait("worker ready")
    assert server.get(path)[0] == 500
    failure = server.wait("application failed")["traceback"]
    assert error in failure
    assert failure.endswith('(workers have no standard input, unless process.stdin is "inherit")')
    assert server.get("/same") == (200, "")


@pytest.mark.parametrize("preload", ["true", "false"])
def test_standard_input_is_not_what_was_read_ahead(start: Start, preload: str) -> None:
    server = start(
        *("tests.apps.terminal:app", "--workers", "1", "--set", f"workers.preload={preload}")
    ).wait_ready(1)
    server.expected_errors.add("application failed")
    assert server.get("/same") == (200, b"")
    assert server.get("/ask")[0] == 500


def test_a_developer_can_debug_on_the_terminal(window: Terminal, server: TerminalServer) -> None:
    window.type(server.command(*INHERIT))
    server.wait("worker ready")
    window.type("hello")
    assert server.get("/ask")[0] == 200
    window.type("p 'an' + 'swer'")
    window.type("continue")
    assert server.get("/debug")[0] == 200
    until(lambda: b"answer'" in window.shown, "the debugger's answer")


@pytest.mark.parametrize("start", ["{}", "{} &", "exec {}", "setsid -w {}"])
def test_a_server_ends_with_its_terminal(
    window: Terminal, server: TerminalServer, start: str
) -> None:
    """In the foreground, in the background, in place of the shell; and not in another session."""
    window.type(start.format(server.command()))
    server.wait("worker ready")
    window.close()
    if start.startswith("setsid"):
        until(lambda: window.shell.poll() is not None, "the end of the shell")
        assert server.get()[0] == 200
        os.kill(server.pid, signal.SIGTERM)
    else:
        server.wait("terminal closed")
    server.wait("stopped")
    assert not server.find("reload started")


def test_nohup_outlives_the_terminal_and_reloads_as_ever(
    window: Terminal, server: TerminalServer
) -> None:
    window.type(f"nohup {server.command()} > /dev/null 2>&1 &")
    server.wait("worker ready")
    window.close()
    server.wait("signal ignored", signal="SIGHUP")
    assert server.get()[0] == 200
    os.kill(server.pid, signal.SIGHUP)
    server.wait("generation settled", generation=2)
    os.kill(server.pid, signal.SIGTERM)
    server.wait("stopped")


@pytest.mark.parametrize("start", ["{}", "nohup {} > /dev/null 2>&1"])
def test_the_shell_that_started_a_server_reloads_it(
    window: Terminal, server: TerminalServer, start: str
) -> None:
    window.type(f"{start.format(server.command())} &")
    server.wait("worker ready")
    window.type(f"kill -HUP {server.pid}")  # the shell's own kill
    server.wait("generation settled", generation=2)
    window.type(f"env kill -HUP {server.pid}")
    server.wait("generation settled", generation=3)
    assert not server.find("terminal closed")


@pytest.mark.parametrize("start", ["{} &", "nohup {} > /dev/null 2>&1 &"])
def test_an_upgrade_keeps_what_the_end_of_the_terminal_does(
    window: Terminal, server: TerminalServer, start: str
) -> None:
    window.type(start.format(server.command()))
    server.wait("worker ready")
    os.kill(server.pid, signal.SIGUSR2)
    server.wait("generation settled", generation=2)
    window.close()
    if start.startswith("nohup"):
        server.wait("signal ignored", signal="SIGHUP")
        assert server.get()[0] == 200
        os.kill(server.pid, signal.SIGHUP)
        server.wait("generation settled", generation=3)
        os.kill(server.pid, signal.SIGTERM)
    else:
        server.wait("terminal closed")
    server.wait("stopped")
