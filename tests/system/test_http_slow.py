"""Slow clients of all kinds at once, and one thread: who is quick is served."""

import re
import shutil
import signal
import subprocess
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from tests.support.processes import sockets
from tests.support.raw_http import Raw, request, talk
from tests.support.server import BRIDGED, Start
from tests.support.waiting import PATIENCE, until
from tests.system.test_http import APP, settings

EACH = 50
BIG = 2_000_000
PATIENT = {
    **dict.fromkeys(("header_timeout", "body_timeout", "write_timeout", "keepalive"), 120),
    **dict.fromkeys(("min_body_rate", "min_write_rate"), 0),
}
"""A server that gives up no client, however long the test takes."""
SMALL = 4096  # bytes of receive buffer: the answer does not fit


@pytest.mark.parametrize("kind", [(APP,), BRIDGED], ids=["1 thread", "event loop"])
def test_slow_heads_bodies_chunks_and_readers_keep_no_client_waiting(
    start: Start, kind: tuple[str, ...]
) -> None:
    """Two hundred: every one moves on between two good requests, and gets its answer in the end."""
    server = start(
        *(*kind, "--workers", "1"),
        *settings("http", **PATIENT, response_memory=65536),
    ).wait_ready(1)
    head = request("/nolength", "X-Slow: " + "a" * 60)
    body = request("/echo", method="POST", body=b"b" * 60)
    chunks = request("/echo", "Transfer-Encoding: chunked", method="POST") + b"1\r\nc\r\n" * 10
    with ExitStack() as stack:
        writers: list[tuple[Raw, bytes]] = []
        readers = []
        for _ in range(EACH):
            for data in (head, body, chunks + b"0\r\n\r\n"):
                client = stack.enter_context(talk(server))
                client.send(data[:-60])
                writers.append((client, data[-60:]))
            reader = stack.enter_context(talk(server, receive_buffer=SMALL))
            reader.send(request(f"/big?n={BIG}"))
            readers.append(reader)
        good = stack.enter_context(talk(server))
        for step in range(0, 60, 4):
            for client, rest in writers:
                client.send(rest[step : step + 4])
                # Between two bytes of the others: an answer at once, not behind them.
                if step % 20 == 0:
                    assert good.ask(request("/nolength")).body == b"no length given"
            for reader in readers:
                reader.sock.recv(100)
            with talk(server) as fresh:
                assert fresh.ask(request("/nolength")).status == 200
        for number, (client, _) in enumerate(writers):
            expected = (b"no length given", b"b" * 60, b"c" * 10)[number % 3]
            assert client.answer().body == expected


# slowhttptest(1): the modes, and how fast each goes about it.
ATTACKS = {
    "slow headers": ("-H", "-i", "1", "-x", "8"),
    "slow bodies": ("-B", "-i", "1", "-x", "8", "-s", "8192"),
    "ranges": ("-R", "-t", "GET", "-a", "5", "-b", "900"),
    "slow readers": ("-X", "-n", "1", "-w", "10", "-y", "20", "-z", "32", "-k", "3"),
}
TARGETS = {
    "slow headers": "/nolength",
    "slow bodies": "/echo",
    "ranges": "/static/file",
    "slow readers": f"/big?n={BIG // 10}",
}
COUNT = 200
FILE = b"0123456789" * 1000


@pytest.mark.parametrize("kind", [(APP, "--threads", "1"), BRIDGED], ids=["1 thread", "event loop"])
def test_slowhttptest_in_its_four_modes_at_once_harms_no_client(
    start: Start, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    if shutil.which("slowhttptest") is None:
        pytest.skip("slowhttptest is not installed")
    (tmp_path / "file").write_bytes(FILE)
    access = tmp_path / "access.log"
    server = start(
        *(*kind, "--workers", "1"),
        *settings("http", **PATIENT),
        *("--set", f'static.mounts={{ "/static/" = "{tmp_path}" }}'),
        *settings("log", access=access, access_format="common"),
    ).wait_ready(1)
    (worker,) = server.workers()
    before = len(sockets(worker.pid))
    command = ["slowhttptest", "-c", str(COUNT), "-r", str(COUNT), "-l", "120", "-p", str(PATIENCE)]
    with ExitStack() as stack:
        tools = {
            name: stack.enter_context(
                subprocess.Popen(
                    [*command, *flags, "-u", f"http://127.0.0.1:{server.port}{TARGETS[name]}"],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.PIPE,
                )
            )
            for name, flags in ATTACKS.items()
        }
        for tool in tools.values():
            stack.callback(tool.kill)
        good = stack.enter_context(talk(server))

        def answered() -> None:
            assert good.ask(request("/nolength")).body == b"no length given"
            with talk(server) as fresh:
                assert fresh.ask(request("/static/file")).body == FILE

        def all_there() -> bool:
            """Three of the four keep what they have."""
            answered()
            held = len(sockets(worker.pid)) - before - 1  # but the good one
            return tools["ranges"].poll() is not None and held >= 3 * COUNT

        until(all_there, "all slow clients at once")
        for _ in range(60):
            answered()
            with suppress(subprocess.TimeoutExpired):
                tools["slow readers"].wait(0.02)
        until(all_there, "none of them is gone")
        told = {}
        for name, tool in tools.items():
            tool.send_signal(signal.SIGINT)
            told[name] = tool.communicate(timeout=PATIENCE)[0].decode()
    for name, words in told.items():
        words = re.sub(r"\x1b\[[0-9;]*m", "", words)
        assert re.findall(r"service available: *(\w+)", words)[-1] == "YES", words
        end = "No open connections left" if name == "ranges" else "Cancelled by user"
        assert end in words, words
    # So many ranges get the whole, once, and not each of them.
    log = access.read_text()
    assert set(re.findall(r'"GET /static/file HTTP/1.1" (.*)', log)) == {f"200 {len(FILE)}"}
    assert log.count("GET /static/file") >= COUNT
