"""The memory and respawn benches, with our own server in the place of each peer."""

import json
import os
import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest

from bench import apps, memory, respawn, run
from bench.servers import Server, compile_programs, prefork
from tests.system.server import Start

HELLO = (*prefork("bench.hello:app"), "--workers", "2")
needs_cc = pytest.mark.skipif(shutil.which("cc") is None, reason="needs a C compiler")


@pytest.fixture(autouse=True)
def without_peers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for bench in (memory, respawn):
        monkeypatch.setattr(bench, "prepare", compile_programs)
        monkeypatch.setattr(bench, "machine", lambda: "- a machine")
    monkeypatch.setattr(run, "RESULTS", tmp_path / "results")


@needs_cc
def test_memory_is_that_of_the_whole_tree(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(memory, "WORKERS", 2)
    monkeypatch.setattr(
        memory, "servers", lambda: [Server("gunicorn", HELLO), Server("prefork", HELLO)]
    )
    assert memory.main(["--rounds", "2", "--requests", "50", "--write"]) == 0
    text = capsys.readouterr().out
    sizes = [line.split(" | ")[1] for line in text.splitlines() if line.startswith("| gunicorn")]
    assert 10 < float(sizes[0].split()[0]) < 500, "megabytes of three Python processes"
    assert "| gunicorn | " in text
    assert "- a machine" in text
    (kept,) = (tmp_path / "results").iterdir()
    assert kept.name.endswith("-memory.md")
    assert kept.read_text() == text[: len(kept.read_text())]


@needs_cc
def test_memory_of_a_server_that_lacks_workers_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(memory, "servers", lambda: [Server("gunicorn", HELLO)])
    assert memory.main(["--rounds", "1", "--requests", "50"]) == 1
    assert "gunicorn: only 3 processes" in capsys.readouterr().err


@needs_cc
def test_each_kill_is_answered_by_another_worker(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*prefork("bench.apps:lone()"), "--workers", "1")
    monkeypatch.setattr(respawn, "servers", lambda app: [Server("gunicorn", command, apps.PROBE)])
    assert respawn.main(["--kills", "3"]) == 0
    output = capsys.readouterr().out
    assert "killed 3 times" in output
    assert output.count("| gunicorn | ") == 2
    assert output.count("| 1.000 |") == 2


@needs_cc
def test_a_worker_that_outlives_its_kill_is_no_figure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = (*prefork("bench.apps:lone()"), "--workers", "1")
    monkeypatch.setattr(respawn, "servers", lambda app: [Server("gunicorn", command, apps.PROBE)])
    monkeypatch.setattr(respawn, "os", SimpleNamespace(kill=lambda pid, number: None))
    assert respawn.main(["--kills", "3"]) == 1
    assert "answers after its death" in capsys.readouterr().err


@pytest.mark.parametrize("app", respawn.APPS)
def test_the_applications_name_their_worker(start: Start, app: str) -> None:
    server = start(f"bench.apps:{app}()", "--workers", "1").wait_ready(1)
    (worker,) = (event["pid"] for event in server.find("worker ready"))
    assert respawn.ask(server.port) == worker
    assert server.get(apps.PROBE) == (200, b"hello world\n")


def test_the_objects_are_of_the_size_that_they_are_said_to_be(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = start("bench.apps:objects()", "--workers", "1").wait_ready(1)
    assert server.get("/") == (200, b"hello world\n")
    status = json.loads(server.command("status", "--json").stdout)
    pages = Path(f"/proc/{status['workers'][0]['pid']}/statm").read_text().split()[1]
    size = int(pages) * os.sysconf("SC_PAGE_SIZE") / 1e6
    assert apps.MEGABYTES < size < 2.5 * apps.MEGABYTES
