"""The files of share/ are current: man pages and completion.

    PREFORK_WRITE_DOCS=1 python -m pytest tests/unit/test_share.py

writes them anew.
"""

import os
import re
import subprocess
import tomllib
from importlib import metadata
from pathlib import Path

import click
import pytest

from prefork.cli.group import group
from prefork.config import KEYS
from tests.support.programs import find, run
from tools import man_pages, share

ROOT = Path(__file__).parents[2]
LOCKED_CLICK = re.search(r"^click==(\S+)", (ROOT / "requirements/serve.txt").read_text(), re.M)


@pytest.mark.parametrize("name", share.files())
def test_it_is_what_the_code_says(name: str) -> None:
    if os.environ.get("PREFORK_WRITE_DOCS") == "1":
        share.write()
    assert LOCKED_CLICK is not None
    if name.startswith("share/man") or metadata.version("click") == LOCKED_CLICK[1]:
        assert (ROOT / name).read_text() == share.files()[name], (
            "run this with PREFORK_WRITE_DOCS=1"
        )
    else:
        pytest.skip("the scripts for completion are those of the locked click")


def test_there_is_no_other_file() -> None:
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "share").rglob("*") if path.is_file()}
    assert found == set(share.files())


def test_an_installation_gets_each_file() -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["data-files"]
    assert {name for names in data.values() for name in names} == set(share.files())
    for directory, names in data.items():
        assert all(str(Path(name).parent) == directory for name in names)


@pytest.mark.parametrize("page", ["man1/prefork.1", "man5/prefork.toml.5"])
def test_a_man_page_has_no_mistake_in_its_markup(page: str) -> None:
    done = run("groff", "-man", "-Tutf8", "-ww", "-b", ROOT / "share/man" / page)
    assert done.stderr == ""


def _rendered(page: str) -> str:
    # Lines so long that no word is broken in two.
    done = run("groff", "-man", "-Tascii", "-rLL=400n", "-P-c", ROOT / "share/man" / page)
    return re.sub(r".\x08", "", done.stdout)


def test_the_page_of_commands_has_each_command_and_option() -> None:
    page = _rendered("man1/prefork.1")
    context = click.Context(group, info_name="prefork")
    for name in group.list_commands(context):
        assert f"prefork {name}" in page
        command = group.get_command(context, name)
        assert command is not None
        for param in command.params:
            if isinstance(param, click.Option):
                assert all(re.search(rf"\s{re.escape(option)}\b", page) for option in param.opts)
    for signal in ("TERM", "INT, QUIT", "HUP", "USR1", "USR2", "TTIN, TTOU", "WINCH"):
        assert re.search(rf"^ +{signal}\b", page, re.MULTILINE)


def test_the_page_of_the_configuration_has_each_key() -> None:
    page = _rendered("man5/prefork.toml.5")
    # 7 columns, or 5 from groff 1.24 on.
    assert re.findall(r"^ {5,7}([a-z_0-9]+): ", page, re.MULTILINE) == [
        key.key for key in KEYS.values()
    ]


def test_text_is_not_taken_for_markup() -> None:
    text = ".so /etc/passwd\n'x\n\\fBbold\\fP a-b"
    source = f".TH X 1\n.SH NAME\nx\n.nf\n{man_pages.escape(text)}\n"
    done = subprocess.run(
        [find("groff"), "-man", "-Tascii", "-P-c"],
        input=source, capture_output=True, text=True, check=True,
    )  # fmt: skip
    for line in text.splitlines():
        assert line in done.stdout
