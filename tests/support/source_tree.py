"""What a build of prefork needs of a checkout, in a directory of its own."""

import shutil
from pathlib import Path

from tests.support.commands import ROOT


def copy_of_source(place: Path) -> Path:
    """Makes `place`, and returns it."""
    place.mkdir()
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("prefork", "conf", "share"):
        shutil.copytree(ROOT / name, place / name, ignore=ignored, symlinks=True)
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, place)
    return place
