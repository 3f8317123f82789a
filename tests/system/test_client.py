"""What the client does on its sockets, and that bodies of any size arrive."""

import contextlib
import hashlib
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from prefork.client import (
    ClientError,
    ClientRequest,
    HttpClient,
    RequestContent,
    SystemCall,
    parse_url,
)
from tests.support.hostile_servers import (
    OK,
    Recorder,
    Server,
    answer,
    answers,
    expect_end,
    reset,
    serving,
)
from tests.support.sockets import closed_port, read_head
from tests.support.waiting import PATIENCE

MIB = 1 << 20


def get(client: HttpClient, url: str, path: str = "") -> bytes:
    return b"".join(client.request(ClientRequest(parse_url(url + path))))


# What a client does


def test_the_system_calls_of_a_request_in_order() -> None:
    calls: list[SystemCall] = []
    with serving(answers(answer(b"hello"))) as server, HttpClient(trace=calls.append) as client:
        assert get(client, server.url) == b"hello"
        client.close()
    assert [call.name for call in calls] == [
        "getaddrinfo",
        "socket",
        "connect",
        "sendall",
        "recv",
        "shutdown",
        "close",
    ]
    assert [call.at for call in calls] == sorted(call.at for call in calls)
    assert calls[2].arguments.endswith(f"127.0.0.1:{server.port}")
    assert calls[4].result.startswith('43 bytes "HTTP/1.1 200 OK')


def test_several_requests_share_a_connection_which_is_closed_properly() -> None:
    recorder = Recorder()
    with serving(recorder) as server, HttpClient() as client:
        for path in ("a", "b", "c"):
            assert get(client, server.url, path) == b"ok"
    assert server.accepted == 1
    assert recorder.lines == ["GET /a", "GET /b", "GET /c"]


def test_a_server_that_closes_after_each_answer_is_connected_to_again() -> None:
    handler = answers(answer(b"ok", "Connection: close"))
    with serving(handler, handler) as server, HttpClient() as client:
        assert get(client, server.url) == b"ok"
        assert get(client, server.url) == b"ok"
    assert server.accepted == 2


def test_an_idle_connection_that_has_ended_is_not_used() -> None:
    ended = threading.Event()

    def once(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer(b"1"))
        sock.shutdown(socket.SHUT_WR)
        ended.set()
        expect_end(sock)

    calls: list[SystemCall] = []
    with serving(once, Recorder()) as server, HttpClient(trace=calls.append) as client:
        assert get(client, server.url) == b"1"
        assert ended.wait(PATIENCE)
        # A POST would not be sent twice: it gets through since the end is seen before.
        request = ClientRequest(parse_url(server.url), "POST", body=RequestContent(b"x"))
        assert b"".join(client.request(request)) == b"ok"
    assert [call.name for call in calls].count("poll") == 1


def ends_a_kept_connection(sock: socket.socket) -> None:
    """Answers once, then reads another request and closes without a byte."""
    read_head(sock)
    sock.sendall(answer(b"1"))
    read_head(sock)


def test_a_request_that_a_kept_connection_swallowed_is_sent_again() -> None:
    with serving(ends_a_kept_connection, Recorder()) as server, HttpClient() as client:
        assert get(client, server.url) == b"1"
        assert get(client, server.url) == b"ok"


def test_a_post_that_a_kept_connection_swallowed_is_not_sent_again() -> None:
    with serving(ends_a_kept_connection, Recorder()) as server, HttpClient() as client:
        assert get(client, server.url) == b"1"
        with pytest.raises(ClientError, match="closed early, before the first byte"):
            client.request(ClientRequest(parse_url(server.url), "POST"))


def test_a_get_on_a_new_connection_is_not_sent_again() -> None:
    refused = pytest.raises(ClientError, match="closed early, before the first byte")
    with serving(answers(ends=True), Recorder()) as server, HttpClient() as client, refused:
        get(client, server.url)
    assert server.accepted == 1


def test_every_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        """A name with three addresses, of which the last answers."""
        v4, v6, stream = socket.AF_INET, socket.AF_INET6, socket.SOCK_STREAM
        return [
            (v6, stream, 6, "", ("::1", refusing, 0, 0)),
            (v4, stream, 6, "", ("127.0.0.1", refusing)),
            (v4, stream, 6, "", ("127.0.0.1", port)),
        ]

    refusing = closed_port()
    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with serving(Recorder()) as server, HttpClient() as client:
        assert get(client, f"http://many.example:{server.port}/") == b"ok"
    with HttpClient() as client, pytest.raises(ClientError) as caught:
        get(client, f"http://many.example:{refusing}/")
    # Without IPv6 the first says "Cannot assign requested address" or the like.
    assert str(caught.value).startswith(f"connect: [::1]:{refusing}: ")
    assert str(caught.value).count("Connection refused") >= 2


def test_ipv6() -> None:
    try:
        listener = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError as error:
        pytest.skip(f"no IPv6 on the loopback here: {error.strerror}")
    server = Server((Recorder(),), listener)
    with HttpClient() as client:
        assert get(client, f"http://[::1]:{server.port}/") == b"ok"
    server.stop()
    assert not server.errors


@pytest.mark.parametrize("form", ["beside", "inside"])
def test_a_unix_socket(tmp_path: Path, form: str) -> None:
    path = tmp_path / "A.sock"
    recorder = Recorder()
    if form == "beside":
        url = parse_url("http://app.example/x", str(path))
    else:
        url = parse_url("http+unix://" + str(path).replace("/", "%2F") + "/x")
    with serving(recorder, path=path), HttpClient() as client:
        assert b"".join(client.request(ClientRequest(url))) == b"ok"
    assert recorder.lines == ["GET /x"]
    assert recorder.heads[0]["host"] == ("app.example" if form == "beside" else "localhost")


# Bodies


@pytest.mark.parametrize("size", [0, 1, 513, 65_537, 3 * MIB])
@pytest.mark.parametrize("kind", ["bytes", "file", "pipe"])
def test_a_body_arrives_whole(tmp_path: Path, size: int, kind: str) -> None:
    data = os.urandom(size)
    path = tmp_path / "body"
    path.write_bytes(data)
    recorder = Recorder()
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(serving(recorder))
        client = stack.enter_context(HttpClient())
        if kind == "bytes":
            body = RequestContent(data)
        elif kind == "file":
            body = RequestContent(fd=stack.enter_context(open(path, "rb")).fileno())
        else:
            cat = stack.enter_context(subprocess.Popen(["cat", path], stdout=subprocess.PIPE))
            assert cat.stdout is not None
            body = RequestContent(fd=cat.stdout.fileno())
        request = ClientRequest(parse_url(server.url), "PUT", body=body)
        assert b"".join(client.request(request)) == b"ok"
        # The connection is in order for the next.
        assert get(client, server.url) == b"ok"
    assert server.accepted == 1
    assert hashlib.sha256(recorder.bodies[0]).digest() == hashlib.sha256(data).digest()
    framing = "transfer-encoding" if kind == "pipe" else "content-length"
    assert framing in recorder.heads[0]


def test_a_header_of_a_hundred_kilobytes_arrives() -> None:
    recorder = Recorder()
    with serving(recorder) as server, HttpClient() as client:
        request = ClientRequest(parse_url(server.url), headers=(("X-Large", "a" * 100_000),))
        assert b"".join(client.request(request)) == b"ok"
    assert len(recorder.heads[0]["x-large"]) == 100_000


def test_an_answer_that_comes_while_the_body_goes_is_read() -> None:
    """Two that only wrote, and did not read, would wait for each other for ever."""
    size = 8 * MIB

    def echo(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK + b"Content-Length: %d\r\n\r\n" % size)
        left = size
        while left:
            data = sock.recv(min(left, 65536))
            sock.sendall(data)
            left -= len(data)
        expect_end(sock)

    data = os.urandom(size)
    with serving(echo) as server, HttpClient(timeout=PATIENCE) as client:
        response = client.request(
            ClientRequest(parse_url(server.url), "POST", body=RequestContent(data))
        )
        assert b"".join(response) == data


@pytest.mark.parametrize("ends", [True, False], ids=["closes", "waits"])
def test_a_refusal_before_the_body_has_gone_is_read(ends: bool) -> None:
    """It closes with bytes of ours unread, so that a reset follows its answer; or it stays."""

    def refuse(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(answer(b"too large", status="413 Content Too Large"))
        if not ends:
            with contextlib.suppress(ConnectionResetError):
                while sock.recv(65536):
                    pass

    calls: list[SystemCall] = []
    with serving(refuse) as server, HttpClient(trace=calls.append) as client:
        response = client.request(
            ClientRequest(parse_url(server.url), "POST", body=RequestContent(bytes(64 * MIB)))
        )
        assert response.status == 413
        assert b"".join(response) == b"too large"
        assert not response.reusable
    assert calls[-1].name == "close"


def test_a_refusal_is_seen_while_the_pipe_gives_nothing() -> None:
    reading, writing = os.pipe()
    refusal = answer(b"no", status="403 Forbidden")
    with serving(answers(refusal)) as server, HttpClient(timeout=PATIENCE) as client:
        request = ClientRequest(parse_url(server.url), "POST", body=RequestContent(fd=reading))
        assert client.request(request).status == 403
    os.close(reading)
    os.close(writing)


def test_a_server_that_says_yes_at_once_still_gets_the_whole_body() -> None:
    size = 4 * MIB
    got = 0

    def eager(sock: socket.socket) -> None:
        nonlocal got
        read_head(sock)
        sock.sendall(answer(b"yes"))
        while got < size:
            got += len(sock.recv(65536))
        expect_end(sock)

    with serving(eager) as server, HttpClient() as client:
        response = client.request(
            ClientRequest(parse_url(server.url), "POST", body=RequestContent(bytes(size)))
        )
        assert b"".join(response) == b"yes"
    assert got == size


def test_a_reset_while_the_body_goes() -> None:
    def cut(sock: socket.socket) -> None:
        read_head(sock)
        reset(sock)

    with serving(cut) as server, HttpClient() as client:
        request = ClientRequest(parse_url(server.url), "POST", body=RequestContent(bytes(64 * MIB)))
        with pytest.raises(ClientError, match=r"(send|receive): (Connection reset|closed early)"):
            client.request(request)


# The peak of this process alone: ru_maxrss would begin with that of the process that forked it.
MEASURED = """
import sys
from prefork.cli.get import command
try:
    command()
finally:
    with open("/proc/self/status") as status:
        print(next(line for line in status if line.startswith("VmHWM")), file=sys.stderr)
"""


def peak_memory(*arguments: str) -> int:
    """Runs the command, which must succeed; the most memory that it held, in bytes."""
    done = subprocess.run(
        [sys.executable, "-c", MEASURED, *arguments], stderr=subprocess.PIPE, timeout=100
    )
    assert done.returncode == 0, done.stderr.decode()
    _, kilobytes, _ = done.stderr.split()
    return int(kilobytes) * 1024


def test_a_large_file_goes_up_in_little_memory(tmp_path: Path) -> None:
    size = 256 * MIB + 1
    path = tmp_path / "sparse"
    path.touch()
    os.truncate(path, size)
    got = 0

    def count(sock: socket.socket) -> None:
        nonlocal got
        assert f"Content-Length: {size}\r\n".encode() in read_head(sock)
        buffer = bytearray(MIB)
        # MSG_TRUNC: counted and thrown away in the kernel, tcp(7).
        while got < size and (count := sock.recv_into(buffer, MIB, socket.MSG_TRUNC)):
            got += count
        sock.sendall(answer(b"counted"))
        expect_end(sock)

    with serving(count) as server:
        peak = peak_memory("-f", "-o", str(tmp_path / "out"), "-d", f"@{path}", server.url)
    assert got == size
    assert (tmp_path / "out").read_bytes() == b"counted"
    assert peak < 64 * MIB


def test_a_long_answer_comes_down_in_little_memory(tmp_path: Path) -> None:
    def send(sock: socket.socket) -> None:
        read_head(sock)
        sock.sendall(OK + b"Transfer-Encoding: chunked\r\n\r\n")
        chunk = b"100000\r\n" + bytes(MIB) + b"\r\n"
        for _ in range(256):
            sock.sendall(chunk)
        sock.sendall(b"0\r\n\r\n")
        expect_end(sock)

    with serving(send) as server:
        peak = peak_memory("-o", "/dev/null", server.url)
    assert peak < 64 * MIB


# Redirects


def test_a_redirect_is_followed_on_the_same_connection() -> None:
    def handle(sock: socket.socket) -> None:
        assert read_head(sock).startswith(b"GET /a ")
        sock.sendall(answer(b"moved", "Location: /b", status="302 Found"))
        assert read_head(sock).startswith(b"GET /b ")
        sock.sendall(answer(b"here"))
        expect_end(sock)

    with serving(handle) as server, HttpClient() as client:
        response = client.request(ClientRequest(parse_url(server.url + "a")), redirects=1)
        assert b"".join(response) == b"here"
        assert str(response.request.url) == server.url + "b"


def test_a_redirect_leads_to_another_server_with_the_body() -> None:
    recorder = Recorder()

    def moved(sock: socket.socket) -> None:
        assert read_head(sock).startswith(b"POST / ")
        assert sock.recv(4) == b"data"
        sock.sendall(answer(b"", f"Location: {other.url}x", status="307 Temporary Redirect"))
        expect_end(sock)

    with serving(recorder) as other, serving(moved) as server, HttpClient() as client:
        request = ClientRequest(parse_url(server.url), "POST", body=RequestContent(b"data"))
        assert b"".join(client.request(request, redirects=1)) == b"ok"
    assert recorder.lines == ["POST /x"]
    assert recorder.bodies == [b"data"]


def test_redirects_in_a_circle_end() -> None:
    def circle(sock: socket.socket) -> None:
        for _ in range(4):
            read_head(sock)
            sock.sendall(answer(b"", "Location: /", status="302 Found"))
        expect_end(sock)

    refused = pytest.raises(ClientError, match="redirect: more than 3 in a row")
    with serving(circle) as server, HttpClient() as client, refused:
        client.request(ClientRequest(parse_url(server.url)), redirects=3)


def test_a_redirect_with_a_long_body_costs_the_connection_not_the_reading() -> None:
    def handle(sock: socket.socket) -> None:
        read_head(sock)
        with contextlib.suppress(ConnectionError):
            sock.sendall(OK.replace(b"200", b"302") + b"Location: /b\r\nContent-Length: 9999999999")
            sock.sendall(b"\r\n\r\n")
            while True:
                sock.sendall(bytes(65536))

    with serving(handle, Recorder()) as server, HttpClient() as client:
        response = client.request(ClientRequest(parse_url(server.url)), redirects=1)
        assert b"".join(response) == b"ok"


def test_without_being_asked_no_redirect_is_followed() -> None:
    moved = answer(b"moved", "Location: /b", status="302 Found")
    with serving(answers(moved)) as server, HttpClient() as client:
        assert get(client, server.url) == b"moved"
