"""Files that another program removes: Unix sockets, the control socket, the pidfile."""

import os
import shutil
import signal
import socket
import stat
from pathlib import Path

import pytest

from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE

APP = "tests.apps.basic:app"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    place = tmp_path / "above" / "between" / "run"
    place.mkdir(parents=True)
    return place


@pytest.fixture
def server(start: Start, run: Path) -> Server:
    return start(
        *(APP, "--workers", "2", "--set", "server.unix_mode=0640"),
        *("--set", f"process.pidfile={run}/pid"),
        bind=("127.0.0.1:0", f"unix:{run}/web"),
    ).wait_settled(1)


def answers(path: Path) -> bool:
    """Whether a request on the Unix socket at this path is answered."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        try:
            client.connect(str(path))
        except (FileNotFoundError, ConnectionRefusedError):
            return False
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return client.recv(12) == b"HTTP/1.1 200"


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_socket_file_that_was_removed_is_made_anew(server: Server, run: Path) -> None:
    path = run / "web"
    path.unlink()
    event = server.wait("file lost", path=str(path))
    assert (event["kind"], event["reason"]) == ("listener", "it was removed")
    server.wait("file made anew", path=str(path))
    assert answers(path)
    assert mode(path) == 0o640
    assert server.get("/")[0] == 200
    assert server.status()["lost"] == []
    path.unlink()  # and once more
    server.wait_settled(3)
    assert answers(path)


def test_connections_of_the_removed_socket_are_served(server: Server, run: Path) -> None:
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(PATIENCE)
        client.connect(str(run / "web"))
        (run / "web").unlink()
        server.wait_settled(2)
        client.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert client.recv(12) == b"HTTP/1.1 200"


def test_a_socket_file_that_was_replaced_is_not_taken_from_another_server(
    server: Server, run: Path
) -> None:
    path = run / "web"
    server.expected_errors.add("reload failed")
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(run / "other"))
        other.listen()
        os.rename(run / "other", path)
        assert server.wait("file lost")["reason"] == "another file is in its place"
        assert "in use" in server.wait("reload failed")["reason"]
        assert "another file" in server.command("status").stdout
        assert server.get("/")[0] == 200
    server.signal(signal.SIGHUP)  # the other server has ended: its socket is stale
    server.wait("file made anew", path=str(path))
    server.wait("generation settled", 2)
    assert answers(path)


def test_a_pidfile_that_was_removed_is_made_anew_and_still_locked(
    server: Server, start: Start, run: Path
) -> None:
    path = run / "pid"
    path.unlink()
    server.wait("file made anew", path=str(path))
    assert path.read_text() == f"{server.pid}\n"
    second = start(APP, "--set", f"process.pidfile={path}")
    assert second.wait_exit() == 1
    assert "is locked by process" in "".join(second.other)
    server.ask("upgrade")
    server.stop()
    assert not path.exists()


def test_a_control_socket_that_was_removed_is_made_anew(server: Server) -> None:
    server.control.unlink()
    server.wait("file made anew", path=str(server.control))
    assert mode(server.control) == 0o600
    server.ask("reload")
    server.control.unlink()
    server.wait("file made anew", 2, path=str(server.control))
    server.ask("upgrade")
    server.status()


def test_a_directory_that_was_removed(server: Server, run: Path) -> None:
    server.expected_errors |= {"reload failed", "file not made anew"}
    shutil.rmtree(run)
    server.wait("file lost", path=str(run / "web"))
    assert "lost: listener" in server.command("status").stdout
    run.mkdir()
    server.ask("reload")  # it need not wait for the next attempt
    assert answers(run / "web")
    server.wait("file made anew", path=str(run / "pid"))
    assert server.status()["lost"] == []


@pytest.mark.parametrize("command", ["status", "reload", "upgrade"])
def test_commands_look_where_the_kernel_reports_nothing(
    server: Server, run: Path, command: str, tmp_path: Path
) -> None:
    (tmp_path / "above").rename(tmp_path / "moved")
    run.mkdir(parents=True)
    assert not server.find("file lost")
    server.expected_errors.add("reload failed")  # the server's own may be first, or come between
    server.command(command, check=False)
    server.wait("generation settled", 2)
    server.wait("file made anew", path=str(run / "web"))
    assert answers(run / "web")


def test_an_application_whose_new_code_fails_serves_on_without_the_socket(
    start: Start, run: Path, tmp_path: Path
) -> None:
    module = tmp_path / "fragile.py"
    module.write_text("from tests.apps.basic import app as app")
    server = start(
        *("fragile:app", "--workers", "1", "--set", f"server.pythonpath=['{tmp_path}']"),
        bind=("127.0.0.1:0", f"unix:{run}/web"),
        env={"PYTHONDONTWRITEBYTECODE": "1"},
    ).wait_ready(1)
    server.expected_errors |= {"reload failed", "worker failed to boot"}
    module.write_text("1 / 0")
    (run / "web").unlink()
    assert "ZeroDivisionError" in server.wait("reload failed")["reason"]
    assert server.get("/")[0] == 200
    assert server.status()["lost"] == [f"listener {run}/web: it was removed"]
    module.write_text("from tests.apps.basic import app as app")
    server.ask("reload")
    assert answers(run / "web")
    assert server.status()["lost"] == []
