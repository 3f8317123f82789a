"""pip, where there is no compiler."""

import os
import subprocess
import sys
from pathlib import Path

from prefork.compiled import RECORD
from tests.support.source_tree import copy_of_source


def test_a_source_is_installed_as_pure_python_without_a_compiler(tmp_path: Path) -> None:
    source, site, programs = (
        copy_of_source(tmp_path / "source"),
        tmp_path / "site",
        tmp_path / "bin",
    )
    programs.mkdir()
    given = {name: value for name, value in os.environ.items() if name != "PREFORK_COMPILE"}
    environ = {**given, "PATH": str(programs), "CC": "no-compiler", "PYTHONPATH": str(site)}
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "--no-deps"]
    subprocess.run(
        [*pip, "--no-build-isolation", "--target", str(site), str(source)],
        env=environ,
        check=True,
        capture_output=True,
    )
    assert not [*site.rglob("*.so"), *site.rglob(RECORD)]
    version = [sys.executable, "-P", "-m", "prefork", "--version"]
    done = subprocess.run(version, env=environ, cwd=tmp_path, capture_output=True, text=True)
    assert "\nBuild: pure Python\n" in done.stdout
