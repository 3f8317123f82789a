"""A reload that another supersedes loses nothing: not even in the moment in which it got ready."""

import signal

from tests.faults.load import Load, tcp
from tests.system.server import Start


def test_sixty_reloads_that_supersede_each_other_lose_nothing(start: Start) -> None:
    """Some of the canaries say that they are ready while they are killed."""
    server = start("tests.apps.basic:app", "--workers", "2").wait_ready(2)
    server.expected_errors = {"reload failed"}
    load = Load(tcp(server.port), one_shot=6, kept=4)
    load.wait_answers(50)
    for generation in range(2, 62):
        server.signal(signal.SIGHUP)
        server.wait("reload started", generation=generation)
        if generation % 3:
            load.wait_answers(1 + generation % 13)
        else:
            server.wait("generation settled", generation=generation)
    server.wait("generation settled", generation=61)
    load.wait_answers(50)
    load.end()
    assert not load.failures, load.failures
