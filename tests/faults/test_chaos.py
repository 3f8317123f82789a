"""The account that `make chaos` gives: of a short run, and of one that it must not let pass."""

import contextlib
import os
import signal
from collections.abc import Iterable

import pytest

from tests.faults import chaos


def test_the_same_seed_gives_the_same_faults() -> None:
    first = chaos.schedule(7, 60)
    assert first == chaos.schedule(7, 60)
    assert first != chaos.schedule(8, 60)
    assert {fault.name for fault in first} == set(chaos.ROWS)
    assert all(hasattr(chaos.Faults, name) for name in chaos.ROWS)
    assert first[-1].at < 60


def test_a_short_run_loses_nothing_but_what_killed_workers_held(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = chaos.main(["--seconds", "3", "--seed", "5"])
    head, columns, *rows = capsys.readouterr().out.splitlines()
    assert status == 0, rows
    faults = chaos.schedule(5, 3)
    assert head == f"seed 5: {len(faults)} faults in 3 s"
    assert columns.split() == [
        "fault",
        "times",
        "slowest,",
        "s",
        "answers",
        "cut",
        "off",
        "failures",
    ]
    table = {name: numbers for name, *numbers in map(str.split, rows)}
    for name in {fault.name for fault in faults}:
        assert int(table[name][0]) == sum(fault.name == name for fault in faults)
    times, _, answers, _, failures = table["all"]
    assert (int(times), int(failures)) == (len(faults), 0)
    assert int(answers) > 200


def test_a_lost_connection_without_an_explanation_is_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Workers die and the account does not know: so it would be with a fault of the server's."""

    def kill(self: chaos.Faults, victims: Iterable[int]) -> None:
        for pid in victims:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    monkeypatch.setattr(chaos.Faults, "_kill", kill)
    monkeypatch.setattr(chaos, "ROWS", {"kill_all": 1})
    monkeypatch.setattr(chaos, "INTERVAL", 0.3)
    assert chaos.main(["--seconds", "1", "--seed", "1"]) == 1
    output = capsys.readouterr().out
    assert "problem: " in output
    assert int(output.partition("\nall ")[2].split()[4]) > 0
