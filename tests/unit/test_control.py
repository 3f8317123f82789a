"""The control socket: its place, its protocol, its server and what hostile clients can do."""

import contextlib
import os
import re
import resource
import selectors
import shutil
import socket
import stat
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote

import msgspec
import pytest

from prefork import control, logs
from prefork.control import (
    ControlClient,
    ControlError,
    SocketDirectories,
    default_path,
    find_socket,
)
from prefork.master import control_server as master_control
from prefork.master.control_server import ControlServer, Reply
from tests.support.control_loop import Raw, Served, serving
from tests.support.waiting import PATIENCE

STATUS = b'{"v":1,"command":"status"}\n'


@pytest.fixture
def served(tmp_path: Path) -> Iterator[Served]:
    with serving(tmp_path / "s.sock") as server:
        yield server


@pytest.fixture
def places(tmp_path_factory: pytest.TempPathFactory) -> SocketDirectories:
    top = tmp_path_factory.mktemp("c")  # short: a socket's path has 107 bytes
    (top / "run").mkdir()
    return SocketDirectories(os.geteuid(), top / "run/prefork", (top / "xdg", top / "tmp"))


def no_run(places: SocketDirectories) -> SocketDirectories:
    """The same where /run/prefork can't be made, not by root either."""
    places.run.parent.joinpath("file").touch()
    return SocketDirectories(places.uid, places.run.parent / "file/prefork", places.own)


@contextlib.contextmanager
def listening(path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX) as sock:
        sock.bind(str(path))
        sock.listen()
        yield sock


def leave_stale(path: Path) -> None:
    with listening(path):
        pass


# The protocol.


def test_a_request_and_its_answer(served: Served) -> None:
    served.handle = lambda request, reply: reply.ok(target=4)
    with ControlClient(served.path) as client:
        assert client.call("scale", count=4) == {"target": 4}
    assert served.asked == [control.ScaleCommand(count=4)]


def test_the_line_on_the_wire_is_as_documented(served: Served) -> None:
    served.handle = lambda request, reply: reply.ok(name="site")
    with Raw(served.path) as raw:
        assert raw.ask(STATUS) == {"v": 1, "ok": True, "name": "site"}


@pytest.mark.parametrize("command", ["reload", "upgrade", "stop", "reopen", "status"])
def test_every_command_without_arguments(served: Served, command: str) -> None:
    with ControlClient(served.path) as client:
        client.call(command)
    assert [type(request) for request in served.asked] == [control.COMMANDS[command]]


def test_many_requests_over_one_connection(served: Served) -> None:
    with ControlClient(served.path) as client:
        for count in (1, 2, 3):
            client.call("scale", count=count)
    assert served.asked == [control.ScaleCommand(count=count) for count in (1, 2, 3)]


def test_a_failure_is_the_clients_error(served: Served) -> None:
    served.handle = lambda request, reply: reply.fail("site.toml: broken")
    with (
        ControlClient(served.path) as client,
        pytest.raises(ControlError, match=r"^site\.toml: broken$"),
    ):
        client.call("reload")


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (
            b'{"v":2,"command":"status"}',
            "unknown version 2 of the control protocol; this server speaks 1",
        ),
        (b'{"v":1,"command":"explode"}', "unknown command 'explode'; the commands are reload,"),
        (b'{"v":1}', "unknown command ''"),
        (b'{"command":"status"}', "not a request of the control protocol"),
        (b'{"v":1,"command":"scale"}', "scale: Object missing required field `count`"),
        (b'{"v":1,"command":"scale","args":{"count":0}}', "scale: Expected `int` >= 1"),
        (b'{"v":1,"command":"scale","args":{"count":"4"}}', "scale: Expected `int`, got `str`"),
        (b'{"v":1,"command":"stop","args":{"now":1}}', "stop: Object contains unknown field `now`"),
        (b"GET / HTTP/1.1\r", "not a request of the control protocol"),
        (b"", "not a request of the control protocol"),
        (b"[]", "not a request of the control protocol"),
        (b"\xff\x00", "not a request of the control protocol"),
        (b'{"v":1,"command":"\xff"}', "not a request of the control protocol"),
        (
            b'{"v":1,"command":"stop","args":{"a":' + b"[" * 60_000,
            "not a request of the control protocol",
        ),
    ],
)
def test_a_wrong_request_is_answered_with_the_reason(
    served: Served, line: bytes, error: str
) -> None:
    with Raw(served.path) as raw:
        answer = raw.ask(line + b"\n")
        assert answer is not None
        assert answer["ok"] is False
        assert error in answer["error"]
        assert served.asked == []
        assert raw.ask(STATUS) == {"v": 1, "ok": True}  # and the connection goes on


def test_an_unknown_field_of_a_message_is_skipped(served: Served) -> None:
    with Raw(served.path) as raw:
        assert raw.ask(b'{"v":1,"command":"status","trace":"x"}\n') == {"v": 1, "ok": True}


def test_a_request_may_arrive_in_pieces(served: Served) -> None:
    with Raw(served.path) as raw:
        for byte in STATUS:
            raw.send(bytes([byte]))
            served.clients()  # a round of events for each
        assert raw.line() == {"v": 1, "ok": True}


def test_progress_comes_before_a_later_answer(served: Served) -> None:
    served.handle = served.keep
    heard: list[str] = []
    half_way = threading.Event()

    def hear(text: str) -> None:
        heard.append(text)
        half_way.set()

    def answer() -> None:
        reply = served.replies.get(timeout=PATIENCE)
        served.loop.run(lambda: reply.progress("canary booting"))
        half_way.wait(PATIENCE)
        served.loop.run(lambda: reply.ok(generation=2))

    thread = threading.Thread(target=answer)
    thread.start()
    with ControlClient(served.path, progress=hear) as client:
        assert client.call("reload") == {"generation": 2}
    thread.join()
    assert heard == ["canary booting"]


def test_others_are_answered_while_one_waits(served: Served) -> None:
    served.handle = served.keep
    with Raw(served.path) as waiting, ControlClient(served.path) as other:
        waiting.send(STATUS)
        reply = served.replies.get(timeout=PATIENCE)
        served.handle = lambda request, reply: reply.ok()
        assert other.call("status") == {}
        served.loop.run(lambda: reply.ok(late=True))
        assert waiting.line() == {"v": 1, "ok": True, "late": True}


def test_only_the_first_answer_counts(served: Served) -> None:
    def twice(request: control.Command, reply: Reply) -> None:
        reply.ok(n=1)
        reply.ok(n=2)
        reply.fail("no")
        reply.progress("late")

    served.handle = twice
    with Raw(served.path) as raw:
        assert raw.ask(STATUS) == {"v": 1, "ok": True, "n": 1}
        served.handle = lambda request, reply: reply.ok(n=3)
        assert raw.ask(STATUS) == {"v": 1, "ok": True, "n": 3}


def test_a_command_that_raises_is_logged_and_answered(
    served: Served, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[tuple[str, str]] = []
    monkeypatch.setattr(logs, "event", lambda level, name, **more: events.append((level, name)))

    def broken(request: control.Command, reply: Reply) -> None:
        raise RuntimeError("a bug")

    served.handle = broken
    with (
        ControlClient(served.path) as client,
        pytest.raises(ControlError, match=r"internal error.*a bug"),
    ):
        client.call("status")
    assert events == [("error", "control command failed")]


def test_a_stop_is_answered_and_its_connection_ends_with_the_server(served: Served) -> None:
    served.handle = lambda request, reply: reply.ok_until_exit()
    with Raw(served.path) as raw:
        assert raw.ask(b'{"v":1,"command":"stop"}\n') == {"v": 1, "ok": True}
        assert served.due() is None
        served.expire(1e9)
        assert served.clients() == 1
        served.loop.run(served.server.close)
        assert raw.line() is None


# Clients that are dead, slow or hostile.


@pytest.mark.parametrize("length", [control.REQUEST_LIMIT, 1024 * 1024])
def test_a_line_without_end_is_refused(served: Served, length: int) -> None:
    with Raw(served.path) as raw:
        with contextlib.suppress(BrokenPipeError):
            raw.send(b"x" * (length + 1))
        answer = raw.line()
        assert answer is not None
        assert answer["error"] == f"a request has at most {control.REQUEST_LIMIT} bytes"
        assert raw.line() is None
    assert served.clients() == 0


def test_the_longest_request_is_still_read(served: Served) -> None:
    padding = b" " * (control.REQUEST_LIMIT - len(STATUS) + 1)
    with Raw(served.path) as raw:
        assert raw.ask(padding + STATUS) == {"v": 1, "ok": True}


def test_requests_ahead_of_their_answers_are_refused(served: Served) -> None:
    with Raw(served.path) as raw:
        answer = raw.ask(STATUS * 2)
        assert answer is not None
        assert "one request at a time" in answer["error"]
        assert raw.line() is None
    assert served.asked == []


def test_a_half_closed_client_gets_its_answer(served: Served) -> None:
    served.handle = served.keep
    with Raw(served.path) as raw:
        raw.send(STATUS)
        raw.sock.shutdown(socket.SHUT_WR)
        reply = served.replies.get(timeout=PATIENCE)
        served.loop.run(lambda: reply.ok(late=True))
        assert raw.line() == {"v": 1, "ok": True, "late": True}
        assert raw.line() is None


def test_one_that_closes_half_a_request_is_forgotten(served: Served) -> None:
    with Raw(served.path) as raw:
        raw.send(STATUS[:5])
        raw.sock.shutdown(socket.SHUT_WR)
        assert raw.line() is None
    assert served.clients() == 0


def test_one_that_hung_up_before_its_answer_is_no_error(served: Served) -> None:
    served.handle = served.keep
    with Raw(served.path) as raw:
        raw.send(STATUS)
        reply = served.replies.get(timeout=PATIENCE)
    served.loop.run(lambda: reply.progress("on my way"))
    assert served.clients() == 0
    served.loop.run(reply.ok)  # and again, to a connection that is closed


def test_one_that_says_nothing_is_dropped_at_the_deadline(served: Served) -> None:
    before = time.monotonic()
    with Raw(served.path) as raw:
        assert served.clients() == 1
        deadline = served.deadline()
        limit = master_control.IDLE_LIMIT
        assert before + limit <= deadline <= time.monotonic() + limit
        served.expire(-0.001)
        assert served.clients() == 1
        served.expire(0)
        assert raw.line() is None
    assert served.due() is None


def test_a_master_that_stood_still_puts_the_deadline_off(served: Served) -> None:
    with Raw(served.path):
        assert served.clients() == 1
        deadline = served.deadline()
        assert deadline is not None
        served.loop.run(lambda: served.server.overslept(5.0))
        assert served.due() == deadline + 5.0


def test_dripping_bytes_does_not_put_the_deadline_off(served: Served) -> None:
    with Raw(served.path) as raw:
        assert served.clients() == 1
        deadline = served.deadline()
        raw.send(STATUS[:5])
        served.clients()
        assert served.due() == deadline


def test_a_request_puts_the_deadline_off(served: Served) -> None:
    with Raw(served.path) as raw:
        assert served.clients() == 1
        deadline = served.deadline()
        raw.ask(STATUS)
        assert served.deadline() > deadline


def test_one_that_waits_for_us_is_not_dropped(served: Served) -> None:
    served.handle = served.keep
    with Raw(served.path) as raw:
        raw.send(STATUS)
        reply = served.replies.get(timeout=PATIENCE)
        served.expire(1e9)
        served.loop.run(reply.ok)
        assert raw.line() == {"v": 1, "ok": True}


def test_one_that_does_not_read_its_answer_is_dropped_at_the_deadline(served: Served) -> None:
    answered = threading.Event()

    def long_answer(request: control.Command, reply: Reply) -> None:
        reply.ok(text="x" * 900_000)
        answered.set()

    served.handle = long_answer
    with Raw(served.path) as raw:
        raw.send(STATUS)
        assert answered.wait(PATIENCE)
        assert served.clients() == 1
        served.expire(0)
        assert served.clients() == 0


def test_a_long_answer_arrives_whole(served: Served) -> None:
    served.handle = lambda request, reply: reply.ok(text="x" * 900_000)
    with ControlClient(served.path) as client:
        assert client.call("status") == {"text": "x" * 900_000}
        assert client.call("status") == {"text": "x" * 900_000}


def test_what_is_kept_for_one_that_does_not_read_is_limited(served: Served) -> None:
    served.handle = served.keep
    with Raw(served.path) as raw:
        raw.send(STATUS)
        reply = served.replies.get(timeout=PATIENCE)
        sent = 0
        while served.clients():
            served.loop.run(lambda: reply.progress("x" * 100_000))
            sent += 100_000
            assert sent < 8 * control.ANSWER_LIMIT


def test_a_hundred_silent_clients_do_not_keep_a_good_one_out(served: Served) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(Raw(served.path))
        good = stack.enter_context(ControlClient(served.path))
        assert good.call("status") == {}
        assert served.clients() == master_control.MAX_CLIENTS


def test_one_more_is_refused_where_all_others_wait_for_us(served: Served) -> None:
    served.handle = served.keep
    with contextlib.ExitStack() as stack:
        for _ in range(master_control.MAX_CLIENTS):
            stack.enter_context(Raw(served.path)).send(STATUS)
            served.replies.get(timeout=PATIENCE)
        with Raw(served.path) as late:
            answer = late.line()
            assert answer is not None
            assert "32 other clients" in answer["error"]
            assert late.line() is None
        assert served.clients() == master_control.MAX_CLIENTS


def test_an_event_of_one_that_was_closed_in_the_same_round_is_ignored(tmp_path: Path) -> None:
    selector = selectors.DefaultSelector()
    asked: list[control.Command] = []
    server = ControlServer(selector, tmp_path / "s")
    server.serve(lambda request, reply: asked.append(request))
    with Raw(tmp_path / "s") as raw:
        for key, mask in selector.select():
            key.data(mask)
        raw.send(STATUS)
        [(key, mask)] = selector.select()
        server.run(time.monotonic() + 2 * master_control.IDLE_LIMIT)
        key.data(mask)
        assert raw.line() is None
    server.close()
    assert asked == []


def test_without_descriptors_it_waits_instead_of_spinning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(logs, "event", lambda level, name, **more: events.append(name))
    selector = selectors.DefaultSelector()
    server = ControlServer(selector, tmp_path / "s")
    server.serve(lambda request, reply: reply.ok())
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with Raw(tmp_path / "s") as raw:
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            for key, mask in selector.select():
                key.data(mask)
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert events == ["control socket paused"]
        assert not selector.get_map()
        deadline = server.due
        assert deadline is not None
        server.run(deadline)
        raw.send(STATUS)
        for _ in ("accept", "request"):
            for key, mask in selector.select():
                key.data(mask)
        assert raw.line() == {"v": 1, "ok": True}
    server.close()


# Who may, and whose path it is.


def test_only_the_owner_may_connect(served: Served) -> None:
    assert stat.S_IMODE(served.path.stat().st_mode) == 0o600


def test_the_uid_of_the_peer_is_checked(tmp_path: Path) -> None:
    seen: list[int] = []

    def nobody(uid: int) -> bool:
        seen.append(uid)
        return False

    with serving(tmp_path / "s.sock", nobody) as served:
        with (
            ControlClient(served.path) as client,
            pytest.raises(ControlError, match="may not control"),
        ):
            client.call("stop")
        assert served.asked == []
        assert served.clients() == 0
    assert seen == [os.geteuid()]


def test_a_stale_socket_is_replaced(tmp_path: Path) -> None:
    leave_stale(tmp_path / "s.sock")
    with serving(tmp_path / "s.sock") as served, ControlClient(served.path) as client:
        assert client.call("status") == {}


def test_a_live_socket_is_not_stolen(served: Served) -> None:
    with (
        selectors.DefaultSelector() as selector,
        pytest.raises(ControlError, match=rf"{served.path}: .* in use by pid {os.getpid()}"),
    ):
        ControlServer(selector, served.path)
    with ControlClient(served.path) as client:
        assert client.call("status") == {}


def test_a_file_that_is_no_socket_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "precious"
    path.write_text("data")
    with (
        selectors.DefaultSelector() as selector,
        pytest.raises(ControlError, match="not a socket"),
    ):
        ControlServer(selector, path)
    assert path.read_text() == "data"
    assert os.listdir(tmp_path) == ["precious"]


@pytest.mark.parametrize("name", ["missing/s.sock", "x" * 108])
def test_a_path_that_cannot_be_used_is_one_line(tmp_path: Path, name: str) -> None:
    before = set(os.listdir("/proc/self/fd"))
    with (
        selectors.SelectSelector() as selector,
        pytest.raises(ControlError, match=r"^cannot open the control socket [^\n]+control\.path"),
    ):
        ControlServer(selector, tmp_path / name)
    assert before.issuperset(os.listdir("/proc/self/fd"))  # the collector may have closed others


def test_closing_ends_every_connection_and_removes_the_file(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        with serving(tmp_path / "s.sock") as served:
            raw = stack.enter_context(Raw(served.path))
            assert served.clients() == 1
        assert raw.line() is None
        assert not served.path.exists()


def test_closing_without_the_directory_only_warns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    monkeypatch.setattr(logs, "event", lambda level, name, **more: events.append(name))
    (tmp_path / "run").mkdir()
    with serving(tmp_path / "run/s.sock"):
        shutil.rmtree(tmp_path / "run")
    assert events == ["control socket not removed"]


def test_closing_leaves_anothers_socket_alone(tmp_path: Path) -> None:
    path = tmp_path / "s.sock"
    with contextlib.ExitStack() as stack:
        with serving(path):
            path.unlink()
            stack.enter_context(listening(path))
        assert path.exists()


def test_descriptors_lists_the_listener_and_every_client(served: Served) -> None:
    with Raw(served.path), Raw(served.path):
        assert served.clients() == 2
        found = served.loop.run(served.server.descriptors)
        inodes = {os.fstat(fd).st_ino for fd in found}
    assert len(found) == len(inodes) == 3


# The client.


def test_no_such_socket(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match=f"no server is running at {tmp_path}/s: there is no"):
        ControlClient(tmp_path / "s")


def test_a_socket_without_a_listener(tmp_path: Path) -> None:
    leave_stale(tmp_path / "s")
    with pytest.raises(ControlError, match="no process listens on this socket"):
        ControlClient(tmp_path / "s")


def test_a_directory_and_a_plain_file_are_no_sockets(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for path in (tmp_path, tmp_path / "file"):
        with pytest.raises(ControlError, match="this is no socket"):
            ControlClient(path)


def test_a_path_that_no_socket_can_have(tmp_path: Path) -> None:
    with pytest.raises(ControlError, match="too long"):
        ControlClient(tmp_path / ("x" * 108))


def test_a_server_that_does_not_answer(tmp_path: Path) -> None:
    with (
        listening(tmp_path / "s"),
        ControlClient(tmp_path / "s", timeout=0.01) as client,
        pytest.raises(ControlError, match="does not answer"),
    ):
        client.call("status")


def test_a_refusal_is_read_though_the_request_could_not_be_sent(tmp_path: Path) -> None:
    with listening(tmp_path / "s") as sock, ControlClient(tmp_path / "s") as client:
        peer, _ = sock.accept()
        with peer:
            peer.sendall(control.encode({"ok": False, "error": "not you"}))
        with pytest.raises(ControlError, match=r"^not you$"):
            client.call("status")


def test_a_server_whose_queue_is_full(tmp_path: Path) -> None:
    with contextlib.ExitStack() as stack:
        sock = stack.enter_context(listening(tmp_path / "s"))
        sock.listen(0)
        with pytest.raises(ControlError, match="too many clients"):  # noqa: PT012
            for _ in range(4):
                stack.enter_context(ControlClient(tmp_path / "s"))


@pytest.mark.parametrize(
    ("answer", "error"),
    [
        (b"", "closed the connection before it answered"),
        (b"SSH-2.0-OpenSSH\r\n", "not answer in the control protocol"),
        (b"\xff\n", "not answer in the control protocol"),
        (b"[1]\n", "not answer in the control protocol"),
        (b"[" * 100_000 + b"\n", "not answer in the control protocol"),
        (b'{"v":1}\n', "gave no reason"),
    ],
)
def test_something_else_behind_the_socket(tmp_path: Path, answer: bytes, error: str) -> None:
    def other() -> None:
        peer, _ = sock.accept()
        with peer:
            peer.recv(100)
            peer.sendall(answer)

    with listening(tmp_path / "s") as sock:
        thread = threading.Thread(target=other)
        thread.start()
        with ControlClient(tmp_path / "s") as client, pytest.raises(ControlError, match=error):
            client.call("status")
        thread.join()


# The place.


def test_the_system_directory_comes_first(places: SocketDirectories) -> None:
    assert default_path("site", places) == places.run / "site.sock"
    assert stat.S_IMODE(places.run.stat().st_mode) & 0o022 == 0


def test_then_the_users_runtime_directory(places: SocketDirectories) -> None:
    assert default_path("site", no_run(places)) == places.own[0] / "site.sock"
    assert stat.S_IMODE(places.own[0].stat().st_mode) == 0o700


def test_then_a_directory_of_the_users_own_below_the_temporary_one(
    places: SocketDirectories,
) -> None:
    places.own[0].touch()
    assert default_path("site", no_run(places)) == places.own[1] / "site.sock"
    assert stat.S_IMODE(places.own[1].stat().st_mode) == 0o700


def test_the_places_follow_from_the_environment() -> None:
    environ = {"XDG_RUNTIME_DIR": "/run/user/7", "TMPDIR": "/scratch"}
    found = SocketDirectories.from_environment(environ, 7)
    assert found == SocketDirectories(
        7, Path("/run/prefork"), (Path("/run/user/7/prefork"), Path("/scratch/prefork-7"))
    )
    assert SocketDirectories.from_environment({}, 7).own == (Path("/tmp/prefork-7"),)
    assert SocketDirectories.from_environment({"XDG_RUNTIME_DIR": "run"}, 7).own == (
        Path("/tmp/prefork-7"),
    )
    assert SocketDirectories.from_environment({"PREFORK_RUN_DIR": "/srv/run"}, 7).run == Path(
        "/srv/run"
    )
    assert SocketDirectories.from_environment({"PREFORK_RUN_DIR": "run"}, 7).run == Path(
        "/run/prefork"
    )


def test_a_directory_that_others_may_enter_is_refused(places: SocketDirectories) -> None:
    for directory in places.own:
        directory.mkdir()
        directory.chmod(0o755)
    with pytest.raises(
        ControlError, match=r"no directory for the control socket.*set control\.path"
    ):
        default_path("site", no_run(places))


def test_a_link_in_the_place_of_a_directory_is_refused(
    places: SocketDirectories, tmp_path: Path
) -> None:
    (tmp_path / "trap").mkdir(0o700)
    for directory in places.own:
        directory.symlink_to(tmp_path / "trap")
    with pytest.raises(ControlError, match="no directory"):
        default_path("site", no_run(places))


def test_a_directory_of_another_user_is_refused(places: SocketDirectories) -> None:
    for directory in places.own:
        directory.mkdir(0o700)
    places = no_run(places)
    other = SocketDirectories(places.uid + 1, places.run, places.own)
    with pytest.raises(ControlError, match="no directory"):
        default_path("site", other)
    assert other.usable() == []
    assert places.usable() == list(places.own)


@pytest.mark.parametrize(
    ("name", "file"),
    [
        ("127.0.0.1:8000", "127.0.0.1:8000.sock"),
        ("[::]:8000", "[::]:8000.sock"),
        ("unix:/run/a b.sock", "unix:%2Frun%2Fa%20b.sock.sock"),
        ("../../etc", "..%2F..%2Fetc.sock"),
        ("100%", "100%25.sock"),
        ("é\n\udcff", "%C3%A9%0A%FF.sock"),
    ],
)
def test_the_file_is_the_name_and_can_be_read_back(
    places: SocketDirectories, name: str, file: str
) -> None:
    path = default_path(name, places)
    assert path.name == file
    assert unquote(file.removesuffix(".sock"), errors="surrogateescape") == name


def test_a_long_name_fits_a_socket_address_and_stays_its_own(places: SocketDirectories) -> None:
    paths = {default_path("x" * 200 + end, places) for end in "ab"}
    assert len(paths) == 2
    for path in paths:
        assert len(os.fsencode(path)) == 107
        assert path.name.startswith("xxx")
        with serving(path), ControlClient(path) as client:
            assert client.call("status") == {}


def test_a_directory_that_is_too_long_is_passed_over(
    places: SocketDirectories, tmp_path: Path
) -> None:
    long = tmp_path / ("d" * 100)
    found = default_path(
        "site", SocketDirectories(places.uid, long / "prefork", (long, places.own[0]))
    )
    assert found == places.own[0] / "site.sock"
    assert not long.exists()


# Finding a running server.


def config(tmp_path: Path, text: str = "") -> str:
    (tmp_path / "www").mkdir(exist_ok=True)
    path = tmp_path / "site.toml"
    path.write_text(f'[static]\nroot = "www"\n{text}')
    return str(path)


def test_the_path_that_was_given_is_taken_as_it_is(
    places: SocketDirectories, tmp_path: Path
) -> None:
    assert find_socket(None, str(tmp_path / "any"), places) == tmp_path / "any"


def test_a_configuration_says_the_path(places: SocketDirectories, tmp_path: Path) -> None:
    target = config(tmp_path, f'[control]\npath = "{tmp_path}/own.sock"\n')
    assert find_socket(target, None, places) == tmp_path / "own.sock"


def test_a_configuration_says_the_name(places: SocketDirectories, tmp_path: Path) -> None:
    with serving(default_path("site", places)) as served:
        assert find_socket(config(tmp_path), None, places) == served.path


def test_a_servers_name_is_looked_for_in_every_place_and_a_live_one_preferred(
    places: SocketDirectories, tmp_path: Path
) -> None:
    leave_stale(default_path("site", places))
    assert find_socket(config(tmp_path), None, places) == places.run / "site.sock"
    with serving(default_path("site", no_run(places))) as served:
        assert (
            find_socket(config(tmp_path), None, places)
            == served.path
            == places.own[0] / "site.sock"
        )


def test_the_server_of_a_configuration_does_not_run(
    places: SocketDirectories, tmp_path: Path
) -> None:
    with (
        serving(default_path("other", places)) as served,
        pytest.raises(ControlError, match=rf"no server 'site' .*: other \({served.path}\)$"),
    ):
        find_socket(config(tmp_path), None, places)


@pytest.mark.parametrize("name", ["nowhere", "email", "email:app"])
def test_a_name_that_no_server_has(places: SocketDirectories, name: str) -> None:
    """Whatever a module of that name would be served as: `email` is one of Python's."""
    with pytest.raises(ControlError, match=f"no server '{name}' of this user is running"):
        find_socket(name, None, places)


def test_the_name_of_a_server_that_is_dead_or_another_users_leads_to_its_socket(
    places: SocketDirectories,
) -> None:
    leave_stale(default_path("email", places))
    assert find_socket("email", None, places) == places.run / "email.sock"


def test_a_server_that_hangs_is_found_by_the_address_in_its_name(
    places: SocketDirectories, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prefork.control.find_server._ANSWER", 0.01)
    with listening(path := default_path("0.0.0.0:8000", places)):
        assert find_socket(":8000", None, places) == path
        with pytest.raises(ControlError, match="no server of this user listens on :8001"):
            find_socket(":8001", None, places)


def test_a_broken_configuration_names_its_first_problem(
    places: SocketDirectories, tmp_path: Path
) -> None:
    target = config(tmp_path, "[workers]\ncuont = 1\nthreads = 0\n")
    with pytest.raises(
        ControlError, match=r"site\.toml: workers\.cuont.* \(and 1 more; .*--control"
    ) as caught:
        find_socket(target, None, places)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "broken",
    [
        "[workers]\ncount = 0\n",
        "[workers]\nno_such_key = 1\n",
        "[workers\n",
        "[http]\nheader_timeout = =\n",
        None,
    ],
)
@pytest.mark.parametrize("how", ["stem", "name", "path"])
def test_a_broken_or_missing_file_still_names_its_server(
    places: SocketDirectories, tmp_path: Path, broken: str | None, how: str
) -> None:
    text = {"stem": "", "name": '[server]\nname = "other"  # not site\n', "path": ""}[how]
    if how == "path":
        text = '[control]\npath = "own/own.sock"\n'
        (tmp_path / "own").mkdir()
    path = {
        "stem": default_path("site", places),
        "name": default_path("other", places),
        "path": tmp_path / "own" / "own.sock",
    }[how]
    target = config(tmp_path, text + (broken or ""))
    if broken is None:
        if how != "stem":
            return  # nothing says any more how it is called
        Path(target).unlink()
    with serving(path) as served:
        assert find_socket(target, None, places) == served.path


def status_of(served: Served, listeners: list[str], file: str = "") -> None:
    def handle(command: control.Command, reply: Reply) -> None:
        status = control.ServerStatus(
            name="x",
            file=file,
            pid=6,
            version="0.1.0",
            generation=1,
            uptime=1,
            listeners=listeners,
            target=1,
            reloading=False,
            workers=[],
        )
        reply.ok(**msgspec.structs.asdict(status))

    served.handle = handle


def test_a_file_whose_name_was_changed_still_finds_its_server(
    places: SocketDirectories, tmp_path: Path
) -> None:
    target = config(tmp_path, '[server]\nname = "new"\n')
    with serving(default_path("old", places)) as served:
        status_of(served, ["127.0.0.1:80"], target)
        assert find_socket(target, None, places) == served.path
        other = config(tmp_path / "www")
        with pytest.raises(ControlError, match="no server 'site' of this user is running"):
            find_socket(other, None, places)


def test_a_server_is_found_by_its_name(places: SocketDirectories) -> None:
    with (
        serving(default_path("my site", places)) as first,
        serving(default_path("127.0.0.1:8000", no_run(places))) as second,
    ):
        assert find_socket("my site", None, places) == first.path
        assert find_socket("127.0.0.1:8000", None, places) == second.path


@pytest.mark.parametrize(
    ("address", "found"),
    [
        (":9510", "first"),
        ("127.0.0.1:9510", "first"),
        ("10.0.0.1:9510", None),
        (":9511", "second"),
        ("10.0.0.1:9511", "second"),
        ("[::1]:9512", "second"),
        ("localhost:9512", "second"),
        ("localhost:9510", "first"),
        ("unix:/run/x", "second"),
        ("unix:/run", None),
        (":9513", None),
        (":951", None),
        (":80", "several"),
    ],
)
def test_a_server_is_found_by_its_address(
    places: SocketDirectories, address: str, found: str | None
) -> None:
    with (
        serving(default_path("first", places)) as first,
        serving(default_path("second", places)) as second,
    ):
        status_of(first, ["127.0.0.1:9510", "127.0.0.1:80"])
        status_of(second, ["0.0.0.0:9511", "[::1]:9512", "unix:/run/x", "10.0.0.1:80"])
        if found in ("first", "second"):
            expected = first if found == "first" else second
            assert find_socket(address, None, places) == expected.path
            return
        reason = "several servers listen on" if found else "no server of this user listens on"
        with pytest.raises(ControlError, match=re.escape(f"{reason} {address}; choose one by")):
            find_socket(address, None, places)


def test_the_only_running_server_needs_no_name(places: SocketDirectories) -> None:
    leave_stale(default_path("stale", places))
    with serving(default_path("site", no_run(places))) as served:
        assert find_socket(None, None, places) == served.path


def test_several_running_servers_are_listed(places: SocketDirectories) -> None:
    with (
        serving(default_path("127.0.0.1:8000", places)) as first,
        serving(default_path("unix:/a", places)) as second,
        pytest.raises(ControlError) as caught,
    ):
        find_socket(None, None, places)
    assert str(caught.value) == (
        "several servers are running; choose one by its name, its address or --control PATH: "
        f"127.0.0.1:8000 ({first.path}), unix:/a ({second.path})"
    )


def test_no_running_server(places: SocketDirectories) -> None:
    with pytest.raises(ControlError, match="no server of this user is running"):
        find_socket(None, None, places)


def test_a_socket_in_a_directory_that_others_can_write_is_not_trusted(
    places: SocketDirectories,
) -> None:
    places.own[0].mkdir()
    places.own[0].chmod(0o777)
    with (
        serving(places.own[0] / "site.sock"),
        pytest.raises(ControlError, match="no server of this user is running"),
    ):
        find_socket(None, None, places)


def test_status_is_typed_for_both_sides(served: Served) -> None:
    worker = control.WorkerStatus(slot=0, pid=7, generation=1, state="ready", requests=3, age=1.5)
    status = control.ServerStatus(
        name="site",
        pid=6,
        version="0.1.0",
        generation=1,
        uptime=2.5,
        listeners=["127.0.0.1:8000"],
        target=1,
        reloading=False,
        workers=[worker],
    )
    served.handle = lambda request, reply: reply.ok(**msgspec.structs.asdict(status))
    with ControlClient(served.path) as client:
        assert msgspec.convert(client.call("status"), control.ServerStatus) == status
