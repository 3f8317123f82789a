"""What the program that starts a server leaves behind does no harm, and what is its own stays."""

import os
import signal
import socket
import subprocess
from pathlib import Path

import pytest

from tests.support.closed_descriptors import serve_once
from tests.support.commands import ROOT, prefork_command
from tests.support.server import Start
from tests.support.waiting import PATIENCE

APP = "tests.apps.basic:app"
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD, signal.SIGUSR1)


def test_blocked_signals_reach_the_server(start: Start) -> None:
    server = start(
        *(APP, "--workers", "1"),
        preexec_fn=lambda: signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS),
    ).wait_ready(1)
    os.kill(server.worker_pids()[0], signal.SIGKILL)  # SIGCHLD is blocked, too
    server.expected_errors.add("worker died")
    server.wait("worker ready", 2)
    server.signal(signal.SIGHUP)
    server.wait("generation settled", generation=2)
    server.stop()  # by TERM


def test_a_server_that_is_started_with_sigchld_ignored_sees_its_workers_die(start: Start) -> None:
    server = start(
        *(APP, "--workers", "1"),
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    ).wait_ready(1)
    server.expected_errors.add("worker died")
    os.kill(server.worker_pids()[0], signal.SIGKILL)
    server.wait("worker ready", 2)


def test_a_daemon_starts_with_sigchld_ignored(tmp_path: Path) -> None:
    control = tmp_path / "control"
    done = subprocess.run(
        prefork_command(
            *("serve", APP, "--bind", f"unix:{tmp_path}/web", "--set", "process.daemon=true"),
            *("--set", f"control.path={control}", "--set", f"log.error={tmp_path}/log"),
        ),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        preexec_fn=lambda: signal.signal(signal.SIGCHLD, signal.SIG_IGN),
    )
    try:
        assert (done.returncode, done.stderr) == (0, "")
    finally:
        subprocess.run(prefork_command("stop", "--control", str(control)), timeout=PATIENCE)


def test_an_application_that_ignores_sigchld_is_imported_once(start: Start) -> None:
    server = start(
        *("tests.apps.ignores_children:app", "--workers", "3", "--set", "workers.preload=true")
    ).wait_ready(3)
    assert len(server.children("zygote")) == 1
    assert not server.find("zygote died")


@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 1, 2)])
def test_closed_standard_descriptors_are_dev_null(tmp_path: Path, closed: tuple[int, ...]) -> None:
    serve_once(tmp_path, closed)


def test_a_listener_that_was_passed_on_is_non_blocking_again_at_the_end(start: Start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.setblocking(False)
        server = start(
            APP, bind=(f"fd:{listener.fileno()}",), pass_fds=(listener.fileno(),)
        ).wait_ready(1)
        assert server.get("/")[0] == 200
        server.ask("upgrade")
        server.stop()
        assert not os.get_blocking(listener.fileno())
