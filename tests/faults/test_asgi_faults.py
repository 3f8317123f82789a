"""Reloads, upgrades, kills and a stop of ASGI workers under load lose nothing that need not be."""

import os
import signal
import threading
from collections import Counter
from pathlib import Path

import pytest

from tests.support.path_load import PathLoad, tcp
from tests.support.raw_http import Raw
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until
from tests.support.websocket_client import raw_websocket, server_frame
from tests.support.websocket_frames import client_frame

WORKERS = 2
ONE_SHOT, KEPT, STREAMS, WEBSOCKETS = 2, 3, 4, 6


def serve(start: Start, loop: str) -> Server:
    settings = (
        *("server.protocol=asgi", f"workers.count={WORKERS}", f"workers.loop={loop}"),
        "websocket.ping_interval=0",  # the only frame that a client waits for is the close frame
        'workers.hooks={ ready = "tests.apps.hasty:ready" }',
    )
    given = [part for setting in settings for part in ("--set", setting)]
    return start("tests.apps.async_basic:app", *given).wait_ready(WORKERS)


class LongClients:
    """Clients in threads, each with one exchange that lasts until the server ends it, however long
    that takes; it is then begun anew, until there is no listener."""

    def __init__(self, server: Server, number: int, path: str) -> None:
        """`path`: what is asked for."""
        self.ends: Counter[str] = Counter()
        """How often the server has ended one as it should, by what it said."""
        self.failures: Counter[str] = Counter()
        self.server = server
        self.path = path
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(number)]
        for thread in self._threads:
            thread.start()

    def _run(self) -> None:
        while True:
            try:
                end = self.talk()
            except ConnectionRefusedError:
                return
            except (OSError, AssertionError) as problem:
                self.failures[f"{type(problem).__name__}: {problem}"] += 1
            else:
                self.ends[end] += 1

    def talk(self) -> str:
        """One exchange, whole; returns what the server said at its end."""
        raise NotImplementedError

    def join(self) -> None:
        """Waits until every client has ended."""
        for thread in self._threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()


class Streams(LongClients):
    """Streams of events."""

    def talk(self) -> str:
        with self.server.connect() as sock:
            raw = Raw(sock)
            raw.send(b"GET %s HTTP/1.1\r\nHost: x\r\n\r\n" % self.path.encode())
            assert raw.head().status == 200
            sock.settimeout(None)
            assert b"".join(raw.chunks()) == b"data: 1\n\ndata: 2\n\n"
            return "whole"


class Chats(LongClients):
    """WebSockets."""

    def talk(self) -> str:
        with raw_websocket(self.server, self.path) as raw:
            raw.send(client_frame(1, b"hello"))
            assert server_frame(raw) == (0x81, b"hello")
            raw.sock.settimeout(None)
            first, payload = server_frame(raw)
            assert first == 0x88, f"{first:#x} {payload!r}"
            raw.send(client_frame(8, payload))
            assert raw.at_end()
            return str(int.from_bytes(payload[:2], "big"))


def held(server: Server) -> dict[int, Counter[str]]:
    """By worker, how many streams and WebSockets it has, once each client has its own again."""

    def all_of_them() -> dict[int, Counter[str]] | None:
        found = {}
        for worker in server.status()["workers"]:
            streams = sum(call["request"].startswith("GET /events") for call in worker["calls"])
            found[worker["pid"]] = Counter(streams=streams, websockets=worker["websockets"])
        total = sum(found.values(), Counter())
        whole = Counter(streams=STREAMS, websockets=WEBSOCKETS)
        return found if len(found) == WORKERS and total == whole else None

    return until(all_of_them, "each client has a stream or a WebSocket")


@pytest.mark.parametrize("loop", ["asyncio", "uvloop"])
@pytest.mark.parametrize(
    ("reloads", "upgrades", "kills"),
    [(4, 1, 1), pytest.param(20, 5, 5, marks=pytest.mark.nightly)],
)
def test_each_client_is_served_through_reloads_upgrades_kills_and_a_stop(
    start: Start, tmp_path: Path, loop: str, reloads: int, upgrades: int, kills: int
) -> None:
    """A kill costs what the worker had at that moment; nothing else costs any client anything."""
    if loop == "uvloop":
        pytest.importorskip("uvloop")
    server = serve(start, loop)
    load = PathLoad(tcp(server.port), one_shot=ONE_SHOT, kept=KEPT)
    streams = Streams(server, STREAMS, f"/events?path={tmp_path}/stream")
    chats = Chats(server, WEBSOCKETS, "/")
    held(server)

    generation = 1
    for command in ["reload"] * reloads + ["upgrade"] * upgrades:
        load.wait_answers(20)
        server.ask(command)
        generation += 1
        server.wait("generation settled", generation=generation)
    server.wait("worker exited", WORKERS * (generation - 1))
    held(server)  # each has come back
    assert not load.failures + streams.failures + chats.failures
    assert streams.ends["whole"] >= STREAMS
    assert chats.ends["1012"] >= WEBSOCKETS
    assert set(chats.ends) == {"1012"}

    server.expected_errors.add("worker died")
    lost: Counter[str] = Counter()
    for number in range(kills):
        load.wait_answers(20)
        pid, had = max(held(server).items(), key=lambda each: each[1].total())
        os.kill(pid, signal.SIGKILL)
        lost += had
        server.wait("worker died", number + 1)
        server.wait("worker ready", WORKERS * generation + number + 1)
    held(server)
    assert (streams.failures.total(), chats.failures.total()) == (
        lost["streams"],
        lost["websockets"],
    )
    assert load.failures.total() <= kills * (ONE_SHOT + KEPT)

    load.wait_answers(20)
    failures = load.failures.total()
    server.signal(signal.SIGTERM)
    assert server.wait_exit() == 0
    for clients in (load, streams, chats):
        clients.join()
    assert load.failures.total() == failures
    assert (streams.failures.total(), chats.failures.total()) == (
        lost["streams"],
        lost["websockets"],
    )
    assert chats.ends["1001"] == WEBSOCKETS
    assert not server.find("worker killed")
    assert not server.find("application failed")
