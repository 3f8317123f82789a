"""A copy of a test application that is changed while it is served."""

import shutil
from pathlib import Path

from tests.support.commands import ROOT


def copy_app(directory: Path, module: str = "version_app") -> Path:
    """A copy of `tests.apps.MODULE` as `changing.py`, for `changing:app` in that directory.

    The versions of one test must differ in length: Python knows a compiled module by the second
    and the size of its source (PEP 3147).
    """
    directory.mkdir(exist_ok=True)
    return Path(shutil.copy(ROOT / "tests/apps" / f"{module}.py", directory / "changing.py"))


def set_version(app: Path, version: str, before: str = "", after: str = "") -> None:
    """The copy of `version_app` answers another version; `before` and `after` stand around its
    code."""
    source = (ROOT / "tests/apps/version_app.py").read_text()
    rewrite(app, before + source.replace('"one"', repr(version)) + after)


def rewrite(path: Path, text: str) -> None:
    """In one step: a reader sees the old or the new."""
    draft = path.with_suffix(".draft")
    draft.write_text(text)
    draft.rename(path)
