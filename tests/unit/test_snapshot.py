"""What one master hands to the next: to bytes and back, and refused where it is not understood."""

import math
import os
import socket
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from prefork import __version__, address
from prefork.config import Source, load
from prefork.listeners import Listener
from prefork.master import snapshot as states
from prefork.master.snapshot import (
    CLOSED,
    ChildSnapshot,
    ControlConnectionSnapshot,
    ControlSnapshot,
    GenerationSnapshot,
    LedgerSnapshot,
    ListenerSnapshot,
    MasterSnapshot,
    PoolSnapshot,
    PreflightPassed,
    PreflightRefused,
    PreflightStarted,
    SnapshotError,
    Verdict,
    WaitingClientsSnapshot,
    WorkerSnapshot,
    ZygoteSnapshot,
    decode,
    decode_verdict,
    encode,
    encode_verdict,
)
from prefork.master.upgrade.exec import (
    VARIABLE,
    ExecArgs,
    adopt,
    adopt_listener,
    command,
    environment,
    exec_args,
    listener_state,
    receive,
    store,
)
from prefork.pool_bounds import PoolBounds
from prefork.scoreboard import Scoreboard, ScoreboardError
from prefork.scoreboard.slot_layout import LAYOUT

ROOT = Path(__file__).resolve().parents[2]


def a_state(**fields: Any) -> MasterSnapshot:
    loaded = load(Source(str(ROOT / "conf" / "wsgi.toml")), environ={})
    worker = WorkerSnapshot(
        pid=7,
        slot=0,
        generation=3,
        round=2,
        since=1.5,
        deadline=None,
        state="retiring",
        leaving=True,
        killed=False,
        retire=True,
        reason="no longer wanted",
        due_for_recycling=3.5,
    )
    whole = {
        "started_at": 0.25,
        "number": 4,
        "serving": 3,
        "generations": (
            GenerationSnapshot(
                number=3,
                config=loaded.config,
                origins=loaded.origins,
                file=str(loaded.file),
                listeners=(0, 1),
                metrics=None,
            ),
        ),
        "listeners": (
            ListenerSnapshot(address="127.0.0.1:80", fd=5, inherited=True, inode=None),
            ListenerSnapshot(address="unix:/run/x", fd=CLOSED, inherited=False, inode=(2, 2**63)),
        ),
        "children": (
            ChildSnapshot(pid=7, slot=0, generation=3, fd=9, forked_at=1.25, stacks=11, ask=12),
        ),
        "zygotes": (ZygoteSnapshot(pid=6, generation=3, fd=10, deadline=None, ready_at=1.0),),
        "pool": PoolSnapshot(
            current=3,
            target=2,
            bounds=PoolBounds(1, 4, 1),
            withdrawn=False,
            failures=0,
            round=2,
            not_before=-math.inf,
            workers=(worker,),
        ),
        "ledger": LedgerSnapshot(
            cells=(0,) * 90,
            bytes=7,
            seconds=0.5,
            queued=0,
            waited=0.0,
            restarts={"crashed": 1},
            reloads={},
            upgrades={},
            timeouts=0,
            overflows_before=0,
        ),
        "control": ControlSnapshot(
            path="/run/prefork/x.sock",
            fd=6,
            inode=(1, 2),
            connections=(
                ControlConnectionSnapshot(
                    fd=8, input=b"\xff", output=b"", busy=True, closing=False
                ),
            ),
        ),
        "clients": WaitingClientsSnapshot(upgrades=(8,), again=True),
        "scoreboard": 4,
        "mask": (1, 15),
    }
    return MasterSnapshot(**{**whole, **fields})


# To bytes and back.


def test_a_state_comes_back_as_it_was() -> None:
    assert decode(encode(a_state())) == a_state()


def test_it_says_which_version_of_the_code_wrote_it() -> None:
    assert decode(encode(a_state())).prefork == __version__


def test_another_version_is_refused_by_name() -> None:
    data = encode(a_state(version=states.VERSION + 1, prefork="9.9"))
    with pytest.raises(SnapshotError) as refused:
        decode(data)
    assert str(refused.value) == (
        f"prefork 9.9 hands over its state in version {states.VERSION + 1}, and prefork"
        f" {__version__} reads version {states.VERSION}: restart the server instead"
    )


def test_another_version_is_refused_whatever_else_is_in_it() -> None:
    data = msgspec.msgpack.encode({"version": 77, "prefork": "9.9", "pool": "something else"})
    with pytest.raises(SnapshotError, match="in version 77"):
        decode(data)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"text",
        msgspec.msgpack.encode({"version": "1", "prefork": ""}),
        msgspec.msgpack.encode({"version": states.VERSION, "prefork": "", "born": 0.0}),
        encode(a_state())[:-1],
        b"\x82\xa7version\x01\xa7prefork\xa1\xcb",
    ],
    ids=["nothing", "no msgpack", "a number", "no version", "fields missing", "cut", "no UTF-8"],
)
def test_what_is_no_state_is_refused(data: bytes) -> None:
    with pytest.raises(SnapshotError, match="cannot be read"):
        decode(data)


def test_keys_of_the_configuration_may_come_and_go_between_versions() -> None:
    raw = msgspec.msgpack.decode(encode(a_state()))
    config = raw["generations"][0]["config"]
    del config["workers"]["boot_timeout"]
    config["workers"]["colour"] = "blue"
    config["weather"] = {"rain": True}
    again = decode(msgspec.msgpack.encode(raw))
    assert again.generations[0].config.workers.boot_timeout == 30.0


def test_a_path_that_is_no_text_is_refused() -> None:
    control = ControlSnapshot(path="/run/\udcff.sock", fd=6, inode=None, connections=())
    with pytest.raises(SnapshotError, match="not UTF-8"):
        encode(a_state(control=control))


def test_the_descriptors_to_keep_are_all_that_are_open() -> None:
    assert a_state().descriptors() == {4, 5, 6, 8, 9, 10, 11, 12}


def test_a_memfd_takes_it_over() -> None:
    assert receive(store(a_state())) == a_state()


# Verdicts.


@pytest.mark.parametrize(
    "verdict",
    [
        PreflightStarted("9.9", 1.5),
        PreflightRefused("no"),
        PreflightPassed((ListenerSnapshot(address=":80", fd=3, inherited=False, inode=None),)),
    ],
    ids=["started", "refused", "passed"],
)
def test_a_verdict_comes_back_as_it_was(verdict: Verdict) -> None:
    assert decode_verdict(encode_verdict(verdict)) == verdict


def test_a_long_reason_keeps_its_end_and_fits_a_packet() -> None:
    data = encode_verdict(PreflightRefused("\U0001f40d" * states.VERDICT_LIMIT + "the end"))
    assert len(data) <= states.VERDICT_LIMIT
    verdict = decode_verdict(data)
    assert isinstance(verdict, PreflightRefused)
    assert verdict.why.endswith("the end")


@pytest.mark.parametrize(
    "data",
    [msgspec.msgpack.encode({"type": "delighted"}), b"\x82\xa4type\xa7refused\xa3why\xa1\xcb"],
)
def test_a_verdict_of_other_code_is_an_error_of_one_line(data: bytes) -> None:
    with pytest.raises(SnapshotError, match="verdict cannot be read"):
        decode_verdict(data)


# The variable.


def test_the_variable_is_for_this_process_and_is_taken_out() -> None:
    environ = {VARIABLE: f"{os.getpid()}:5", "HOME": "/"}
    assert exec_args(environ) == ExecArgs(5, None)
    assert environ == {"HOME": "/"}


def test_the_variable_of_the_parent_asks_for_a_trial() -> None:
    assert exec_args({VARIABLE: f"{os.getppid()}:5:6"}) == ExecArgs(5, 6)


@pytest.mark.parametrize(
    "value", ["", "1:5", "1:5:6", "x", pytest.param(f"{os.getpid()}", id="one number"), "::"]
)
def test_a_variable_for_another_process_is_dropped(value: str) -> None:
    environ = {VARIABLE: value}
    assert exec_args(environ) is None
    assert environ == {}


def test_no_variable_is_an_ordinary_start() -> None:
    assert exec_args({}) is None


def test_the_environment_for_the_new_code_names_this_process() -> None:
    assert exec_args(environment(5)) == ExecArgs(5, None)
    assert environment(5, 6)[VARIABLE] == f"{os.getpid()}:5:6"


# The command line.


def test_the_command_line_is_the_one_of_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-X", "dev", "-m", "prefork", "serve", "x"])
    assert command("/") == [sys.executable, "-X", "dev", "-m", "prefork", "serve", "x"]


def test_a_relative_interpreter_is_that_of_the_directory(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "bin").mkdir()
    program = tmp_path / "bin" / "python"
    program.symlink_to(sys.executable)
    monkeypatch.setattr(sys, "orig_argv", ["bin/python", "app"])
    assert command(str(tmp_path)) == [str(program), "app"]


def test_an_interpreter_that_is_not_there_is_the_one_that_runs(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys, "orig_argv", ["bin/python", "app"])
    assert command(str(tmp_path)) == [sys.executable, "app"]


# Listeners and scoreboard.


@pytest.mark.parametrize("text", ["127.0.0.1:0", "[::1]:0", "unix:/run/x", "fd:7", "systemd:web"])
def test_a_listener_is_taken_over_as_it_is(text: str) -> None:
    sock = socket.create_server(("127.0.0.1", 0))
    listener = Listener(address.parse(text), sock, inherited=True, inode=(1, 2))
    os.set_inheritable(sock.fileno(), True)
    again = adopt_listener(listener_state(listener), os.dup(sock.fileno()))
    try:
        assert again.address == listener.address
        assert (again.inherited, again.inode, again.name) == (True, (1, 2), listener.name)
        assert not os.get_inheritable(again.fileno())
    finally:
        again.sock.close()
        sock.close()


def test_a_closed_listener_keeps_its_place() -> None:
    listener = Listener(address.parse(":80"), socket.socket())
    listener.close()
    again = adopt_listener(listener_state(listener), CLOSED)
    assert again.closed
    assert again.address == listener.address


def test_generations_share_the_listeners_that_were_taken_over() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        fd = os.dup(sock.fileno())
    board = Scoreboard()
    base = a_state()
    old, new = (msgspec.structs.replace(base.generations[0], number=n) for n in (2, 3))
    listeners = (
        ListenerSnapshot(address=":1", fd=CLOSED, inherited=False, inode=None),
        ListenerSnapshot(address=":2", fd=fd, inherited=False, inode=None),
    )
    old = msgspec.structs.replace(old, listeners=(0, 1))
    new = msgspec.structs.replace(new, listeners=(1,))
    adopted = adopt(a_state(generations=(old, new), listeners=listeners, scoreboard=board.fd))
    try:
        assert adopted.serving is adopted.generations[3]
        assert adopted.held == adopted.serving.listeners
        assert adopted.generations[2].listeners[1] is adopted.held[0]
        assert adopted.generations[2].listeners[0].closed
    finally:
        adopted.held[0].close()


def test_a_scoreboard_is_taken_over_with_what_is_in_it() -> None:
    board = Scoreboard()
    board.record(1, 0).start(12.5, b"GET / HTTP/1.1")
    board.draining = True
    again = Scoreboard(board.fd)
    assert again.calls(1, 1) == board.calls(1, 1)
    assert again.draining


def test_a_scoreboard_of_another_layout_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Scoreboard()
    other = LAYOUT[:8] + b"\x63" + LAYOUT[9:]  # version 99
    monkeypatch.setattr("prefork.scoreboard.slot_layout.LAYOUT", other)
    with pytest.raises(ScoreboardError, match="another version: restart"):
        Scoreboard(board.fd)


def test_a_renamed_field_keeps_its_key() -> None:
    """A master of another release with the same version of the snapshot reads it."""
    keys = msgspec.to_builtins(a_state().pool.workers[0]).keys()
    assert {"why", "worn"} <= keys
    assert {"born"} <= msgspec.to_builtins(a_state().children[0]).keys()
    assert not {"reason", "due_for_recycling"} & keys
