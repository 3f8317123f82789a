"""`prefork` as a command: the one of this tree, run by this interpreter."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import prefork
from tests.support.waiting import PATIENCE

ROOT = Path(__file__).resolve().parents[2]

PACKAGE = Path(prefork.__file__).parent
"""In the checkout, or where the compiled build is installed."""


def prefork_command(*args: str | Path) -> list[str]:
    """The command line of `prefork ARGS`."""
    return [sys.executable, "-m", "prefork", *map(str, args)]


def run_prefork(
    *args: str | Path, cwd: Path = ROOT, env: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Runs `prefork ARGS` to its end, without a standard input."""
    return subprocess.run(
        prefork_command(*args),
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT), **(env or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE * 2,
    )
