"""Upgrading in place loses no connection, and an upgrade that fails has changed nothing.

Each server runs from a copy of the code, so that what is installed can change under it.
"""

import compileall
import contextlib
import json
import os
import py_compile
import re
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psutil
import pytest

from prefork import __version__
from prefork.control import ControlError
from prefork.master.snapshot import VERSION as STATE
from prefork.scoreboard import VERSION as BOARD
from tests.support.commands import PACKAGE, ROOT
from tests.support.control_loop import Raw
from tests.support.load import Gate
from tests.support.path_load import PathLoad, tcp, unix
from tests.support.processes import links
from tests.support.server import Server, Start
from tests.support.sockets import closed_port, connect, read_all
from tests.support.waiting import PATIENCE, until

SITE = """
import os
if os.path.exists("gate"):
    open("gate").read()
from tests.apps.basic import app
"""
"""Its import waits, where the test wants to do something in the middle of a boot."""


class Install:
    """An installation of prefork and of an application, and a server that runs from it."""

    def __init__(self, start: Start, place: Path, built: Path) -> None:
        self._start = start
        self.place = place
        shutil.copytree(built, place / "prefork", copy_function=os.link)
        self.write("site_app.py", SITE)

    def start(
        self, *args: str, more: str = "", bind: Sequence[str] = ("127.0.0.1:0",), **options: Any
    ) -> Server:
        """With two workers; all of the configuration that may change is in a file."""
        self.write_config(more, bind)
        env = dict(options.pop("env", {}))
        env = {
            **env,
            "PYTHONPATH": f"{self.place}:{ROOT}:{env.get('PYTHONPATH', '')}",
            # One that is written is not looked at again when a file changes within a second.
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        server = self._start("site.toml", *args, cwd=self.place, bind=(), env=env, **options)
        return server.wait_ready(2)

    def write_config(self, more: str = "", bind: Sequence[str] = ("127.0.0.1:0",)) -> None:
        if "[workers]" not in more:
            more += "\n[workers]\ncount = 2\n"
        server = f'[server]\napp = "site_app:app"\nbind = {json.dumps(bind)}\n'
        self.write("site.toml", server + more)

    def write(self, file: str, text: str) -> None:
        """In place of the file: other installations have links to the one of before."""
        new = self.place / "new"
        new.write_text(text)
        new.replace(self.place / file)

    def edit(self, file: str, old: str, new: str) -> None:
        before = (self.place / file).read_text()
        assert old in before
        self.write(file, before.replace(old, new))

    def set_version(self, version: str) -> None:
        file = "prefork/__init__.py"
        line = f'__version__ = "{version}"'
        text = (self.place / file).read_text()
        self.write(file, re.sub(r'^__version__ = ".*"$', line, text, flags=re.MULTILINE))

    def gate(self) -> "OnlyGate":
        """The next worker waits in its import until it is opened."""
        return OnlyGate(self.place / "gate")

    @contextlib.contextmanager
    def repaired_after(self) -> Iterator[None]:
        """Whatever is changed in the block is as before after it."""
        saved = self.place.with_name("saved")
        shutil.copytree(self.place, saved, symlinks=True, copy_function=os.link)
        try:
            yield
        finally:
            shutil.rmtree(self.place)
            saved.rename(self.place)


class OnlyGate(Gate):
    """One process waits before it, and those after it go through."""

    def arrived(self) -> "OnlyGate":
        super().arrived()
        self.path.unlink()
        return self


@pytest.fixture(scope="session")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compiled code that is valid for as long as a file's content is the same."""
    place = tmp_path_factory.mktemp("built") / "prefork"
    shutil.copytree(PACKAGE, place, ignore=shutil.ignore_patterns("__pycache__"))
    mode = py_compile.PycInvalidationMode.CHECKED_HASH
    assert compileall.compile_dir(place, quiet=1, invalidation_mode=mode)
    return place


@pytest.fixture
def install(start: Start, tmp_path: Path, built: Path) -> Install:
    place = tmp_path / "install"
    place.mkdir()
    return Install(start, place, built)


def pids(server: Server) -> list[int]:
    """The workers that are to stay."""
    workers = server.status()["workers"]
    return [worker["pid"] for worker in workers if worker["state"] != "retiring"]


def outcome(command: subprocess.Popen[str]) -> tuple[int, str]:
    out, err = command.communicate(timeout=PATIENCE * 2)
    return command.returncode, out + err


# It works, and nobody notices.


def test_five_upgrades_under_load_lose_nothing(install: Install) -> None:
    server = install.start()
    load = PathLoad(tcp(server.port), one_shot=6, kept=6)
    for number in range(1, 6):
        load.wait_answers(50)
        assert server.ask("upgrade")["generation"] == number + 1
    load.wait_answers(50)
    load.end()
    assert not load.failures, load.failures


def test_the_new_code_is_really_new_and_the_process_the_same(install: Install) -> None:
    install.set_version("1.0")
    server = install.start()
    before = server.status()
    assert before["version"] == "1.0"
    for was, version in (("1.0", "1.1"), ("1.1", "2.0")):
        install.set_version(version)
        told = server.command("upgrade").stdout
        assert told.startswith(f"upgraded: prefork {was} -> {version}, generation ")
        assert server.status()["version"] == version
    after = server.status()
    assert after["pid"] == before["pid"] == server.pid
    assert after["listeners"] == before["listeners"]
    assert after["uptime"] >= before["uptime"]
    assert {worker["generation"] for worker in after["workers"]} == {3}
    assert not {w["pid"] for w in after["workers"]} & {w["pid"] for w in before["workers"]}


def test_the_signal_does_the_same(install: Install) -> None:
    server = install.start()
    install.set_version("7.7")
    server.signal(signal.SIGUSR2)
    server.wait("generation settled", generation=2)
    assert server.status()["version"] == "7.7"


def test_upgrades_leak_no_descriptor(install: Install, tmp_path: Path) -> None:
    bind = ("127.0.0.1:0", f"unix:{tmp_path}/app.sock")
    server = install.start("--set", f"log.access={tmp_path}/access", bind=bind)

    def look() -> list[Counter[str]]:
        """Nothing where a worker of before ends meanwhile."""
        with contextlib.suppress(FileNotFoundError):
            everybody = (psutil.Process(server.pid), *server.workers())
            return [descriptors(each.pid) for each in everybody]
        return []

    # The first few open the inboxes of the slots that are used in turn.
    for _ in range(3):
        server.ask("upgrade")

    def settled() -> list[Counter[str]]:
        seen = look()
        return seen if len(seen) == 3 and server.wait("worker exited", 6) and look() == seen else []

    before = until(settled, "two workers, and nothing of the old ones")
    for _ in range(3):
        server.ask("upgrade")
    # Polled: the last worker on its way out, and our own last connection, pass; a leak does not.
    until(lambda: look() == before, f"the descriptors of before: {before}")


def descriptors(pid: int) -> Counter[str]:
    """What a process has open, by kind."""
    return Counter(link.partition(":[")[0] for link in links(pid).values())


def test_a_request_outlives_two_upgrades_in_its_old_worker(
    install: Install, tmp_path: Path
) -> None:
    unlimited = ("workers.graceful_timeout=0", "workers.request_timeout=0")
    server = install.start(*(word for each in unlimited for word in ("--set", each)))
    held = tmp_path / "held"
    with server.connect() as sock:
        sock.sendall(b"GET /hold?path=%b HTTP/1.0\r\n\r\n" % os.fsencode(held))
        until(held.exists, "a request in the application")
        server.ask("upgrade")
        server.ask("upgrade")
        (old,) = [each for each in server.status()["workers"] if each["generation"] == 1]
        assert old["state"] == "retiring"
        held.unlink()
        assert read_all(sock).endswith(str(old["pid"]).encode())
    server.wait("worker exited", pid=old["pid"])


def test_a_number_of_workers_set_by_hand_survives_an_upgrade_but_no_reload(
    install: Install,
) -> None:
    server = install.start()
    server.ask("scale", count=3)
    server.ask("upgrade")
    assert server.status()["target"] == 3
    assert len(server.find("worker ready", generation=2)) == 3
    server.ask("reload")
    assert server.status()["target"] == 2


def test_a_client_in_the_middle_of_its_request_is_answered_by_the_new_code(
    install: Install,
) -> None:
    server = install.start()
    install.set_version("1.1")
    with Raw(server.control) as raw:
        raw.send(b'{"v":1,"com')
        until(lambda: server.status(), "an answer to a later client: the first bytes are read")
        server.ask("upgrade")
        answer = raw.ask(b'mand":"status"}\n')
    assert answer is not None
    assert answer["version"] == "1.1"


def test_started_by_the_console_script(install: Install) -> None:
    script = install.place / "prefork-command"
    script.write_text(f"#!{sys.executable}\nfrom prefork.cli import main\nmain()\n")
    script.chmod(0o755)
    # In the place of the three words that a test's server begins with: python -m prefork.
    take_over = "import os, sys; os.execv(sys.argv[1], [sys.argv[1], *sys.argv[5:]])"
    server = install.start(wrapper=(sys.executable, "-c", take_over, str(script)))
    install.set_version("1.1")
    server.ask("upgrade")
    server.ask("upgrade")
    assert server.status()["version"] == "1.1"


def test_files_are_watched_on_by_one_process_of_the_new_code(install: Install) -> None:
    pytest.importorskip("watchfiles")
    server = install.start("--reload")
    server.wait("watching")
    server.ask("upgrade")
    server.wait("watching", 2)

    until(lambda: len(server.children("watcher")) == 1, "one that watches")
    install.edit("site_app.py", "import os", "import os  # changed")
    server.wait("generation settled", generation=3)


@pytest.mark.parametrize("fails", [False, True])
def test_with_a_zygote_as_without(install: Install, fails: bool) -> None:
    """The one of before forks workers of its generation until the new one serves."""
    server = install.start(more="[workers]\ncount = 2\npreload = true")
    server.expected_errors = {"upgrade failed"}
    first = pids(server)
    load = PathLoad(tcp(server.port), one_shot=4, kept=4)
    load.wait_answers(50)
    if fails:
        with install.repaired_after():
            reason = broken_application(install)
            with pytest.raises(ControlError, match=reason):
                server.ask("upgrade")
        assert pids(server) == first
    for generation in (2, 3):
        load.wait_answers(50)
        assert server.ask("upgrade")["generation"] == generation
    load.wait_answers(50)
    load.end()
    assert not load.failures, load.failures
    assert len(server.children("zygote")) == 1


@pytest.mark.parametrize("preload", ["true", "false"])
def test_a_reload_that_fails_after_the_exec_leaves_the_old_workers(
    install: Install, preload: str
) -> None:
    """A new master with the old generation; with a zygote, even its dead are replaced."""
    server = install.start(more=f"[workers]\ncount = 2\npreload = {preload}")
    server.expected_errors = {"reload failed", "spawn failed", "worker died"}
    first = pids(server)
    install.set_version("1.1")
    with install.repaired_after():
        install.edit("site_app.py", "from tests", ONLY_IN_EARNEST + "from tests")
        with pytest.raises(ControlError, match="not on trial"):
            server.ask("upgrade")
        assert pids(server) == first
        assert (server.status()["version"], server.status()["generation"]) == ("1.1", 1)
        if preload == "true":
            os.kill(first[0], signal.SIGKILL)
            server.wait("worker ready", 3, generation=1)
    assert server.get("/")[0] == 200
    server.ask("upgrade")
    server.wait("worker ready", 2, generation=3)


ONLY_IN_EARNEST = """
import psutil
if psutil.Process(os.getppid()).cmdline()[0].startswith("prefork: master"):
    raise RuntimeError("not on trial")
"""


def test_a_dynamic_pool_keeps_the_bounds_set_by_hand(install: Install) -> None:
    server = install.start(more="[workers]\nmin = 2\nmax = 4\nspare = 1")
    assert server.status()["bounds"] == {"min": 2, "max": 4, "spare": 1}
    server.ask("scale", count=3)
    server.ask("upgrade")
    assert server.status()["bounds"] == {"min": 3, "max": 3, "spare": 1}
    assert len(pids(server)) == 3
    server.ask("reload")
    assert server.status()["bounds"] == {"min": 2, "max": 4, "spare": 1}


# Where the sockets came from.


def test_a_unix_socket_stays_the_same_file(install: Install, tmp_path: Path) -> None:
    path = tmp_path / "app.sock"
    server = install.start(bind=(f"unix:{path}",))
    inode = path.stat().st_ino
    load = PathLoad(unix(str(path)), one_shot=4, kept=4)
    for _ in range(2):
        load.wait_answers(50)
        server.ask("upgrade")
        assert path.stat().st_ino == inode
    load.end()
    assert not load.failures, load.failures
    server.stop()
    assert not path.exists()


INHERIT = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
os.environ["LISTEN_PID"] = str(os.getpid())
os.execv(sys.argv[2], sys.argv[2:])
"""


@pytest.mark.parametrize("address", ["systemd", "systemd:web", "fd:3"])
def test_sockets_that_were_passed_stay_through_two_upgrades(install: Install, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0), backlog=128) as sock:
        fd = sock.fileno()
        server = install.start(
            bind=(address,),
            wrapper=(sys.executable, "-c", INHERIT, str(fd)),
            pass_fds=(fd, 3),
            env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
        )
        load = PathLoad(tcp(server.port), one_shot=4, kept=4)
        for _ in range(2):
            load.wait_answers(50)
            server.ask("upgrade")
        load.wait_answers(50)
        load.end()
    assert not load.failures, load.failures


@pytest.mark.parametrize("address", ["systemd:web", "fd:3"])
def test_a_socket_that_was_passed_may_be_used_only_now(install: Install, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = sock.fileno()
        server = install.start(
            wrapper=(sys.executable, "-c", INHERIT, str(fd)),
            pass_fds=(fd, 3),
            env={"LISTEN_FDS": "1", "LISTEN_FDNAMES": "web"},
        )
        install.write_config(bind=("127.0.0.1:0", address))
        server.ask("upgrade")
        with socket.create_connection(sock.getsockname(), PATIENCE) as client:
            client.sendall(b"GET / HTTP/1.0\r\n\r\n")
            assert read_all(client).partition(b" ")[2].startswith(b"200 ")


def test_a_new_address_loses_no_connection_from_its_first_moment(install: Install) -> None:
    """The preflight opens it; what connects from then on is answered by the new generation."""
    first, second = f"127.0.0.1:{closed_port()}", f"127.0.0.1:{closed_port()}"
    server = install.start(bind=(first,))
    install.write_config(bind=(second, first))
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    with connect(second) as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        gate.open()
        assert outcome(command)[0] == 0
        assert read_all(sock).partition(b" ")[2].startswith(b"200 ")
    assert server.addresses == [first, second]
    load = PathLoad(lambda: connect(first), one_shot=4)
    load.wait_answers(50)
    install.write_config(bind=(second,))
    server.ask("upgrade")
    load.join()  # ends by itself: nobody listens there any more
    assert not load.failures, load.failures


def test_what_a_failed_upgrade_has_opened_is_closed_again(install: Install, tmp_path: Path) -> None:
    server = install.start()
    server.expected_errors = {"upgrade failed"}
    path = tmp_path / "new.sock"
    install.write_config(bind=("127.0.0.1:0", f"unix:{path}"))
    with install.repaired_after():
        reason = broken_application(install)
        with pytest.raises(ControlError, match=reason):
            server.ask("upgrade")
        assert not path.exists()
    server.ask("upgrade")
    with unix(str(path))() as sock:
        sock.sendall(b"GET / HTTP/1.0\r\n\r\n")
        assert read_all(sock).partition(b" ")[2].startswith(b"200 ")


# It fails, and nothing has changed.


def broken_application(install: Install) -> str:
    install.edit("site_app.py", "from tests", "raise RuntimeError('broken on purpose')\nfrom tests")
    return "broken on purpose"


def broken_configuration(install: Install) -> str:
    install.write_config("[workers]\ncount = 0")
    return "workers.count"


def torn_release(install: Install) -> str:
    install.write("prefork/__init__.py", "raise ImportError('half a release')")
    return "ImportError: half a release"


def other_state(install: Install) -> str:
    install.edit("prefork/master/snapshot.py", f"VERSION = {STATE}", f"VERSION = {STATE + 1}")
    other = f"prefork {__version__} reads version {STATE + 1}"
    return f"in version {STATE}, and {other}: restart the server"


def other_scoreboard(install: Install) -> str:
    install.edit(
        "prefork/scoreboard/slot_layout.py",
        f"VERSION: Final = {BOARD}",
        f"VERSION: Final = {BOARD + 1}",
    )
    return "the scoreboard that was handed over is of another version"


def hangs_at_boot(install: Install) -> str:
    install.edit("site_app.py", "from tests", "import tests.apps.hang\nfrom tests")
    install.write_config("[workers]\ncount = 2\nboot_timeout = 1")
    return "not ready within 1 s"


def dies_at_boot(install: Install) -> str:
    install.edit("site_app.py", "from tests", "os.kill(os.getpid(), 9)\nfrom tests")
    return "a worker died before it was ready: killed by SIGKILL"


def warmup_fails(install: Install) -> str:
    install.write_config('[workers]\ncount = 2\nwarmup = ["/nowhere"]')
    return "/nowhere answered 404"


def port_taken(install: Install) -> str:
    install.write_config(bind=("127.0.0.1:0", f"unix:{install.place}/site_app.py"))
    return "a file of this name exists and is not a socket"


def log_not_to_be_opened(install: Install) -> str:
    os.mkfifo(install.place / "fifo")  # nobody reads it
    install.write_config(f'[log]\naccess = "{install.place}/fifo"')
    return "log.access: cannot open"


def interpreter_removed(install: Install) -> str:
    (install.place / "python").unlink()
    return "the new code ended before it could be tried:\n[Errno 2] No such file or directory"


FAULTS = [
    *(broken_application, broken_configuration, torn_release, other_state, other_scoreboard),
    *(hangs_at_boot, dies_at_boot, warmup_fails, port_taken, log_not_to_be_opened),
    interpreter_removed,
]


def start_with_its_own_interpreter(install: Install) -> Server:
    """`python` in the installation."""
    program = install.place / "python"
    program.symlink_to(os.path.realpath(sys.executable))
    # In the place of the first word that a test's server begins with: python -m prefork.
    take_over = "import os, sys; os.execv(sys.argv[1], [sys.argv[1], *sys.argv[3:]])"
    return install.start(
        wrapper=(sys.executable, "-c", take_over, str(program)),
        env={"PYTHONPATH": sysconfig.get_path("purelib")},
    )


def test_failed_upgrades_change_nothing_and_the_next_one_works(install: Install) -> None:
    server = start_with_its_own_interpreter(install)
    server.expected_errors = {"upgrade failed"}
    before = pids(server)
    load = PathLoad(tcp(server.port), one_shot=4, kept=4)
    for number, fault in enumerate(FAULTS, 1):
        with install.repaired_after():
            reason = fault(install)
            load.wait_answers(20)
            told = server.refusal("upgrade")
            load.wait_answers(20)
        assert reason in told, fault
        assert reason in server.wait("upgrade failed", number)["reason"]
        # Every answer so far is the old generation's: there was no other worker.
        assert pids(server) == before, fault
        assert server.status()["generation"] == 1
    server.ask("upgrade")
    load.wait_answers(50)
    load.end()
    assert not load.failures, load.failures


def test_an_exec_that_fails_changes_nothing_either(install: Install, tmp_path: Path) -> None:
    """The interpreter goes while the preflight runs already."""
    server = start_with_its_own_interpreter(install)
    server.expected_errors = {"upgrade failed"}
    before = pids(server)
    path = tmp_path / "new.sock"
    install.write_config(bind=("127.0.0.1:0", f"unix:{path}"))
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    assert path.exists()
    with install.repaired_after():
        (install.place / "python").unlink()
        gate.open()
        code, told = outcome(command)
    assert code == 1
    assert "the new code cannot be executed: [Errno 2] No such file or directory" in told
    assert pids(server) == before
    assert not path.exists()
    server.ask("upgrade")
    assert path.exists()


def test_code_that_hangs_at_its_start_is_given_up_after_the_boot_timeout(install: Install) -> None:
    server = install.start(more="[workers]\ncount = 2\nboot_timeout = 3")
    server.expected_errors = {"upgrade failed"}
    install.write("prefork/__init__.py", "import threading\nthreading.Event().wait()")
    with pytest.raises(ControlError, match="the new code did not start within 3 s"):
        server.ask("upgrade")
    until(lambda: len(psutil.Process(server.pid).children()) == 2, "the preflight is gone")


# What comes in the middle of it.


def test_a_reload_in_the_middle_is_answered_by_the_upgrade(install: Install) -> None:
    server = install.start()
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    reload = server.start_command("reload")
    assert reload.stderr is not None
    assert reload.stderr.readline() == "waits for the upgrade under way\n"
    server.signal(signal.SIGHUP)
    server.wait("signal received", signal="SIGHUP")
    gate.open()
    assert outcome(command)[0] == 0
    assert outcome(reload) == (0, "reloaded: generation 2 serves\n")
    assert server.status()["generation"] == 2
    assert not server.find("reload started", generation=3)


@pytest.mark.parametrize("by", ["signal", "command"])
def test_a_reload_in_the_middle_goes_on_when_the_upgrade_fails(install: Install, by: str) -> None:
    server = install.start()
    server.expected_errors = {"upgrade failed"}
    with install.repaired_after():
        broken_application(install)
        gate = install.gate()
        command = server.start_command("upgrade")
        gate.arrived()
    if by == "signal":
        server.signal(signal.SIGHUP)
        server.wait("signal received", signal="SIGHUP")
    else:
        reload = server.start_command("reload")
        assert reload.stderr is not None
        assert reload.stderr.readline() == "waits for the upgrade under way\n"
    gate.open()
    code, text = outcome(command)
    assert code == 1
    assert "broken on purpose" in text
    if by == "command":
        assert outcome(reload) == (0, "reloaded: generation 2 serves\n")
    server.wait("generation settled", generation=2)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_in_the_middle_stops(install: Install, number: int) -> None:
    server = install.start()
    server.expected_errors = {"upgrade failed"}
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    everybody = psutil.Process(server.pid).children(recursive=True)
    assert len(everybody) == 4  # two workers, the preflight and its canary
    server.signal(number)
    assert server.wait_exit() == 0
    assert outcome(command) == (1, "Error: the server is stopping\n")
    _, alive = psutil.wait_procs(everybody, PATIENCE)
    assert not alive
    gate.open()


def test_none_begins_while_the_server_stops(install: Install) -> None:
    server = install.start("--set", "workers.drain_delay=600")
    server.signal(signal.SIGTERM)
    server.wait("draining")
    server.signal(signal.SIGUSR2)
    server.wait("signal received", signal="SIGUSR2")
    assert outcome(server.start_command("upgrade")) == (1, "Error: the server is stopping\n")
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    assert not server.find("upgrade started")


def test_a_second_one_in_the_middle_comes_after_it(install: Install) -> None:
    server = install.start()
    gate = install.gate()
    server.signal(signal.SIGUSR2)
    gate.arrived()
    install.set_version("2.0")  # the one on trial is of before
    server.signal(signal.SIGUSR2)
    server.wait("signal received", 2, signal="SIGUSR2")
    command = server.start_command("upgrade")
    assert command.stderr is not None
    assert command.stderr.readline() == "waits for the reload or upgrade under way\n"
    gate.open()
    assert outcome(command)[0] == 0
    assert len(server.find("upgraded")) == 2
    assert server.status()["version"] == "2.0"


def test_a_worker_that_dies_in_the_middle_is_replaced(install: Install) -> None:
    server = install.start()
    server.expected_errors = {"worker died"}
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    victim, other = pids(server)
    os.kill(victim, signal.SIGKILL)
    new = server.wait("worker ready", 3, generation=1)["pid"]
    # None of the preflight's; it hears of its sibling's inbox in a moment.
    until(lambda: descriptors(new) == descriptors(other), "the same descriptors")
    gate.open()
    assert outcome(command)[0] == 0
    assert len(pids(server)) == 2


def test_a_preflight_that_is_killed_is_a_failed_upgrade(install: Install) -> None:
    server = install.start()
    server.expected_errors = {"upgrade failed"}
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    os.kill(server.wait("upgrade started")["preflight"], signal.SIGKILL)
    assert outcome(command) == (
        1,
        "Error: upgrade failed, and generation 1 serves on:\n"
        "the new code ended before it could be tried\n",
    )
    gate.open()
    until(lambda: len(psutil.Process(server.pid).children(recursive=True)) == 2, "no canary")
    server.ask("upgrade")


def test_withdrawing_in_the_middle_gives_the_upgrade_up(install: Install) -> None:
    server = install.start(start_new_session=True)  # WINCH counts where there is no terminal
    server.expected_errors = {"upgrade failed"}
    gate = install.gate()
    command = server.start_command("upgrade")
    gate.arrived()
    server.signal(signal.SIGWINCH)
    assert outcome(command) == (1, "Error: all workers were withdrawn\n")
    gate.open()
    until(lambda: not server.status()["workers"], "no workers")
    server.ask("upgrade")
    assert len(pids(server)) == 2


def test_an_upgrade_during_a_reload_waits_for_its_canary(install: Install) -> None:
    server = install.start()
    gate = install.gate()
    reload = server.start_command("reload")
    gate.arrived()
    command = server.start_command("upgrade")
    assert command.stderr is not None
    assert command.stderr.readline() == "waits for the reload or upgrade under way\n"
    assert not server.find("upgrade started")
    gate.open()
    assert outcome(reload)[0] == 0
    code, text = outcome(command)
    assert code == 0
    assert text.endswith("generation 3 serves\n")


# What comes while the master is neither old nor new: every signal after this line of the log
# waits in the kernel.

EXEC = "executing the new code"


def test_a_reload_and_a_death_during_the_exec_are_not_lost(install: Install) -> None:
    server = install.start()
    server.expected_errors = {"worker died", "reload failed"}  # one that the next one supersedes
    victim = pids(server)[0]
    server.signal(signal.SIGUSR2)
    server.wait(EXEC)
    os.kill(victim, signal.SIGKILL)
    server.signal(signal.SIGHUP)
    server.wait("worker died", pid=victim)
    server.wait("signal received", signal="SIGHUP")
    server.wait("generation settled", generation=3)
    assert len(pids(server)) == 2


def test_a_second_one_during_the_exec_is_not_lost(install: Install) -> None:
    server = install.start()
    server.signal(signal.SIGUSR2)
    server.wait(EXEC)
    server.signal(signal.SIGUSR2)
    server.wait("upgraded", 2)
    server.wait("generation settled", generation=3)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stop_during_the_exec_stops(install: Install, number: int) -> None:
    server = install.start()
    server.expected_errors = {"reload failed"}
    server.signal(signal.SIGUSR2)
    server.wait(EXEC)
    server.signal(number)
    assert server.wait_exit() == 0


def test_reloads_and_upgrades_in_the_middle_of_each_other_lose_nothing(install: Install) -> None:
    server = install.start()
    server.expected_errors = {"reload failed"}  # superseded
    load = PathLoad(tcp(server.port), one_shot=4, kept=4)
    load.wait_answers(50)
    for number in (1, 2, 3):
        server.signal(signal.SIGHUP)
        server.signal(signal.SIGUSR2)
        server.wait(EXEC, number)
        server.signal(signal.SIGHUP)
        server.wait("upgraded", number)
    load.wait_answers(50)
    server.ask("upgrade")
    load.wait_answers(50)
    load.end()
    assert not load.failures, load.failures
