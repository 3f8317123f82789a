"""A worker without its threads is never ready: its boot fails, and an old one serves on."""

from pathlib import Path

import pytest

from tests.support.changing_app import rewrite
from tests.support.commands import ROOT
from tests.support.server import Start

APP = "tests.apps.no_threads:app"


@pytest.mark.parametrize("threads", [1, 4])
@pytest.mark.parametrize("way", ["workers.preload=true", "workers.handover=false"])
def test_a_server_whose_workers_get_no_threads_does_not_start(
    start: Start, way: str, threads: int
) -> None:
    server = start(APP, "--workers", "2", "--threads", str(threads), "--set", way)
    server.expected_errors.add("first boot failed")
    assert server.wait_exit() == 3
    assert "cannot have its threads" in server.wait("first boot failed")["traceback"]
    assert not server.find("worker ready")


def test_a_reload_whose_workers_get_no_threads_fails_and_the_old_ones_serve_on(
    start: Start, tmp_path: Path
) -> None:
    site = tmp_path / "site.toml"

    def configure(app: str) -> None:
        rewrite(site, f'[server]\napp = "{app}"\nchdir = "{ROOT}"\n[workers]\ncount = 2\n')

    configure("tests.apps.basic:app")
    server = start(str(site)).wait_ready(2)
    server.expected_errors.add("reload failed")
    configure(APP)
    assert "cannot have its threads" in server.refusal("reload")
    assert not server.find("worker ready", generation=2)
    assert server.get("/")[0] == 200
