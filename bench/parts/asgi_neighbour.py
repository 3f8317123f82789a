"""ASGI: a loop that is blocked again and again, beside one that is not; see `neighbour`."""

from bench import peers
from bench.figures import Section, attempt
from bench.parts.neighbour import MEASURES, play
from bench.servers import Server, started

WORKERS = ("--workers", "4")


def servers() -> list[Server]:
    return [
        Server("prefork", peers.prefork("bench.asgi_apps:blocking", *WORKERS)),
        Server("uvicorn", (*peers.uvicorn_asgi("blocking"), *WORKERS)),
        Server("granian", (*peers.granian_asgi("blocking"), *WORKERS)),
    ]


def measure(quick: bool) -> list[Section]:
    section = Section(
        "asgi-neighbour",
        "ASGI: a loop that is blocked",
        "Four workers; one request after the other blocks its event loop for 0.5 s (`time.sleep`), "
        "while 8 kept connections and 2 new ones at a time ask for hello.",
        MEASURES,
    )
    for _ in range(1 if quick else 3):
        for server in servers():

            def once(server: Server = server) -> None:
                with started(server) as running:
                    play(section, "sleep", running, 1.2)

            attempt([section], server.name, once)
    return [section]
