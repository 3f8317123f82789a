"""ASGI: ten thousand connections and WebSockets that do nothing, in one worker."""

import contextlib
import sys

from bench import peers
from bench.closed_loop import Ask, kept_open, load
from bench.figures import Measure, Section, attempt
from bench.parts.idle import BYTES, pss, still_open
from bench.parts.websocket import Peer
from bench.servers import BenchError, Running, Server, started

MEMORY = Measure("memory with all of them, MB", 1)


def servers() -> list[Server]:
    """All set to keep that many, for that long."""
    keep = ("--set", "http.keepalive=300", "--set", f"http.max_connections={peers.MANY}")
    many = ("--backpressure", peers.MANY)
    return [
        Server("prefork", peers.prefork("bench.asgi_apps:raw", "--workers", "1", *keep)),
        Server("uvicorn", (*peers.uvicorn_asgi("raw"), "--timeout-keep-alive", "300")),
        Server("granian", (*peers.granian_asgi("raw"), *many)),
    ]


def play(section: Section, running: Running, count: int, *, websockets: bool) -> None:
    """Opens all of them, and looks at what the server's memory has grown by.

    Raises BenchError if one of them cannot be had, or is gone at the end.
    """
    load(Ask(), running.port, requests=2000)
    before = pss(running)
    with contextlib.ExitStack() as stack:
        try:
            if websockets:
                held = [Peer(running.port, compressed=False) for _ in range(count)]
                for each in held:
                    stack.callback(each.close)
                socks = [each.sock for each in held]
            else:
                socks = stack.enter_context(kept_open(running.port, count))
        except OSError as problem:
            raise BenchError(f"{running.name}: {problem}") from None
        memory = pss(running)
        alive = still_open(socks)
    if alive < count:
        raise BenchError(f"kept only {alive:,} of {count:,}")
    section.add(running.name, {BYTES: (memory - before) / count, MEMORY: memory / 1e6})
    print(f"{section.key}: {running.name}: {(memory - before) / count:.0f} bytes", file=sys.stderr)


def measure(quick: bool) -> list[Section]:
    count = 1_000 if quick else 10_000
    about = "the memory is that of the server's processes (PSS), without the kernel's."
    sections = [
        Section(
            "asgi-idle-connections",
            f"ASGI: {count:,} idle connections in one worker",
            f"Each has had one answer and is kept; {about}",
            (BYTES, MEMORY),
        ),
        Section(
            "asgi-idle-websockets",
            f"ASGI: {count:,} idle WebSockets in one worker",
            f"Each is accepted, and its application waits for a message; {about}",
            (BYTES, MEMORY),
        ),
    ]
    for websockets, section in enumerate(sections):
        for server in servers():

            def once(
                server: Server = server, section: Section = section, kind: int = websockets
            ) -> None:
                with started(server) as running:
                    play(section, running, count, websockets=bool(kind))

            attempt([section], server.name, once)
    return sections
