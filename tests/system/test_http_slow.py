"""Two hundred slow clients of all four kinds at once, and one thread: who is quick is served."""

from contextlib import ExitStack

from tests.system.raw import Raw, request, talk
from tests.system.server import Start
from tests.system.test_http import APP, settings

EACH = 50
BIG = 2_000_000
SMALL = 4096  # bytes of receive buffer: the answer does not fit


def test_slow_heads_bodies_chunks_and_readers_keep_nobody_waiting(start: Start) -> None:
    """Every one moves on between two good requests, and every one gets its answer in the end."""
    server = start(
        *(APP, "--workers", "1", "--threads", "1"),
        *settings("http", header_timeout=120, response_memory=65536, min_body_rate=0),
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
