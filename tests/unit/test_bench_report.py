"""What the side-by-side run says of its figures."""

from collections import Counter

import pytest

from bench import report
from bench.report import ROWS, Round, document, line, ratio, spread


def a_round(cpu_us: float, **errors: int) -> Round:
    return Round(
        cpu_us=cpu_us,
        per_second=1000.0,
        p50_us=10.0,
        p99_us=20.0,
        client_us=5.0,
        connections=32,
        errors=Counter(errors),
    )


def test_a_cell_is_the_median_with_the_least_and_the_most() -> None:
    rounds = [a_round(cpu) for cpu in (12.0, 30.0, 11.0)]
    assert spread(rounds, lambda one: one.cpu_us, 1) == "12.0 (11.0–30.0)"


def test_the_ratio_is_of_medians_to_the_reference_of_the_same_run() -> None:
    assert ratio([a_round(5), a_round(10), a_round(99)], [a_round(100)]) == "0.100"


def test_one_wrong_answer_in_any_round_leaves_a_server_without_figures() -> None:
    shown = line("some", [a_round(5), a_round(5, reset=2), a_round(5, reset=1, short=1)], [])
    assert "invalid: 3 reset, 1 short" in shown
    assert "5.0" not in shown


def test_nothing_is_compared_with_an_invalid_reference() -> None:
    assert ratio([a_round(5)], [a_round(100, status=1)]) == "–"


def test_the_document_has_a_line_for_each_server_in_each_row(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(report, "machine", lambda: "- a machine")
    tables = {
        name: {"prefork": [a_round(10)], row.reference: [a_round(200)]}
        for name, row in ROWS.items()
    }
    text = document(tables, rounds=1, connections=32, requests=20_000)
    lines = [one for one in text.splitlines() if one.startswith("| prefork | 10.0")]
    assert len(lines) == 2
    assert all("| 0.050 |" in one for one in lines)
    assert "1 interleaved rounds of 20,000 requests" in text
    assert "- a machine" in text
