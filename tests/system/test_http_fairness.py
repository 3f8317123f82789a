"""Whose turn it is in a worker of one thread, where clients ask for more than their share."""

import threading
from contextlib import ExitStack
from pathlib import Path

from tests.support.raw_http import request, talk
from tests.support.server import Start
from tests.support.waiting import PATIENCE, until
from tests.system.test_http import APP

MANY = 200
SMALL = 4096  # bytes of receive buffer
BIG = 400_000  # bytes of a response that the kernel takes whole, whether its client reads or not


def test_a_long_pipeline_gets_one_turn_and_then_others(start: Start, tmp_path: Path) -> None:
    server = start(APP, "--workers", "1", "--threads", "1").wait_ready(1)
    held = tmp_path / "held"
    with talk(server) as greedy, talk(server) as kept:
        kept.ask(request("/pid"))
        greedy.send(request(f"/hold?path={held}") + request("/turn?s=0.002") * MANY)
        until(held.exists, "a call that is held")
        # All that follows is there before the worker looks up again.
        with talk(server) as fresh:
            for client in (kept, fresh):
                client.send(request("/turn"))
            held.unlink()
            assert int(kept.answer().body) <= 2
            assert int(fresh.answer().body) < MANY // 2
        greedy.answer()
        numbers = [int(greedy.answer().body) for _ in range(MANY)]
        assert numbers == sorted(numbers)
        assert numbers[-1] == MANY + 2


def test_new_connections_get_as_many_turns_as_kept_ones(start: Start, tmp_path: Path) -> None:
    """A worker that has no sibling, and clients that keep it busy with Python."""
    kept, new = 8, 32
    server = start(APP, "--workers", "1", "--threads", "1").wait_ready(1)
    held = tmp_path / "held"
    with ExitStack() as stack:
        greedy = [stack.enter_context(talk(server)) for _ in range(kept)]
        for client in greedy:
            client.ask(request("/pid"))
        greedy[0].send(request(f"/hold?path={held}"))
        until(held.exists, "a call that is held")
        # All that follows is there before the worker looks up again.  One of a pipeline is a turn.
        for client in greedy:
            client.send(request("/turn?cpu=0.002") * MANY)
        fresh = [stack.enter_context(talk(server)) for _ in range(new)]
        for client in fresh:
            client.send(request("/turn"))
        held.unlink()
        # At each look as many as were found by the last: 2, 10, 20 at most.
        assert max(int(client.answer().body) for client in fresh) <= new + 5 * kept


def test_kept_connections_get_as_many_turns_as_new_ones(start: Start) -> None:
    """The same worker, and clients that connect anew for each request, so that some always wait."""
    kept, turns = 4, 30
    server = start(APP, "--workers", "1", "--threads", "1").wait_ready(1)
    over, asked = threading.Event(), threading.Event()

    def ask() -> None:
        while not over.is_set():
            server.get("/turn?cpu=0.002")
            asked.set()

    clients = [threading.Thread(target=ask) for _ in range(4)]
    with ExitStack() as stack:
        greedy = [stack.enter_context(talk(server)) for _ in range(kept)]
        for client in clients:
            client.start()
        stack.callback(over.set)
        assert asked.wait(PATIENCE)
        for each in greedy:
            each.send(request("/turn?cpu=0.002") * MANY)
        numbers = [int(greedy[-1].answer().body) for _ in range(turns + 1)]
    for client in clients:
        client.join()
    # Each kept one is found by each look, and as many new ones are taken at most before the next;
    # one more where an acceptor has taken it.
    assert numbers[-1] - numbers[0] <= turns * (2 * kept + 1)


def test_nothing_is_made_for_a_client_before_it_has_taken_what_was_made(start: Start) -> None:
    """Two hundred clients ask three times each, and read nothing."""
    server = start(APP, "--workers", "1", "--threads", "1").wait_ready(1)
    with ExitStack() as stack:
        readers = [stack.enter_context(talk(server, receive_buffer=SMALL)) for _ in range(MANY)]
        for reader in readers[: MANY // 2]:
            reader.send(request(f"/turn?n={BIG}") * 3)
        # Others send one by one: what counts is that they have not read.
        for reader in readers[MANY // 2 :]:
            reader.send(request(f"/turn?n={BIG}"))
        with talk(server) as good:
            assert int(good.ask(request("/turn")).body) <= MANY + 1
            for reader in readers[MANY // 2 :]:
                reader.send(request(f"/turn?n={BIG}") * 2)
            for more in range(10):
                assert int(good.ask(request("/turn")).body) <= MANY + 2 + more
        # Whoever reads gets all of it.
        for reader in (readers[0], readers[-1]):
            numbers = [int(reader.answer().body) for _ in range(3)]
            assert numbers == sorted(numbers)
            assert numbers[1] > MANY
