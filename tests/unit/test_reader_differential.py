"""Our reading of HTTP against that of others, and against itself in pieces.

`python -m tests.fuzz.http` does the same for as long as wanted.
"""

from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prefork.http.limits import RequestLimits
from tests.fuzz import parsers
from tests.fuzz.cases import CASES
from tests.fuzz.http import SMALL, Report, check
from tests.fuzz.inputs import NEXT, SEEDS, pick
from tests.fuzz.known import KNOWN
from tests.fuzz.parsers import PEERS, Outcome, Read, only_we_refuse, ours
from tests.unit.reading import LIMITS, pieces_of, reading
from tests.unit.real_requests import REQUESTS


def assert_read_alike(data: bytes, seed: int = 0) -> Report:
    report = Report()
    check(data, Random(seed), report)
    assert not report.failures, report.failures[0]
    return report


@given(st.integers(0, 1 << 32))
@settings(max_examples=400, deadline=None)
def test_what_we_take_is_read_alike_by_others_and_in_pieces(seed: int) -> None:
    rng = Random(seed)
    for _ in range(5):
        assert_read_alike(pick(rng), seed)


def test_so_are_the_inputs_that_others_are_made_of() -> None:
    explained: set[str] = set()
    taken = 0
    for data in (*SEEDS, *CASES.values()):
        report = assert_read_alike(data + NEXT)
        explained.update(report.explained)
        taken += report.requests
    # A difference that is gone is no difference any more.
    assert {why.partition(": ")[2] for why in explained} == {known.why for known in KNOWN}
    assert taken > len(SEEDS)


@pytest.mark.parametrize("field", ["method", "target", "fields", "body", "end"])
def test_a_reading_that_is_wrong_is_noticed(field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(data: bytes) -> Outcome:
        read = ours(data)
        if not isinstance(read, Read):
            return read
        value = getattr(read, field)
        if isinstance(value, int):
            changed: Any = value + 1
        elif isinstance(value, dict):
            changed = {**value, "HTTP_X": ""}
        else:
            changed = value + b"x"
        return read._replace(**{field: changed})

    monkeypatch.setattr(parsers, "ours", wrong)
    report = Report()
    check(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx" + NEXT, Random(0), report)
    assert len(report.failures) >= 3


@pytest.mark.parametrize("limits", [LIMITS, SMALL], ids=["large limits", "small limits"])
@pytest.mark.parametrize("name", CASES)
def test_a_case_is_read_the_same_wherever_it_is_cut(name: str, limits: RequestLimits) -> None:
    data = CASES[name] + NEXT
    whole = reading([data], limits)
    assert reading(pieces_of(data, 1), limits) == whole
    for place in range(1, min(len(data), 400)):
        assert reading([data[:place], data[place:]], limits) == whole, place
        assert reading([data[:-place], data[-place:]], limits) == whole, -place


@pytest.mark.parametrize("size", [0, 1, 7])
@pytest.mark.parametrize("name", REQUESTS)
def test_what_clients_send_is_served(name: str, size: int) -> None:
    stream = REQUESTS[name] + NEXT
    found = reading(pieces_of(stream, size or len(stream)))
    assert found.status == 0, found.reason
    kept = found.requests[0][4]
    assert len(found.requests) == (2 if kept else 1)
    if kept:
        assert found.requests[1][2] == b"GET /next"


@pytest.mark.parametrize("name", REQUESTS)
def test_what_clients_send_is_read_as_others_read_it(name: str) -> None:
    data = REQUESTS[name]
    read = ours(data + NEXT)
    assert isinstance(read, Read)
    method, target, version = data.partition(b"\r\n")[0].split(b" ")
    assert (read.method, read.target, read.version.encode()) == (method, target, version)
    assert only_we_refuse(data) == ""
    # Not each of them takes each method, or reads a body behind Upgrade.
    assert any(peer(data + NEXT, read.end) == read for peer in PEERS.values()) or (b"://" in target)
