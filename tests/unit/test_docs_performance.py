"""The documents about performance show the figures of the last run, and name files that exist.

    PREFORK_WRITE_DOCS=1 python -m pytest tests/unit/test_docs_performance.py

writes what is generated anew, from docs/performance/*.json.
"""

import os
import re
import shutil
from pathlib import Path

import pytest

from bench import documents

ROOT = Path(__file__).parents[2]
FIGURES = ROOT / "docs" / "performance"
GENERATED = ("README.md", "docs/performance.md", "docs/performance/figures.md")
PAGES = ("docs/performance.md", "docs/performance-design.md")


def test_the_documents_show_the_figures_of_the_last_run(tmp_path: Path) -> None:
    if os.environ.get("PREFORK_WRITE_DOCS") == "1":
        documents.write(ROOT)
    (tmp_path / "docs" / "performance").mkdir(parents=True)
    saved = [f"docs/performance/{path.name}" for path in FIGURES.glob("*.json")]
    for name in (*GENERATED, *saved):
        shutil.copy(ROOT / name, tmp_path / name)
    documents.write(tmp_path)
    for name in GENERATED:
        assert (ROOT / name).read_text() == (tmp_path / name).read_text(), name


def test_each_section_has_its_chart() -> None:
    runs = [documents.load(path) for path in FIGURES.glob("*.json")]
    charts = {path.stem for path in FIGURES.glob("*.svg")}
    assert charts == {key for run in runs for key in run.by_key}


@pytest.mark.parametrize("page", PAGES)
def test_each_file_that_is_named_exists(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    for name in re.findall(r"`([\w/]+\.py)`", text):
        assert (ROOT / "prefork" / name).is_file(), name
    for target in re.findall(r"\]\(([\w/.-]+)", text):
        assert (ROOT / "docs" / target).exists(), target
