"""Eight threads in one worker: of no use to a trivial application, and needed by one that waits."""

from bench import peers
from bench.closed_loop import Ask, Row, compare, loop_section
from bench.figures import Section
from bench.servers import Server

THREADS = 8


def servers(app: str) -> list[Server]:
    one = ("--workers", "1")
    many = str(THREADS)
    return [
        Server("prefork, 8 threads", peers.prefork(app, *one, "--threads", many)),
        Server("granian, 8 threads", peers.granian(app, THREADS, *one)),
        Server("gunicorn gthread, 8 threads", peers.gthread(app, THREADS, *one)),
        Server(
            "uWSGI, 8 threads", peers.uwsgi(app, "--processes", "1", "--threads", many, kept=True)
        ),
        Server("waitress, 8 threads", peers.waitress(app, THREADS)),
    ]


def measure(quick: bool) -> list[Section]:
    trivial = Row(
        loop_section(
            "threads-trivial",
            "Eight threads, trivial application",
            "One worker, keep-alive, 32 connections. Threads can only cost here: the interpreter "
            "runs one at a time.",
        ),
        Ask(),
    )
    sleepers = Row(
        loop_section(
            "threads-sleep",
            "Eight threads, the application sleeps 20 ms",
            "One worker, keep-alive, 64 connections. Eight threads can answer 400 a second.",
        ),
        Ask(connections=64),
    )
    alone = Server("prefork, 1 thread", peers.prefork("bench.hello:app", "--workers", "1"))
    hello, sleep = servers("bench.hello:app"), servers("bench.apps:sleep")
    trivial.section.reference = sleepers.section.reference = "prefork, 8 threads"
    if quick:
        hello, sleep = hello[:3], sleep[:3]
    rounds = 2 if quick else 5
    compare([alone, *hello], [trivial], rounds, 0.4 if quick else 0.6)
    seconds = 0.8 if quick else 1.0
    # In one turn: an answer takes longer than others last.
    compare(sleep, [sleepers], min(rounds, 3), seconds, turn=seconds)
    return [trivial.section, sleepers.section]
