"""What the side-by-side run says of its figures."""

from collections import Counter
from pathlib import Path

import pytest

from bench import aims, report
from bench.aims import Aim
from bench.documents import Run, load, save
from bench.figures import CPU, RATE, Section, attempt
from bench.parts import growth
from bench.report import cell, line, put_into, ratio, table
from bench.servers import BenchError


def section(**servers: list[float]) -> Section:
    made = Section("row", "A row", "How it was asked.", (CPU, RATE))
    for name, rounds in servers.items():
        for cpu in rounds:
            made.add(name, {CPU: cpu, RATE: 1000.0})
    return made


def test_a_cell_is_the_median_with_the_least_and_the_most() -> None:
    assert cell([12.0, 30.0, 11.0], 1) == "12.0 (11.0–30.0)"
    assert cell([1234.5], 0) == "1,234"
    assert cell([], 0) == "–"


def test_the_ratio_is_of_medians_to_the_reference_of_the_same_run() -> None:
    made = section(prefork=[100], other=[5, 10, 99])
    assert ratio(made, "other", CPU) == "0.10"


def test_one_wrong_answer_in_any_round_leaves_a_server_without_figures() -> None:
    made = section(prefork=[5, 5, 5])
    made.add("prefork", {CPU: 5.0}, Counter(reset=3, short=1))
    shown = line(made, "prefork", made.servers["prefork"])
    assert "invalid: 3 reset, 1 short" in shown
    assert "5.0" not in shown
    assert made.middle("prefork", CPU) is None
    assert not made.valid


def test_nothing_is_compared_with_an_invalid_reference() -> None:
    made = section(prefork=[100], other=[5])
    made.of("prefork").errors["status"] += 1
    assert ratio(made, "other", CPU) == "–"


def test_what_stops_a_server_stands_in_its_line_and_it_is_not_tried_again() -> None:
    made = section(prefork=[5])
    tries = []

    def fails() -> None:
        tries.append(1)
        raise BenchError("other did not start: it said\nno | such thing")

    attempt([made], "other", fails)
    attempt([made], "other", fails)
    assert len(tries) == 1
    assert "| other | no / such thing | – | – |" in table(made)
    assert not made.valid


def test_all_lines_of_a_table_have_as_many_cells() -> None:
    made = section(prefork=[5], other=[6])
    made.of("third").problem = "gone"
    assert len({one.count("|") for one in table(made).splitlines()}) == 1


@pytest.mark.parametrize(
    ("aim", "shown"),
    [
        (Aim("a", "row", 1.0, "other"), "| a | ≤ 1 | 0.5 | met |"),
        (Aim("a", "row", 0.4, "other", starred=True), "| a * | ≤ 0.4 | 0.5 | **missed**, 1.25"),
        (Aim("a", "row", 6.0), "| a | ≤ 6 | 5 | met |"),
        (Aim("a", "row", 10.0, least=False), "| a | ≥ 10 | 5 | **missed**, 2.00"),
        (Aim("a", "row", 1.0, "nobody"), "| a | ≤ 1 | – | no valid figure |"),
        (Aim("a", "row", 1.0, "row/other"), "| a | ≤ 1 | 0.5 | met |"),
    ],
)
def test_an_aim_is_judged_by_medians(monkeypatch: pytest.MonkeyPatch, aim: Aim, shown: str) -> None:
    monkeypatch.setattr(report, "AIMS", (aim,))
    assert shown in report.aims({"row": section(prefork=[5], other=[10])})


def test_the_aims_speak_of_what_is_measured() -> None:
    keys = {aim.section for aim in aims.AIMS}
    assert {"keepalive-32", "close-32", "neighbour-sleep", "balance", "idle-server"} <= keys
    assert sum(aim.starred for aim in aims.AIMS) >= 10


def test_the_headline_has_the_medians_of_each_server() -> None:
    kept = Section("keepalive-32", "A row", "How it was asked.", (CPU, RATE))
    for name, cpu in (("prefork", 9.0), ("gunicorn gthread, 8 threads", 206.0)):
        kept.add(name, {CPU: cpu})
    kept.of("bjoern").problem = "gone"
    head, _, *rows = report.headline({"keepalive-32": kept}).splitlines()
    assert head.partition(" | ")[2] == (
        "prefork | bjoern | granian | uWSGI | gunicorn gthread | gunicorn sync | nginx |"
    )
    assert rows == ["| hello that repeats, kept connections | 9.0 | – | – | – | 206.0 | – | – |"]


def test_a_line_is_not_compared_with_another_at_its_first_point() -> None:
    made = section(prefork=[10.0], other=[20.0])
    made.axis, made.points = "bytes", (1.0, 2.0)
    made.of("third").problem = "gone"
    assert table(made).splitlines()[0] == "| server | CPU a request, us | requests a second |"
    assert line(made, "other", made.servers["other"]) == "| other | 20.0 | 1,000 |"
    assert len({one.count("|") for one in table(made).splitlines()}) == 1


def test_the_growth_of_a_line_is_that_of_its_last_step() -> None:
    rows = []
    for point, cost in ((1, 5.0), (10, 6.0), (100, 60.0)):
        each = Section("row", "A row", "", (CPU,))
        each.add("prefork", {CPU: cost}, Counter(reset=1))
        rows.append((point, each))
    joined = growth.joined("g", "Growth", "About.", "bytes", rows)
    figures = joined.servers["prefork"]
    assert figures.values == {"1": [5.0], "10": [6.0], "100": [60.0], "power": [1.0]}
    assert figures.errors == Counter(reset=3)


def test_the_last_step_of_a_line_is_large_enough_to_tell_its_growth() -> None:
    for points in (growth.CONNECTIONS, growth.FIELDS, growth.BODIES, growth.WORKERS):
        assert points[-1] >= 2 * points[-2]


def test_the_document_has_a_table_and_a_chart_for_each_section() -> None:
    text = Run("About.", "- a machine", [section(prefork=[10])]).text(charts=True)
    assert "| prefork | 10.0 | 1.00 | 1,000 |" in text
    assert "](row.svg)" in text
    assert "- a machine" in text


def test_a_run_is_the_same_after_it_was_saved(tmp_path: Path) -> None:
    made = section(prefork=[10.5, 11])
    made.of("other").errors["reset"] += 2
    run = Run("About.", "- a machine", [made])
    save(run, tmp_path)
    assert load(tmp_path) == run


def test_figures_are_put_where_the_last_ones_were(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    place = "<!-- it: written by `make bench` -->\nfirst\n<!-- end of it -->\n"
    path.write_text(f"Words.\n{place}More words.\n")
    put_into(path, "it", r"second \1")
    assert path.read_text().split("\n")[0] == "Words."
    assert "first" not in path.read_text()
    assert r"second \1" in path.read_text()
    assert path.read_text().endswith("More words.\n")


def test_a_document_without_the_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "document.md"
    path.write_text("Words.\n")
    with pytest.raises(ValueError, match="has 0 places for it"):
        put_into(path, "it", "text")
    assert path.read_text() == "Words.\n"
