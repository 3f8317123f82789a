"""The programs that the files in deploy/ are for."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.waiting import PATIENCE

DEPLOY = ROOT / "deploy"

_PATH = os.pathsep.join(
    (str(Path(sys.executable).parent), os.environ.get("PATH", ""), "/usr/sbin", "/sbin")
)


def find(name: str) -> str:
    """The path of a program; the test is skipped if it is not installed (but not in CI)."""
    path = shutil.which(name, path=_PATH)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def run(
    name: str,
    *arguments: str | Path,
    environ: Mapping[str, str] | None = None,
    patience: float = PATIENCE,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end, for `patience` seconds at most; it must exit with 0."""
    done = subprocess.run(
        [find(name), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=patience,
        env={**os.environ, **(environ or {})},
    )
    assert done.returncode == 0, f"{name}: {done.stdout}\n{done.stderr}"
    return done
