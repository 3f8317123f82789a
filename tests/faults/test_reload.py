"""A reload is a transaction: all of it, or nothing but one line that says why not."""

import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.support.load import Connection, Gate
from tests.support.path_load import PathLoad, tcp
from tests.support.processes import links, listener_inode, sockets
from tests.support.server import Event, Server, Start
from tests.support.site import SERVING, Site, gated, pids
from tests.support.waiting import until


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path / "site")


def serves(server: Server, word: str) -> None:
    """The reload is over; the last of the old workers was told to leave, and hears it soon."""
    until(lambda: server.get("/") == (200, word.encode()), f"only {word!r} is answered")


def refused(port: int) -> bool:
    """Whether nobody listens there; a probe leaves its port free for others."""
    try:
        socket.create_connection(("127.0.0.1", port), 5).close()
    except ConnectionRefusedError:
        return True
    return False


def errors(server: Server) -> list[Event]:
    return [event for event in server.events if event["level"] == "error"]


class Waiting:
    """A command in a thread of its own, for one whose answer comes later."""

    def __init__(self, server: Server, command: str) -> None:
        self.problem = ""
        self.answer: dict[str, Any] = {}
        self._thread = threading.Thread(target=self._run, args=(server, command), daemon=True)
        self._thread.start()

    def _run(self, server: Server, command: str) -> None:
        try:
            self.answer = server.ask(command)
        except Exception as error:
            self.problem = str(error)

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()

    def told(self) -> "Waiting":
        self._thread.join(30)
        assert not self.waits, "no answer"
        return self


# Reloads that succeed.


def test_twenty_reloads_under_load_lose_nothing(start: Start, site: Site) -> None:
    server = site.start(start)
    right = {b"one"}
    load = PathLoad(tcp(server.port), one_shot=4, kept=4, path="/", right=right)
    for number in range(2, 22):
        load.wait_answers(20)
        word = f"word {number}"
        right.add(word.encode())
        site.say(word)
        assert server.ask("reload")["generation"] == number
        serves(server, word)
    load.wait_answers(20)
    load.end()
    assert len(load.bodies) == 21
    server.wait("worker exited", 3 * 20)
    assert len(server.workers()) == 3
    assert not errors(server)


def test_success_is_reported_with_the_changes_when_all_is_done(start: Start, site: Site) -> None:
    server = site.start(start)
    site.configure(workers={"count": 4, "threads": 2}, http={"keepalive": 1})
    done = server.command("reload")
    status = server.status()
    assert done.returncode == 0
    assert done.stdout.splitlines() == [
        "workers.count: 3 -> 4",
        "workers.threads: 1 -> 2",
        "http.keepalive: 5 -> 1",
        "reloaded: generation 2 serves",
    ]
    states = [(worker["generation"], worker["state"]) for worker in status["workers"]]
    assert states.count((2, "idle")) == 4
    assert not [state for state in states if state in ((1, "idle"), (2, "booting"))]


def test_a_slow_rollout_replaces_one_after_the_other(
    start: Start, site: Site, tmp_path: Path
) -> None:
    """Each boot waits for us, so that the order is one of cause and not of chance."""
    server = site.start(start)
    gate = Gate(tmp_path / "gate")
    site.say("two", first=gated(gate))
    reload = Waiting(server, "reload")
    for number in range(1, 4):
        gate.arrived()
        assert reload.waits
        assert len(pids(server)) == 3, "a boot that lasts leaves a worker's place empty"
        assert len(server.find("worker leaving")) == number - 1
        gate.open()
        server.wait("worker ready", number, generation=2)
        server.wait("worker leaving", number, generation=1)
    assert reload.told().answer["generation"] == 2
    server.wait("worker exited", 3)
    first, second, third = (event["slot"] for event in server.find("worker ready", generation=2))
    told = [
        (event["event"], event["slot"])
        for event in server.events
        if event["event"] in ("reload started", "worker ready", "worker leaving")
    ]
    assert told == [
        *(("worker ready", slot) for slot in told_slots(server, 1)),
        ("reload started", None),
        ("worker ready", first),
        ("worker leaving", 2),
        ("worker ready", second),
        ("worker leaving", 1),
        ("worker ready", third),
        ("worker leaving", 0),
    ]
    names = [event["event"] for event in server.events]
    last = max(number for number, name in enumerate(names) if name == "worker ready")
    assert names.index("generation settled", last) > last


def told_slots(server: Server, generation: int) -> list[int]:
    return [event["slot"] for event in server.find("worker ready", generation=generation)]


def test_listeners_are_opened_before_kept_as_they_are_and_closed_after(
    start: Start, site: Site, tmp_path: Path
) -> None:
    gone, kept, new = free_ports(3)
    site.server["bind"] = [f"127.0.0.1:{gone}", f"127.0.0.1:{kept}"]
    site.configure()
    server = site.start(start)
    inode = listener_inode(kept)
    gate = Gate(tmp_path / "gate")
    site.say("two", first=gated(gate))
    site.configure(server={"bind": [f"127.0.0.1:{kept}", f"127.0.0.1:{new}"]})
    load = PathLoad(tcp(kept), one_shot=2, kept=2, path="/", right=(b"one", b"two"))
    reload = Waiting(server, "reload")
    server.wait("reload started")
    server.wait("listening", address=f"127.0.0.1:{new}")
    with Connection(new) as early, Connection(gone) as late:
        assert late.ask("/").body == b"one", "the old generation serves all its listeners"
        early.send("/", close=True)
        for number in range(1, 4):
            gate.arrived().open()
            server.wait("worker ready", number, generation=2)
        assert reload.told().answer["changes"] == [
            f'server.bind: ["127.0.0.1:{gone}", "127.0.0.1:{kept}"] ->'
            f' ["127.0.0.1:{kept}", "127.0.0.1:{new}"]'
        ]
        assert early.receive().body == b"two"
        assert late.ask("/").body == b"one", "a connection is at home until it is closed"
    load.end()
    server.wait("worker exited", 3)
    server.wait("listener closed", address=f"127.0.0.1:{gone}")
    assert refused(gone)
    assert listener_inode(kept) == inode
    for pid in (server.pid, *pids(server).values()):
        assert {inode, listener_inode(new)} <= sockets(pid)
    assert not errors(server)


def test_the_end_of_a_listener_is_forgotten_once_it_is_over(start: Start, site: Site) -> None:
    gone, kept = free_ports(2)
    site.server["bind"] = [f"127.0.0.1:{gone}", f"127.0.0.1:{kept}"]
    site.configure()
    server = site.start(start)
    site.configure(server={"bind": [f"127.0.0.1:{kept}"]})
    server.ask("reload")
    server.wait("worker exited", 3)
    server.wait("listener closed")
    # A worker is born with what the master has in its memory.
    left = "sum(type(each).__name__ == 'Drain' for each in gc.get_objects())"
    site.say("two", last=f"import gc\nVERSION = str({left})")
    server.ask("reload")
    with Connection(kept) as connection:
        assert connection.ask("/").body == b"0"


def free_ports(number: int) -> list[int]:
    """Different ones, free a moment ago."""
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(number)]
    ports = [int(sock.getsockname()[1]) for sock in held]
    for sock in held:
        sock.close()
    return ports


# Reloads that fail.


def repair(site: Site, word: str) -> None:
    if site.config.is_dir():
        site.config.rmdir()
    site.say(word)
    site.configure()


@dataclass
class Way:
    """A way for a reload to fail."""

    name: str
    why: str
    """In the last line of the reason: for an application's fault, of its traceback."""
    destroy: Callable[[Site], object]


HANG = "import threading; threading.Event().wait()"
DIE = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
CANNOT_ANSWER = """
def app(environ, start_response):
    start_response("500 Internal Server Error", [])
    return [b"no"]
"""


def with_text(data: bytes) -> Callable[[Site], object]:
    return lambda site: site.config.write_bytes(data)


def with_config(**tables: dict[str, Any]) -> Callable[[Site], object]:
    return lambda site: site.configure(**tables)


def with_code(first: str = "", last: str = "", **workers: Any) -> Callable[[Site], object]:
    def destroy(site: Site) -> None:
        site.say("broken", first, last)
        site.configure(workers=workers)

    return destroy


def a_directory_in_its_place(site: Site) -> None:
    site.config.unlink()
    site.config.mkdir()


WARM = ["/"]
WAYS = [
    Way("no file", "cannot be read: No such file", lambda site: site.config.unlink()),
    Way("not a file", "cannot be read: Is a directory", a_directory_in_its_place),
    Way("not TOML", "line 1, column", with_text(b"[server\n")),
    Way("not UTF-8", "line 1: not UTF-8", with_text(b"# caf\xe9\n")),
    Way("wrong value", "workers.count", with_config(workers={"count": "many"})),
    Way("unknown key", "workers.cuont", with_config(workers={"cuont": 1})),
    Way("no such module", "no module 'nowhere'", with_config(server={"app": "nowhere:app"})),
    Way("import error", "No module named 'nowhere'", with_code("import nowhere")),
    Way("raises", "RuntimeError: on purpose", with_code('raise RuntimeError("on purpose")')),
    Way("exits", "SystemExit: 5", with_code("import sys; sys.exit(5)")),
    Way("leaves", "exit status 5", with_code("import os; os._exit(5)")),
    Way("is killed", "killed by SIGKILL", with_code(DIE)),
    Way("hangs", "not ready within 1 s", with_code(HANG, boot_timeout=1)),
    Way("warmup 500", "warmup: / answered 500", with_code(last=CANNOT_ANSWER, warmup=WARM)),
    Way(
        "killed in warmup", "killed by SIGKILL", with_code(last=f"def app(*_): {DIE}", warmup=WARM)
    ),
    Way(
        "hangs in warmup",
        "not ready within 1 s",
        with_code(last=f"def app(*_): {HANG}", boot_timeout=1, warmup=WARM),
    ),
    Way("no error log", "log.error: cannot open", with_config(log={"error": "."})),
    Way("no access log", "log.access: cannot open", with_config(log={"access": "."})),
]


def test_no_way_of_failing_changes_anything(start: Start, site: Site) -> None:
    """One after the other, on one server under load."""
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    load = PathLoad(tcp(server.port), one_shot=1, kept=1, path="/", right=(b"one",))
    before = pids(server)
    held = set(links(server.pid).values())
    for number, way in enumerate(WAYS, 1):
        load.wait_answers(5)
        way.destroy(site)
        why = server.refusal("reload")
        assert way.why in why.splitlines()[-1], way
        assert pids(server) == before, way
        status = server.status()
        assert (status["generation"], status["reloading"]) == (1, False), way
        server.wait("reload failed", number)
        assert [event["event"] for event in errors(server)] == ["reload failed"] * number, way
        assert errors(server)[-1]["reason"] == why
        until(lambda: len(server.status()["workers"]) == 3, "what was tried is gone")
        until(lambda: set(links(server.pid).values()) <= held, "the master has let go of it")
        repair(site, "one")
    load.wait_answers(5)
    load.end()
    assert len(server.find("worker ready")) == 3
    # And none stands in the way of a good one.
    repair(site, "two")
    server.ask("reload")
    serves(server, "two")


@pytest.mark.parametrize("way", [WAYS[5], WAYS[8]], ids=lambda way: way.name)
def test_the_command_prints_the_cause_and_exits_with_1(start: Start, site: Site, way: Way) -> None:
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    way.destroy(site)
    done = server.command("reload", check=False)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("Error: reload failed, and generation 1 serves on:\n")
    assert way.why in done.stderr.rstrip().splitlines()[-1]
    assert server.wait("reload failed")["reason"] in done.stderr


def test_a_port_that_is_taken_changes_nothing(start: Start, site: Site) -> None:
    """What was opened before it is closed again."""
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    before = pids(server)
    (free,) = free_ports(1)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        bind = [f"127.0.0.1:{number}" for number in (0, free, port)]
        site.configure(server={"bind": bind})
        said = server.refusal("reload")
    assert f"cannot listen on 127.0.0.1:{port}: the address is in use by" in said
    assert refused(free)
    assert pids(server) == before
    assert server.wait("reload failed")["reason"] in said
    assert len(errors(server)) == 1


def test_a_boot_that_fails_closes_what_was_opened_for_it(start: Start, site: Site) -> None:
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    (port,) = free_ports(1)
    site.say("broken", "raise RuntimeError")
    site.configure(server={"bind": ["127.0.0.1:0", f"127.0.0.1:{port}"]})
    server.refusal("reload")
    server.wait("listener closed", address=f"127.0.0.1:{port}")
    until(lambda: refused(port), "the one that tried it is gone, too")
    assert server.get("/") == (200, b"one")


def test_a_failed_reload_leaves_the_log_files_as_they_were(start: Start, site: Site) -> None:
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    site.say("broken", "raise RuntimeError")
    site.configure(log={"access": "access.log"})
    server.refusal("reload")
    assert server.get("/") == (200, b"one")
    assert (site.place / "access.log").read_bytes() == b""


def test_later_workers_that_fail_hold_up_the_reload_and_lose_nothing(
    start: Start, site: Site
) -> None:
    """The first of a generation boots, the second doesn't: what serves goes on serving."""
    server = site.start(start)
    server.expected_errors = {"worker failed to boot"}
    load = PathLoad(tcp(server.port), one_shot=2, kept=2, path="/", right=(b"one", b"two"))
    marks = site.place / "marks"
    marks.mkdir()
    count = f"import os\nn = len(os.listdir({str(marks)!r}))\nopen(f'{marks}/{{n}}', 'w')\n"
    site.say("two", first=f"{count}assert n not in (1, 2), 'not now'")
    reload = Waiting(server, "reload")
    server.wait("worker failed to boot", 2)
    assert len(pids(server)) >= 3
    assert reload.told().answer["generation"] == 2
    load.wait_answers(10)
    load.end()
    assert len(os.listdir(marks)) == 5
    assert [event["generation"] for event in errors(server)] == [2, 2]


def test_a_rollout_that_is_stuck_is_reported_and_continues_once_it_can(
    start: Start, site: Site
) -> None:
    """Only the canary can boot, for good: whoever asked for the reload does not wait for ever."""
    server = site.start(start)
    server.expected_errors = {"worker failed to boot", "reload stalled"}
    load = PathLoad(tcp(server.port), one_shot=2, kept=2, path="/", right=(b"one", b"two"))
    mended = site.place / "mended"
    lock = site.place / "first"
    first = f"import os\nif not os.path.exists({str(mended)!r}): os.mkdir({str(lock)!r})"
    site.say("two", first=first)
    why = server.refusal("reload")
    assert why.startswith("generation 2 serves beside the one before it")
    assert "FileExistsError" in why
    load.wait_answers(10)
    assert len(pids(server)) >= 3
    mended.touch()
    server.wait("generation settled", generation=2)
    load.end()
    assert server.get("/") == (200, b"two")
    assert len(server.find("reload stalled")) == 1


# One in the middle of another.


@contextmanager
def hanging(server: Server, site: Site, tmp: Path, **workers: Any) -> Iterator[Waiting]:
    """A reload whose canary waits in its import as long as the block lasts."""
    gate = Gate(tmp / "gate")
    site.say("held", first=gated(gate))
    site.configure(workers=workers)
    reload = Waiting(server, "reload")
    gate.arrived()
    yield reload
    gate.open()


def test_a_reload_during_a_reload_takes_its_place(start: Start, site: Site, tmp_path: Path) -> None:
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    load = PathLoad(tcp(server.port), one_shot=2, kept=2, path="/", right=(b"one", b"two"))
    with hanging(server, site, tmp_path) as first:
        site.say("two")
        assert server.ask("reload")["generation"] == 3
        assert first.told().problem == "a later reload took its place"
    serves(server, "two")
    load.end()
    until(lambda: server.status()["workers"][-1]["generation"] == 3, "nothing of 2 is left")


def test_a_reload_that_fails_during_another_leaves_that_alone(
    start: Start, site: Site, tmp_path: Path
) -> None:
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    with hanging(server, site, tmp_path) as first:
        site.configure(workers={"cuont": 1})
        assert "workers.cuont" in server.refusal("reload")
        assert first.waits
        site.say("never imported")
    # Its first worker is through; the others find what the file says by then.
    assert first.told().answer["generation"] == 2
    assert server.get("/")[1] in (b"held", b"never imported")


def test_a_hundred_in_a_row_settle_on_the_last(start: Start, site: Site) -> None:
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    right = {b"one"}
    load = PathLoad(tcp(server.port), one_shot=2, kept=2, path="/", right=right)
    for number in range(100):
        right.add(f"word {number}".encode())
        site.say(f"word {number}")
        server.signal(signal.SIGHUP)
    site.say("the last")
    right.add(b"the last")
    server.signal(signal.SIGHUP)

    def settled() -> bool:
        workers = server.status()["workers"]
        serving = [worker for worker in workers if worker["state"] in SERVING]
        return len(serving) == 3 and server.get("/")[1] == b"the last"

    until(settled, "the last word")
    until(lambda: not server.status()["reloading"], "an end of reloading")
    load.wait_answers(10)
    load.end()
    serves(server, "the last")
    # The log may say it a moment later than the control socket.
    server.wait("generation settled", generation=server.status()["generation"])
    assert {event["reason"] for event in errors(server)} <= {"a later reload took its place"}


SUPERVISED = "from tests.apps.supervised import app"


def test_a_hanging_reload_holds_up_nothing_else(start: Start, site: Site, tmp_path: Path) -> None:
    """Timeouts, respawns, scaling and status in the middle of it; and then TERM."""
    site.configure(workers={"request_timeout": 0.3})
    site.say("one", last=SUPERVISED)
    server = site.start(start)
    server.expected_errors = {"reload failed", "request timed out", "worker died", "worker exited"}
    with hanging(server, site, tmp_path, boot_timeout=0) as reload:
        site.say("one", last=SUPERVISED)  # for those that are replaced meanwhile
        with Connection(server.port) as connection:
            held = Gate(tmp_path / "held")
            connection.send(held.target)
            held.arrived()
            assert connection.receive().status == 504
            held.open()
        server.wait("worker ready", 4, generation=1)
        victim = max(pids(server).values())
        os.kill(victim, signal.SIGKILL)
        server.wait("worker ready", 5, generation=1)
        assert server.ask("scale", count=5)["target"] == 5
        server.wait("worker ready", 7, generation=1)
        assert server.status()["reloading"]
        assert len(pids(server)) == 5
        assert server.get("/pid")[0] == 200
        assert reload.waits
        server.signal(signal.SIGTERM)
        assert server.wait_exit() == 0
        assert reload.told().problem == "the server is stopping"
    assert {event["generation"] for event in server.find("worker ready")} == {1}


def test_boot_timeout_ends_a_hanging_reload_without_a_command(
    start: Start, site: Site, tmp_path: Path
) -> None:
    """The loop wakes by itself; the client that waited is gone."""
    server = site.start(start)
    server.expected_errors = {"reload failed"}
    gate = Gate(tmp_path / "gate")
    site.say("held", first=gated(gate))
    site.configure(workers={"boot_timeout": 1})
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(str(server.control))
        client.sendall(b'{"v": 1, "command": "reload", "args": {}}\n')
        gate.arrived()
    assert server.wait("reload failed")["reason"] == "not ready within 1 s"
    assert server.get("/") == (200, b"one")


# Workers that die in the middle of it.


def test_old_workers_that_die_while_a_canary_boots_are_replaced_by_their_like(
    start: Start, site: Site, tmp_path: Path
) -> None:
    server = site.start(start)
    server.expected_errors = {"worker died", "reload failed"}
    with hanging(server, site, tmp_path) as reload:
        site.say("one")
        for number, pid in enumerate(pids(server).values(), 1):
            os.kill(pid, signal.SIGKILL)
            server.wait("worker died", pid=pid)
            server.wait("worker ready", 3 + number, generation=1)
        assert server.get("/") == (200, b"one")
        site.say("two")
    assert reload.told().answer["generation"] == 2
    until(lambda: len(pids(server)) == 3, "three of the new generation")


def test_new_workers_that_die_in_a_rollout_are_replaced(
    start: Start, site: Site, tmp_path: Path
) -> None:
    server = site.start(start)
    server.expected_errors = {"worker died"}
    gate = Gate(tmp_path / "gate")
    site.say("two", first=gated(gate))
    reload = Waiting(server, "reload")
    gate.arrived().open()
    canary = server.wait("worker ready", generation=2)["pid"]
    gate.arrived()  # the second boots
    site.say("two")
    os.kill(canary, signal.SIGKILL)
    server.wait("worker died", pid=canary)
    server.wait("worker ready", 2, generation=2)  # in its place, past the one that waits
    gate.open()
    assert reload.told().answer["generation"] == 2
    assert len(pids(server)) == 3
