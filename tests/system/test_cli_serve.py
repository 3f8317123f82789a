"""The command line with a real server behind it: at a terminal, and by the files in conf/."""

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import socket
import subprocess
import sys
import termios
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from click import Context
from click.testing import CliRunner

from prefork import __version__
from prefork.cli.group import group
from tests.support.commands import ROOT, prefork_command, run_prefork
from tests.support.server import Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE

CONF = ROOT / "conf"
COMMANDS = group.list_commands(Context(group))


class Terminal:
    """A command on a terminal of its own, which is also its controlling one."""

    def __init__(self, *args: str) -> None:
        self._fd, inner = pty.openpty()
        self.process = subprocess.Popen(
            prefork_command(*args),
            cwd=ROOT,
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )
        os.close(inner)
        self.shown = ""

    def _read(self, patience: float) -> bool:
        """Takes what comes; False at the end."""
        assert select.select([self._fd], [], [], patience)[0], f"nothing more:\n{self.shown}"
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # EIO: nobody has the terminal open any more, pty(7)
            return False
        self.shown += data.decode().replace("\r\n", "\n")
        return bool(data)

    def wait(self, pattern: str, count: int = 1) -> str:
        deadline = monotonic() + PATIENCE
        while len(found := re.findall(pattern, self.shown)) < count:
            assert self._read(deadline - monotonic()), f"no {pattern}:\n{self.shown}"
        return str(found[count - 1])

    def type(self, data: bytes) -> None:
        os.write(self._fd, data)

    def end(self) -> int:
        """Its exit status, once no process has the terminal open."""
        while self._read(PATIENCE):
            pass
        return self.process.wait(PATIENCE)

    def close(self) -> None:
        if self.process.poll() is None:
            # The session is ours: nobody else is in it.
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        os.close(self._fd)


@contextlib.contextmanager
def terminal(*args: str) -> Iterator[Terminal]:
    made = Terminal(*args)
    try:
        yield made
    finally:
        made.close()


CTRL_C = b"\x03"


@pytest.mark.parametrize("more", [(), ("--reload",)], ids=["plain", "reload"])
def test_at_a_terminal_it_says_what_it_does_and_ctrl_c_ends_it(
    tmp_path: Path, more: tuple[str, ...]
) -> None:
    """Ctrl-C goes to the whole group: master, workers, and what they have begun."""
    if more:
        pytest.importorskip("watchfiles")
    options = ("--bind", "127.0.0.1:0", "--workers", "2", *more)
    control = ("--set", f"control.path={tmp_path / 'control.sock'}")
    with terminal("serve", "tests.apps.basic:app", *options, *control) as screen:
        port = int(screen.wait(r"at +http://127\.0\.0\.1:(\d+)\n"))
        screen.wait("worker ready", 2)
        if more:
            screen.wait(r"\] watching ")
        lines = screen.shown.splitlines()
        assert lines[0] == f"prefork {__version__} serves tests.apps.basic:app"
        assert [line.split(maxsplit=1) for line in lines[1:4]] == [
            ["at", f"http://127.0.0.1:{port}"],
            ["with", "2 workers"],
            ["stop", "Ctrl-C: at once; prefork stop, or TERM: gracefully"],
        ]
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(b"GET /pid HTTP/1.0\r\n\r\n")
            assert read_all(sock).startswith(b"HTTP/1.1 200 ")
        screen.type(CTRL_C)
        assert screen.end() == 0
        assert "Traceback" not in screen.shown
        assert "KeyboardInterrupt" not in screen.shown
        assert "[error]" not in screen.shown
        assert screen.shown.rstrip().splitlines()[-1].split("] ")[1].startswith("stopped ")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop", "tests.apps.loops:plain"])
def test_at_a_terminal_it_names_the_event_loop(tmp_path: Path, loop: str) -> None:
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    options = ("--bind", "127.0.0.1:0", "--workers", "1", "--set", f"workers.loop={loop}")
    asgi = ("--set", "server.protocol=asgi", "--set", f"control.path={tmp_path / 'control.sock'}")
    with terminal("serve", "tests.apps.async_basic:app", *options, *asgi) as screen:
        screen.wait("worker ready")
        assert screen.shown.splitlines()[2].split() == ["with", "1", "worker", "on", loop]
        screen.type(CTRL_C)
        assert screen.end() == 0


def test_ctrl_c_ends_a_request_that_would_never_end(tmp_path: Path) -> None:
    control = ("--set", f"control.path={tmp_path / 'control.sock'}")
    options = ("--bind", "127.0.0.1:0", "--workers", "1", *control)
    with terminal("serve", "tests.apps.basic:app", *options) as screen:
        port = int(screen.wait(r"at +http://127\.0\.0\.1:(\d+)\n"))
        with socket.create_connection(("127.0.0.1", port), PATIENCE) as sock:
            sock.sendall(b"GET /stream?n=1000000&delay=1 HTTP/1.0\r\n\r\n")
            assert sock.recv(1000)
            screen.type(CTRL_C)
            assert screen.end() == 0
        assert "Traceback" not in screen.shown


def test_away_from_a_terminal_only_the_log_is_written(start: Start) -> None:
    server = start("tests.apps.basic:app", "--workers", "1").wait_ready(1)
    server.stop()
    assert server.other == []


# Arguments.


def test_as_a_module_it_is_the_command() -> None:
    done = run_prefork("--version")
    assert (done.returncode, done.stderr) == (0, "")

    assert done.stdout.startswith(f"prefork {__version__}\nPython ")


def test_the_commands_are_listed_each_with_a_word() -> None:
    done = run_prefork("--help")
    assert done.returncode == 0
    assert done.stdout.startswith("Usage: prefork ")
    listed = re.findall(r"^  (\w+)  +(\S.*)$", done.stdout.partition("Commands:")[2], re.MULTILINE)
    assert sorted(name for name, _ in listed) == sorted(COMMANDS)


@pytest.mark.parametrize("option", ["--help", "-h"])
@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_explains_itself(command: str, option: str) -> None:
    done = CliRunner().invoke(group, [command, option], prog_name="prefork")
    assert done.exit_code == 0
    assert done.output.startswith(f"Usage: prefork {command} ")


@pytest.mark.parametrize("command", COMMANDS)
def test_an_unknown_option_is_named(command: str) -> None:
    done = CliRunner().invoke(group, [command, "--colour"], prog_name="prefork")
    assert done.exit_code == 2
    assert "No such option" in done.output
    assert "--colour" in done.output


def test_an_unknown_command_is_named() -> None:
    done = run_prefork("frobnicate")
    assert done.returncode == 2
    assert done.stderr.endswith("Error: No such command 'frobnicate'.\n")


@pytest.mark.parametrize(
    ("args", "hint"),
    [
        (("server",), "No such command 'server'; did you mean serve?"),
        (
            ("shop:app", "-w", "4"),
            "No such command 'shop:app'; to serve it: `prefork serve shop:app`",
        ),
        (("site.toml",), "to serve it: `prefork serve site.toml`"),
        (("-w", "4", "shop:app"), "Options follow a command, as in `prefork serve -w`."),
    ],
)
def test_a_start_line_without_serve_is_answered_with_it(args: tuple[str, ...], hint: str) -> None:
    done = CliRunner().invoke(group, args, prog_name="prefork")
    assert done.exit_code == 2
    assert hint in done.output


@pytest.mark.parametrize(
    ("args", "named"),
    [
        (("nowhere.toml",), "nowhere.toml"),
        (("nothing",), "nothing"),
        (("tests.apps.basic:app", "--workers", "0"), "--workers"),
        (("tests.apps.basic:app", "--threads", "many"), "--threads"),
        (("tests.apps.basic:app", "--set", "workers.thread=2"), "workers.threads"),
        ((), "server.app"),
    ],
)
def test_what_cannot_be_served_is_one_line(args: tuple[str, ...], named: str) -> None:
    done = run_prefork("serve", *args)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith("prefork: ")
    assert named in line


@pytest.mark.parametrize("command", ["serve", "check"])
def test_a_setting_without_a_value_is_a_mistake_in_the_command_line(command: str) -> None:
    done = run_prefork(command, "tests.apps.basic:app", "--set", "workers.count")
    assert done.returncode == 2
    assert "SECTION.KEY=VALUE" in done.stderr


def test_check_takes_the_settings_of_serve(tmp_path: Path) -> None:
    file = tmp_path / "site.toml"
    file.write_text("[workers]\nthreads = 2\n")
    app = ("--set", "server.app=tests.apps.basic:app")
    done = run_prefork("check", str(file), *app, "--set", "workers.threads=3", "--show")
    assert done.returncode == 0, done.stdout
    (line,) = (line for line in done.stdout.splitlines() if line.startswith("workers.threads"))
    assert re.search(r"= 3 .*--set", line)
    done = run_prefork("check", str(file), *app, "--set", "workers.thread=3")
    assert (done.returncode, done.stdout) == (
        1,
        "--set: workers.thread: unknown key; did you mean workers.threads?\n",
    )


# The files in conf/.


@pytest.mark.parametrize("file", sorted(CONF.glob("*.toml")), ids=lambda file: file.name)
def test_check_of_the_files_that_come_along(file: Path) -> None:
    done = run_prefork("check", str(file))
    if file.name == "prefork.toml":  # the manual: what to serve is for its reader to fill in
        assert done.returncode == 1
        (line,) = done.stdout.splitlines()
        assert "server.app: missing" in line
    else:
        assert (done.returncode, done.stdout) == (0, "ok\n")


def test_the_manual_with_something_to_serve_is_right(start: Start) -> None:
    server = start("conf/prefork.toml", "--set", "server.app=tests.apps.basic:app")
    server.wait("worker ready")
    assert server.get("/pid")[0] == 200


def test_the_file_for_wsgi_serves(start: Start, tmp_path: Path) -> None:
    with (tmp_path / "access").open("wb") as stdout:
        server = start("conf/wsgi.toml", "--workers", "1", stdout=stdout).wait_ready(1)
    status, page = server.get("/")
    assert status == 200
    assert str(server.find("worker ready")[0]["pid"]).encode() in page
    server.stop()
    assert '"GET / HTTP/1.1" 200 ' in (tmp_path / "access").read_text()


def test_the_file_for_a_directory_serves(start: Start) -> None:
    server = start("conf/static.toml", "--workers", "1").wait_ready(1)
    status, listing = server.get("/")
    assert status == 200
    assert b"architecture.md" in listing
    assert server.get("/architecture.md") == (200, (ROOT / "docs/architecture.md").read_bytes())


def test_the_file_for_tcp_serves(start: Start) -> None:
    server = start("conf/tcp.toml").wait_ready(4)
    said = b"".join(b"back and forth %d\n" % number for number in range(1000))
    done = subprocess.run(
        [sys.executable, "-m", "prefork", "talk", server.addresses[0]],
        cwd=ROOT,
        input=said,
        capture_output=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0
    assert done.stdout == said


def test_a_module_alone_and_arguments_from_the_environment(start: Start) -> None:
    server = start(
        *("tests.apps.basic", "--timeout", "50", "-w", "1"),
        env={"PREFORK_CMD_ARGS": "--workers 3 --set 'http.health_path=/health'"},
    ).wait_ready(1)
    assert len(server.workers()) == 1
    assert server.get("/health")[0] == 200
    assert server.get("/pid")[0] == 200
