"""What the side-by-side run says of its figures."""

import contextlib
import shutil
from collections import Counter
from pathlib import Path

import pytest

from bench import aims, report
from bench.aims import Aim
from bench.closed_loop import Row
from bench.documents import COMPILED, WHOLE, Run, load, save, write
from bench.figures import CPU, RATE, Section, attempt
from bench.parts import asgi, compiled, growth, websocket
from bench.report import cell, line, put_into, ratio, table
from bench.servers import ROOT, BenchError, Server

GENERATED = ("README.md", "docs/performance.md", "docs/performance/figures.md")


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


def test_what_stops_a_server_stands_in_its_line_and_it_is_not_tried_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = section(prefork=[5])
    tries = []

    def fails() -> None:
        tries.append(1)
        raise BenchError("other did not start: it said\nno | such thing")

    attempt([made], "other", fails)
    attempt([made], "other", fails)
    assert len(tries) == 1
    assert capsys.readouterr().err == "other did not start: it said\nno | such thing\n"
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
    save(run, tmp_path / "run.json")
    assert load(tmp_path / "run.json") == run


def test_a_run_of_the_compiled_build_changes_its_own_tables_alone(tmp_path: Path) -> None:
    figures = tmp_path / "docs/performance"
    figures.mkdir(parents=True)
    for name in GENERATED:
        shutil.copy(ROOT / name, tmp_path / name)
    save(Run("About.", "- a machine", [section(prefork=[10])]), figures / WHOLE)
    write(tmp_path)
    before = {path: path.read_text() for path in tmp_path.rglob("*.md")}
    made = Section("compiled-asgi-raw-32", "ASGI, raw", "", (CPU,), compiled.COMPILED)
    for server, cpu in ((compiled.PURE, 50.0), (compiled.COMPILED, 40.0), ("uvicorn", 100.0)):
        made.add(server, {CPU: cpu})
    save(Run("It was compiled.", "- another machine", [made]), figures / COMPILED)
    write(tmp_path)
    after = {path: path.read_text() for path in before}
    readme, summary, pages = (tmp_path / name for name in GENERATED)
    assert after[readme] == before[readme]
    aim = "| compiled: ASGI, raw, 32: CPU ÷"
    assert set(after[summary].splitlines()) - set(before[summary].splitlines()) >= {
        "It was compiled. The aims are [below](#aims).",
        "| ASGI, raw | 40.0 | 50.0 | – | 100.0 | – | 0.80 |",
        f"{aim} uvicorn's | ≤ 0.45 | 0.4 | met |",
        f"{aim} granian's | ≤ 0.85 | – | no valid figure |",
    }
    assert after[pages].startswith(before[pages].partition("## Aims")[0])
    rest = after[pages].partition("## The compiled build")[2]
    assert "- another machine\n\n### ASGI, raw" in rest
    assert "| prefork, pure Python | 50.0 | 1.25 |" in rest


def test_the_compiled_build_is_measured_on_each_row_that_has_an_aim(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def compare(servers: list[Server], rows: list[Row], rounds: int, seconds: float) -> None:
        messages(servers, {row.section.key: row.section for row in rows}, rounds)

    def messages(servers: list[Server], sections: dict[str, Section], rounds: int) -> None:
        for each in sections.values():
            for server in servers:
                each.add(server.name, {each.measures[0]: 1.0})

    monkeypatch.setattr(compiled, "build", lambda: None)
    monkeypatch.setattr(asgi, "backend", contextlib.nullcontext)
    monkeypatch.setattr(compiled, "compare", compare)
    monkeypatch.setattr(websocket, "compare", messages)
    measured = {each.key: each for each in compiled.measure(True)}
    ours = [aim for aim in aims.AIMS if aim.ours == compiled.COMPILED]
    assert {aim.section for aim in ours} <= measured.keys()
    assert [aim.value(measured) for aim in ours] == [1.0] * len(ours)
    builds = report.builds(list(measured.values())).splitlines()[2:]
    assert all(row.endswith("| 1.00 |") for row in builds)


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
