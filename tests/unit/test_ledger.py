"""The ledger: what is told outside never goes back."""

import msgspec

from prefork.master.pool.ledger import Ledger
from prefork.scoreboard import CELLS, Counters


def done(requests: int) -> Counters:
    return Counters((0,) * (CELLS - 1) + (requests,), 10 * requests, 0.5 * requests, 1, 0.25)


def test_the_total_is_that_of_the_living_and_of_the_dead() -> None:
    ledger = Ledger()
    first, second = done(3), done(4)
    total = ledger.total([first, second])
    assert (total.requests, total.bytes, total.seconds) == (7, 70, 3.5)
    ledger.add_dead(first)
    assert ledger.total([second]) == total
    assert ledger.total([second, Counters()]) == total


def test_it_is_handed_over_whole() -> None:
    ledger = Ledger(timeouts=2)
    ledger.add_dead(done(5))
    ledger.restarted("crashed")
    ledger.restarted("crashed")
    ledger.reloaded("superseded")
    ledger.upgraded("success")
    again = Ledger.restore(ledger.snapshot())
    assert again == ledger
    assert again.restarts == {"crashed": 2}


def test_sums_stay_within_what_can_be_handed_over() -> None:
    """A worker may claim 2**50 bytes before each of its deaths; msgspec has integers of 64 bits."""
    ledger = Ledger()
    for _ in range(10_000):
        ledger.add_dead(Counters(bytes=1 << 50))
    assert 1 << 60 < ledger.done.bytes < 1 << 63
    assert msgspec.json.decode(msgspec.json.encode(ledger.snapshot()))["bytes"] > 0
