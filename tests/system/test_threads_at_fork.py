"""Threads that others start in the master are logged before it forks."""

from pathlib import Path

from tests.support.commands import ROOT
from tests.support.server import Start


def test_threads_in_the_master_are_named(start: Start, tmp_path: Path) -> None:
    """As tracers do it: from sitecustomize, in front of `prefork serve`."""
    (tmp_path / "sitecustomize.py").write_text(
        "import sys, threading\n"
        "if 'serve' in sys.orig_argv:\n"
        "    for name in ('tracer', 'exporter'):\n"
        "        wait = threading.Event().wait\n"
        "        threading.Thread(target=wait, name=name, daemon=True).start()\n"
    )
    server = start(
        *("tests.apps.basic:app", "--workers", "1"), env={"PYTHONPATH": f"{tmp_path}:{ROOT}"}
    )
    event = server.wait("threads before fork")
    assert (event["level"], event["threads"]) == ("warning", "exporter, tracer")
    server.wait_ready(1)


def test_a_master_alone_is_not_warned_of(start: Start) -> None:
    server = start("tests.apps.basic:app", "--workers", "1").wait_ready(1)
    assert not server.find("threads before fork")
