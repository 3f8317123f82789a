"""WebSockets under WSGI: real libraries on the server's side, and a real client."""

import signal
import socket
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.support.raw_http import Raw
from tests.support.server import Server, Start, servers
from tests.support.waiting import PATIENCE, until
from tests.support.websocket_client import HANDSHAKE
from tests.support.websocket_client import websocket as client
from tests.support.websocket_frames import client_frame

APP = "tests.apps.wsgi_websockets:app"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("websockets")):
        yield serve(start)


def serve(start: Start, *more: str, workers: int = 1) -> Server:
    server = start(APP, "--workers", str(workers), "--threads", "8", *more)
    return server.wait_ready(workers)


@pytest.mark.parametrize("path", ["/echo", "/plain"])
def test_libraries_speak_websocket(server: Server, path: str) -> None:
    with client(server, path) as websocket:
        for message in ("Hello", "é€", b"\0\xff", "x" * 200_000):
            websocket.send(message)
            assert websocket.recv(PATIENCE) == message
        until(lambda: server.status()["workers"][0]["websockets"] == 1)
        assert server.command("status").stdout.count("slot 0: 1 WebSocket\n") == 1
        assert server.get("/pid")[0] == 200
    until(lambda: server.status()["workers"][0]["websockets"] == 0)
    until(lambda: server.status()["workers"][0]["held"] == 0)


def test_the_application_closes(server: Server) -> None:
    with client(server, "/once") as websocket:
        websocket.send("last")
        assert websocket.recv(PATIENCE) == "last"
        with pytest.raises(ConnectionClosed) as closed:
            websocket.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1000


def test_nothing_follows_the_close_frame(server: Server) -> None:
    """flask-sock returns a response, which is for nobody."""
    with server.connect() as sock:
        raw = Raw(sock)
        assert raw.ask(HANDSHAKE % b"/once").status == 101
        raw.send(client_frame(1, b"last"))
        assert raw.rest() == b"\x81\x04last\x88\x02\x03\xe8"


def test_the_subprotocol_is_the_applications(server: Server) -> None:
    with client(
        server, "/plain", subprotocols=[Subprotocol("other"), Subprotocol("chat")]
    ) as websocket:
        assert websocket.subprotocol == "chat"


def test_frames_that_come_with_the_handshake(server: Server) -> None:
    with server.connect() as sock:
        raw = Raw(sock)
        raw.send(HANDSHAKE % b"/once" + client_frame(1, b"early"))
        assert raw.answer().status == 101
        assert raw.rest() == b"\x81\x05early\x88\x02\x03\xe8"


@pytest.mark.parametrize(
    ("old", "new"),
    [(b"Version: 13", b"Version: 8"), (b"==", b""), (b"Upgrade\r\n", b"close\r\n")],
)
def test_what_is_no_valid_upgrade_gets_no_socket(server: Server, old: bytes, new: bytes) -> None:
    before = server.find("application failed")
    with server.connect() as sock:
        answer = Raw(sock).ask((HANDSHAKE % b"/offered").replace(old, new))
        assert (answer.status, answer.body) == (200, b"False")
    assert server.find("application failed") == before


def test_an_application_may_answer_an_upgrade_as_any_request(server: Server) -> None:
    with server.connect() as sock:
        raw = Raw(sock)
        for _ in range(2):  # and the connection goes on
            answer = raw.ask(HANDSHAKE % b"/offered")
            assert (answer.status, answer.body) == (200, b"True")
    with pytest.raises(InvalidStatus) as refused, client(server, "/offered"):
        pass
    assert refused.value.response.status_code == 200


def test_a_worker_of_one_thread_gives_no_socket(start: Start) -> None:
    server = start(APP, "--workers", "1").wait_ready(1)
    with server.connect() as sock:
        assert Raw(sock).ask(HANDSHAKE % b"/offered").body == b"False"


def test_an_application_that_fails_is_logged(server: Server) -> None:
    server.expected_errors.add("application failed")
    number = len(server.find("application failed")) + 1
    with client(server, "/fails") as websocket:
        websocket.send("a")
        with pytest.raises(ConnectionClosed):
            websocket.recv(PATIENCE)
    assert "the handler has failed" in server.wait("application failed", number)["traceback"]
    assert server.get("/pid")[0] == 200


def test_the_time_limit_of_requests_is_not_that_of_websockets(start: Start) -> None:
    server = serve(start, "--set", "workers.request_timeout=0.2")
    with client(server, "/echo") as websocket:
        websocket.send("a")
        assert websocket.recv(PATIENCE) == "a"
        until(lambda: server.status()["workers"][0]["calls"][0]["elapsed"] > 0.5)
        websocket.send("b")
        assert websocket.recv(PATIENCE) == "b"
    assert not server.find("request timed out")


def test_a_client_that_is_gone_leaves_nothing(server: Server) -> None:
    with server.connect() as sock:
        assert Raw(sock).ask(HANDSHAKE % b"/echo").status == 101
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    until(lambda: server.status()["workers"][0]["held"] == 0)
    until(lambda: server.status()["workers"][0]["websockets"] == 0)


@pytest.mark.parametrize("reload", [True, False], ids=["reload", "stop"])
def test_each_is_closed_when_its_worker_leaves(start: Start, reload: bool) -> None:
    server = serve(start)
    with client(server, "/echo") as one, client(server, "/plain") as two:
        for websocket in (one, two):
            websocket.send("a")
            assert websocket.recv(PATIENCE) == "a"
        if reload:
            server.process.send_signal(signal.SIGHUP)
        else:
            server.process.send_signal(signal.SIGTERM)
        for websocket in (one, two):
            with pytest.raises(ConnectionClosed) as closed:
                websocket.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == (1012 if reload else 1001)
    assert server.wait("closing websockets")["count"] == 2
    if reload:
        server.wait_settled(2)
        assert server.get("/pid")[0] == 200
    else:
        assert server.process.wait(PATIENCE) == 0
    assert not server.find("worker killed")
