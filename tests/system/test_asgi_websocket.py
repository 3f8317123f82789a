"""WebSockets of ASGI applications, by real workers and clients."""

import contextlib
import json
import signal
import socket
import ssl
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.typing import Subprotocol

from tests.fuzz.websocket_inputs import pick
from tests.support.certificates import Authority
from tests.support.load import Gate
from tests.support.raw_http import Raw, talk
from tests.support.server import Server, Start, servers
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE, until
from tests.support.websocket_client import HANDSHAKE, raw_websocket, server_frame, websocket
from tests.support.websocket_frames import client_frame

APP = "tests.apps.asgi_websockets:app"
ASGI = ("--set", "server.protocol=asgi")
RESET = struct.pack("@ii", 1, 0)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    if request.param == "uvloop":
        pytest.importorskip("uvloop")
    for start in servers(tmp_path_factory.mktemp("asgi")):
        yield start(
            APP, *ASGI, "--workers", "1", "--set", f"workers.loop={request.param}"
        ).wait_ready(1)


def serve(start: Start, *settings: str, workers: int = 1) -> Server:
    options = [part for each in settings for part in ("--set", each)]
    return start(APP, *ASGI, "--workers", str(workers), *options).wait_ready(workers)


def ended(server: Server) -> list[Any]:
    """What has ended WebSockets of the server's one worker so far."""
    found: list[Any] = json.loads(server.get("/ended")[1])
    return found


def next_end(server: Server, before: list[Any]) -> Any:
    return until(lambda: ended(server)[len(before) :])[0]


def websockets(server: Server) -> int:
    return sum(worker["websockets"] for worker in server.status()["workers"])


# Messages


@pytest.mark.parametrize("compression", ["deflate", None])
def test_messages_of_a_real_client(server: Server, compression: str | None) -> None:
    with websocket(server, "/echo", compression=compression) as client:
        for message in ("Hello", "", "é€𐍈", b"", b"\0\xff" * 1000, "x" * 500_000):
            client.send(message)
            assert client.recv(PATIENCE) == message
        client.send(["fra", "gmen", "ts"])
        assert client.recv(PATIENCE) == "fragments"
        client.ping().wait(PATIENCE)
        until(lambda: websockets(server) == 1)
        assert "slot 0: 1 WebSocket\n" in server.command("status").stdout
    until(lambda: websockets(server) == 0)
    until(lambda: server.status()["workers"][0]["held"] == 0)


def test_frames_behind_the_handshake(server: Server) -> None:
    early = client_frame(1, b"a") + client_frame(9, b"p") + client_frame(2, b"b")[:4]
    with raw_websocket(server, "/echo", early) as raw:
        assert sorted([server_frame(raw), server_frame(raw)]) == [(0x81, b"a"), (0x8A, b"p")]
        raw.send(client_frame(2, b"b")[4:])
        assert server_frame(raw) == (0x82, b"b")


def test_bytes_one_by_one(server: Server) -> None:
    with raw_websocket(server, "/echo") as raw:
        for byte in client_frame(1, "é€".encode()):
            raw.send(bytes([byte]))
        assert server_frame(raw) == (0x81, "é€".encode())


def test_messages_of_many_tasks_do_not_mix(server: Server) -> None:
    with websocket(server, "/crowd") as client:
        found = sorted(client.recv(PATIENCE) for _ in range(10))
    assert found == [str(number) * 50_000 for number in range(10)]


def test_a_receive_that_is_cancelled_loses_no_message(server: Server) -> None:
    with raw_websocket(server, "/impatient") as raw:
        raw.send(client_frame(1, b"a") + client_frame(1, b"b"))
        assert server_frame(raw) == (0x81, b"cancelled a b")


def test_two_tasks_receive_at_a_time(server: Server) -> None:
    before = ended(server)
    with raw_websocket(server, "/several") as raw:
        raw.send(client_frame(1, b"a"))
        raw.send(client_frame(1, b"b"))
        assert server_frame(raw) == (0x81, b"a b")
        raw.send(client_frame(8, b"\x0f\xa0"))
        end = {"type": "websocket.disconnect", "code": 4000, "reason": ""}
        assert next_end(server, before) == [end, end]


# The handshake


def test_the_scope_and_what_is_accepted(server: Server) -> None:
    known = [Subprotocol("chat"), Subprotocol("superchat")]
    with websocket(
        server, "/describe", subprotocols=known, additional_headers={"X-Client": "1"}
    ) as client:
        scope = json.loads(client.recv(PATIENCE))
        assert client.subprotocol == "chat"
        assert client.response is not None
        assert client.response.headers["X-Own"] == "1"
        assert client.response.headers["Set-Cookie"] == "a=b"
    assert scope["type"] == "websocket"
    assert scope["scheme"] == "ws"
    assert scope["path"] == "/describe"
    assert scope["subprotocols"] == ["chat", "superchat"]
    assert "websocket.http.response" in scope["extensions"]
    assert ["x-client", "1"] in scope["headers"]
    assert "method" not in scope


def test_an_application_denies_with_a_response(server: Server) -> None:
    before = ended(server)
    with pytest.raises(InvalidStatus) as denied, websocket(server, "/deny"):
        pass
    response = denied.value.response
    assert (response.status_code, response.headers["X-A"]) == (401, "b")
    with server.connect() as sock:
        answer = Raw(sock).ask(HANDSHAKE % b"/deny")
    assert (answer.status, answer.body) == (401, b"no entry")
    assert next_end(server, before)["code"] == 1006


def test_an_application_refuses(server: Server) -> None:
    with pytest.raises(InvalidStatus) as refused, websocket(server, "/refuse"):
        pass
    assert refused.value.response.status_code == 403


def test_an_application_that_fails_before_it_accepts(start: Start) -> None:
    server = serve(start)
    server.expected_errors.add("application failed")
    for number, (path, said) in enumerate(
        (
            ("/fails-early", "the handler has failed"),
            ("/forgets", "without an answer"),
            ("/wrong", "'unknown' is not among those that the client offers: none"),
            ("/deny-by-number", "must be bytes, not int"),
        ),
        1,
    ):
        with pytest.raises(InvalidStatus) as refused, websocket(server, path):
            pass
        assert (path, refused.value.response.status_code) == (path, 500)
        assert said in server.wait("application failed", number)["traceback"], path
    until(lambda: server.status()["workers"][0]["held"] == 0)


@pytest.mark.parametrize(
    ("old", "new", "status"),
    [
        (b"Version: 13", b"Version: 8", 426),
        (b"==", b"", 400),
        (b"13\r\n", b"13\r\nContent-Length: 3\r\n", 400),
    ],
)
def test_a_handshake_that_is_not_valid(server: Server, old: bytes, new: bytes, status: int) -> None:
    with server.connect() as sock:
        raw = Raw(sock)
        answer = raw.ask((HANDSHAKE % b"/echo").replace(old, new))
        assert answer.status == status
        assert answer["Sec-WebSocket-Version"] == ("13" if status == 426 else None)
        assert raw.at_end()


@pytest.mark.parametrize(
    ("old", "new"), [(b"Connection: Upgrade", b"Connection: close"), (b"websocket", b"h2c")]
)
def test_another_request_is_one_of_http(server: Server, old: bytes, new: bytes) -> None:
    with server.connect() as sock:
        assert Raw(sock).ask((HANDSHAKE % b"/page").replace(old, new)).status == 200


def test_behind_a_proxy_and_with_tls(start: Start, tmp_path: Path) -> None:
    proxied = serve(start, "http.trusted_proxies=['127.0.0.1']")
    headers = {"X-Forwarded-Proto": "https", "X-Forwarded-For": "192.0.2.7"}
    with websocket(proxied, "/describe", additional_headers=headers) as client:
        scope = json.loads(client.recv(PATIENCE))
        assert (scope["scheme"], scope["client"][0]) == ("wss", "192.0.2.7")
    authority = Authority(tmp_path / "authority")
    server = serve(start, f"tls.certificate={authority.issue('a.pem', 'localhost')}")
    context = authority.client()
    with websocket(server, "/describe", ssl=context, server_hostname="localhost") as client:
        scope = json.loads(client.recv(PATIENCE))
        assert scope["scheme"] == "wss"
        assert "tls" in scope["extensions"]
    with websocket(server, "/echo", ssl=context, server_hostname="localhost") as client:
        for message in ("a" * 300_000, b"b"):
            client.send(message)
            assert client.recv(PATIENCE) == message
    # Frames right behind the handshake, in one record, and the end of the session in it.
    with server.connect() as sock, context.wrap_socket(sock, server_hostname="localhost") as tls:
        assert isinstance(tls, ssl.SSLSocket)
        raw = Raw(tls)
        raw.send(HANDSHAKE % b"/echo" + client_frame(1, b"a"))
        assert raw.answer().status == 101
        assert server_frame(raw) == (0x81, b"a")


def test_a_client_leaves_before_it_is_accepted(server: Server) -> None:
    before = ended(server)
    with server.connect() as sock:
        sock.sendall(HANDSHAKE % b"/hesitates")
        until(lambda: server.status()["workers"][0]["calls"])
    until(lambda: len(ended(server)) == len(before) + 2)
    disconnect, problem = ended(server)[len(before) :]
    assert disconnect["code"] == 1006
    assert problem == "ClientDisconnectedError"


def test_an_application_that_takes_too_long_to_accept(start: Start) -> None:
    server = serve(start, "workers.request_timeout=0.5")
    server.expected_errors.add("request timed out")
    with server.connect() as sock:
        answer = Raw(sock).ask(HANDSHAKE % b"/hesitates")
    assert answer.status == 504
    assert server.wait("request timed out")["request"] == "GET /hesitates"
    until(lambda: server.status()["workers"][0]["held"] == 0)
    assert not server.find("application failed")


def test_lines_of_the_access_log(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    server = serve(start, f"log.access={log}", "log.access_format=json")
    with websocket(server, "/echo", compression=None) as client:
        client.send("Hello")
        assert client.recv(PATIENCE) == "Hello"
        assert not log.exists() or not log.read_text()  # the line comes at the end
    with pytest.raises(InvalidStatus), websocket(server, "/refuse"):
        pass
    with server.connect() as sock:
        assert Raw(sock).ask((HANDSHAKE % b"/echo").replace(b"==", b"")).status == 400
    until(lambda: log.read_text().count("\n") == 3)
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert [line["status"] for line in lines] == [101, 403, 400]
    assert lines[1]["size"] == len("403 Forbidden: the application refuses the WebSocket\n")


# The end


def test_the_client_closes_with_a_code(server: Server) -> None:
    before = ended(server)
    with websocket(server, "/echo") as client:
        client.close(4000, "why")
    assert next_end(server, before) == {
        "type": "websocket.disconnect",
        "code": 4000,
        "reason": "why",
    }


def test_the_application_closes_with_a_code(server: Server) -> None:
    before = ended(server)
    with websocket(server, "/close") as client, pytest.raises(ConnectionClosed) as closed:
        client.recv(PATIENCE)
    assert closed.value.rcvd is not None
    assert (closed.value.rcvd.code, closed.value.rcvd.reason) == (4321, "enough")
    until(lambda: len(ended(server)) == len(before) + 2)
    disconnect, problem = ended(server)[len(before) :]
    assert disconnect["code"] == 4321
    assert problem == "ClientDisconnectedError"


@pytest.mark.parametrize("how", ["end", "reset"])
def test_a_client_that_is_gone(server: Server, how: str) -> None:
    before = ended(server)
    with raw_websocket(server, "/echo") as raw:
        if how == "reset":
            raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert next_end(server, before)["code"] == 1006
    until(lambda: server.status()["workers"][0]["held"] == 0)


def test_an_application_that_fails_closes_with_1011(start: Start) -> None:
    server = serve(start)
    server.expected_errors.add("application failed")
    for number, (path, said) in enumerate(
        (("/fails", "the handler has failed"), ("/number", "must be bytes, not int")), 1
    ):
        with websocket(server, path) as client:
            client.send("a")
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1011
        assert said in server.wait("application failed", number)["traceback"]


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x81\x05Hello", 1002),
        (client_frame(3), 1002),
        (client_frame(1, b"\xff"), 1007),
        (client_frame(2, bytes(1 << 20)) + client_frame(2, bytes((1 << 20) + 1)), 1009),
    ],
    ids=["no mask", "opcode", "no UTF-8", "too long"],
)
def test_a_violation_costs_a_code(server: Server, frame: bytes, code: int) -> None:
    before = ended(server)
    with raw_websocket(server, "/echo", frame) as raw:
        while (found := server_frame(raw))[0] == 0x82:
            pass
        assert found[0] == 0x88
        assert int.from_bytes(found[1][:2], "big") == code
        assert raw.at_end()
    assert next_end(server, before)["code"] == code


def test_many_violations_are_one_line_of_the_log(start: Start) -> None:
    server = serve(start)
    for _ in range(50):
        with raw_websocket(server, "/echo", b"\x81\x05Hello") as raw:
            assert server_frame(raw)[0] == 0x88
    assert ended(server)
    assert server.wait("websocket failed")["code"] == 1002
    assert len(server.find("websocket failed")) < 5
    assert server.other == []


@pytest.mark.parametrize("deflate", [False, True])
def test_hostile_frames_are_no_failure_of_anything(start: Start, deflate: bool) -> None:
    """Those of the fuzzer, over real connections; some end in the middle, and some are reset."""
    server = serve(start, "websocket.max_message=10KiB")
    rng = Random(7)
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n" if deflate else b""
    for number in range(200):
        with server.connect() as sock:
            if number % 3 == 0:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            sock.sendall((HANDSHAKE % b"/echo")[:-2] + offer + b"\r\n")
            with contextlib.suppress(OSError):  # the server has had enough
                sock.sendall(pick(rng, deflate=deflate))
                if number % 2:
                    sock.shutdown(socket.SHUT_WR)
                    read_all(sock)
    until(lambda: server.status()["workers"][0]["held"] == 0)
    assert websockets(server) == 0
    assert server.other == []
    assert not [event for event in server.events if event["level"] in ("warning", "error")]
    with websocket(server, "/echo") as client:
        client.send("Hello")
        assert client.recv(PATIENCE) == "Hello"


def test_a_bomb_is_not_inflated(start: Start) -> None:
    server = serve(start, "websocket.max_message=100KiB")
    coder = zlib.compressobj(wbits=-15)
    bomb = (coder.compress(bytes(100 << 20)) + coder.flush(zlib.Z_SYNC_FLUSH))[:-4]
    offer = b"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n"
    with server.connect() as sock:
        raw = Raw(sock)
        raw.send((HANDSHAKE % b"/echo")[:-2] + offer)
        answer = raw.answer()
        assert answer["Sec-WebSocket-Extensions"] is not None
        before = server.workers()[0].memory_info().rss
        raw.send(client_frame(2, bomb, rsv=4))
        found = server_frame(raw)
        assert (found[0], found[1][:2]) == (0x88, (1009).to_bytes(2, "big"))
        assert server.workers()[0].memory_info().rss < before + (20 << 20)


def test_compression_can_be_off(start: Start) -> None:
    server = serve(start, "websocket.compression=false")
    with websocket(server, "/echo") as client:
        assert client.response is not None
        assert "Sec-WebSocket-Extensions" not in client.response.headers


# Back-pressure


def test_what_is_not_received_is_not_read(start: Start) -> None:
    server = serve(start, "websocket.receive_queue=100KiB")
    frame = client_frame(2, bytes(10_000))
    with raw_websocket(server, "/held") as raw:
        raw.sock.setblocking(False)
        sent = 0
        rest = b""
        with pytest.raises(BlockingIOError):  # noqa: PT012
            while sent < 64 << 20:
                rest = rest or frame
                taken = raw.sock.send(rest)
                rest, sent = rest[taken:], sent + taken
        raw.sock.settimeout(PATIENCE)
        assert server.get("/gate")[0] == 200
        raw.send(rest + client_frame(2))
        first, size = server_frame(raw)
        assert (first, int(size) % 10_000) == (0x81, 0)
        assert abs(int(size) - sent) < sent / 100 + 20_000


def test_a_message_for_which_a_worker_has_no_memory(start: Start) -> None:
    server = serve(start, "http.buffer_memory=200KiB")
    with raw_websocket(server, "/echo", client_frame(2, bytes(900_000))[:600_000]) as raw:
        first, payload = server_frame(raw)
        assert (first, payload[:2]) == (0x88, (1013).to_bytes(2, "big"))
    assert next_end(server, [])["code"] == 1013
    with raw_websocket(server, "/echo", client_frame(2, bytes(100_000))) as raw:
        assert server_frame(raw) == (0x82, bytes(100_000))  # it was given back


def test_a_client_that_does_not_read_makes_send_wait(server: Server) -> None:
    before = ended(server)
    with raw_websocket(server, "/push") as raw:
        worker = server.workers()[0]
        spent = -1.0

        def still() -> bool:
            nonlocal spent
            last, spent = spent, sum(worker.cpu_times()[:2])
            return spent == last

        until(still)
        assert worker.memory_info().rss < 200 << 20
        raw.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    assert next_end(server, before) == "ClientDisconnectedError"


@pytest.mark.parametrize("path", ["/push", "/deny-at-length"])
def test_a_client_that_takes_nothing_is_given_up(start: Start, path: str) -> None:
    """It is not asked for its pong meanwhile: that may wait behind what is not read."""
    pings = ("websocket.ping_interval=0.1", "websocket.ping_timeout=0.1")
    server = serve(start, "http.write_timeout=0.5", *pings)
    with talk(server, receive_buffer=4096) as raw:
        raw.send(HANDSHAKE % path.encode())
        assert next_end(server, []) == "ClientDisconnectedError"
    assert server.wait("response broken off")["reason"].startswith("the client takes too little")


def test_a_client_that_only_pings_is_given_up(start: Start) -> None:
    server = serve(start, "http.write_timeout=0.5")
    with raw_websocket(server, "/echo") as raw:
        raw.sock.setblocking(False)
        pings = memoryview(client_frame(9, bytes(125)) * 1000)
        sent = 0

        def cut_off() -> bool:
            nonlocal sent
            try:
                sent += raw.sock.send(pings[sent % len(pings) :])
            except BlockingIOError:
                return False
            except OSError:
                return True
            return False

        until(cut_off)
    assert next_end(server, [])["code"] == 1006


# Times


def test_pings_are_between_server_and_client(start: Start) -> None:
    server = serve(start, "websocket.ping_interval=0.3", "websocket.ping_timeout=60")
    with raw_websocket(server, "/echo") as raw:
        for _ in range(3):
            assert server_frame(raw) == (0x89, b"")
            raw.send(client_frame(10))
        raw.send(client_frame(1, b"a"))
        assert server_frame(raw) == (0x81, b"a")


def test_a_ping_without_an_answer(start: Start) -> None:
    server = serve(start, "websocket.ping_interval=0.3", "websocket.ping_timeout=0.3")
    with raw_websocket(server, "/echo") as raw:
        assert server_frame(raw) == (0x89, b"")
        first, payload = server_frame(raw)
        assert (first, payload[:2]) == (0x88, (1011).to_bytes(2, "big"))
        assert raw.at_end()
    assert next_end(server, [])["code"] == 1011


def test_the_longest_age(start: Start) -> None:
    server = serve(start, "websocket.max_age=0.3")
    with raw_websocket(server, "/echo") as raw:
        assert server_frame(raw) == (0x88, (1001).to_bytes(2, "big"))
        raw.send(client_frame(8, (1001).to_bytes(2, "big")))
        assert raw.at_end()


def test_a_websocket_has_no_time_limit_of_a_request(start: Start) -> None:
    server = serve(start, "workers.request_timeout=0.3", "websocket.ping_interval=0.5")
    with raw_websocket(server, "/echo") as raw:
        for _ in range(2):
            assert server_frame(raw) == (0x89, b"")
            raw.send(client_frame(10))
        raw.send(client_frame(1, b"a"))
        assert server_frame(raw) == (0x81, b"a")
    assert not server.find("request timed out")


@pytest.mark.parametrize("how", ["SIGHUP", "SIGUSR2", "SIGTERM"])
def test_the_end_of_the_worker(start: Start, how: str) -> None:
    goes_on = how != "SIGTERM"
    server = serve(start)
    with websocket(server, "/echo") as one, websocket(server, "/echo") as two:
        until(lambda: websockets(server) == 2)
        server.process.send_signal(signal.Signals[how])
        closing = server.wait("closing websockets")
        assert (closing["count"], closing["code"]) == (2, 1012 if goes_on else 1001)
        for client in (one, two):
            with pytest.raises(ConnectionClosed) as closed:
                client.recv(PATIENCE)
            assert closed.value.rcvd is not None
            assert closed.value.rcvd.code == (1012 if goes_on else 1001)
    if goes_on:
        server.wait("worker exited", generation=1)
        with websocket(server, "/echo") as client:
            client.send("a")
            assert client.recv(PATIENCE) == "a"
    else:
        assert server.process.wait(PATIENCE) == 0
    assert not server.find("worker killed")


def test_one_that_is_accepted_after_the_order_to_leave_is_closed_too(
    start: Start, tmp_path: Path
) -> None:
    server, gate = serve(start), Gate(tmp_path / "gate")
    with server.connect() as sock, websocket(server, "/echo"):
        raw = Raw(sock)
        raw.send(HANDSHAKE % f"/late?{gate.path}".encode())
        gate.arrived()
        server.process.send_signal(signal.SIGHUP)
        server.wait("closing websockets")
        gate.open()
        assert raw.answer().status == 101
        assert server_frame(raw) == (0x88, (1012).to_bytes(2, "big"))
    server.wait("worker exited", generation=1)
    assert not server.find("calls cancelled")


def test_a_client_that_does_not_answer_the_close_frame(start: Start) -> None:
    server = serve(start, "workers.graceful_timeout=3")
    with raw_websocket(server, "/echo") as raw:
        server.process.send_signal(signal.SIGTERM)
        assert server_frame(raw) == (0x88, (1001).to_bytes(2, "big"))
        assert server.process.wait(PATIENCE) == 0
    assert not server.find("worker killed")


def test_a_worker_that_is_killed_takes_only_its_own(start: Start) -> None:
    server = serve(start, workers=2)
    server.expected_errors.add("worker died")
    clients = [server.connect() for _ in range(8)]
    raws = [Raw(sock) for sock in clients]
    for raw in raws:
        raw.send(HANDSHAKE % b"/echo")
        assert raw.answer().status == 101
    until(lambda: websockets(server) == 8)
    victim = max(server.status()["workers"], key=lambda worker: worker["websockets"])
    server.workers()[victim["slot"]].kill()
    server.wait("worker died")
    lost = 0
    for raw in raws:
        try:
            raw.send(client_frame(1, b"a"))
            assert server_frame(raw) == (0x81, b"a")
        except (AssertionError, OSError):
            lost += 1
    assert lost == victim["websockets"]
    for sock in clients:
        sock.close()
