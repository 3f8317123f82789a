"""The quickstarts of README.md, as they are written there."""

import os
import re
import shlex
import socket
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from click import Context

from prefork.cli.group import group
from prefork.config import KEYS
from tests.support.commands import ROOT
from tests.support.server import Server, Start
from tests.support.sockets import read_all
from tests.support.waiting import PATIENCE

README = (ROOT / "README.md").read_text()
QUICKSTARTS = dict(
    re.findall(r"<!-- quickstart: ([\w ]+) -->\n```console\n(.*?)```", README, re.DOTALL)
)
ANSWERS = {
    "Django": b"The install worked successfully",
    "Flask": b"Hello",
    "FastAPI": b'{"message":"Hello"}',
    "plain WSGI": b"Hello",
    "static files": b"<h1>Hello</h1>",
}


def serve(name: str, start: Start, place: Path) -> Server:
    """Runs the commands, except pip; the last one serves, on a free port."""
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    lines = [line.removeprefix("$ ") for line in QUICKSTARTS[name].splitlines()]
    assert len(lines) <= 4
    *before, last = [line for line in lines if not line.startswith("pip install ")]
    for line in before:
        if line.startswith("cd "):
            place = place / line.removeprefix("cd ")
        else:
            shell = ["sh", "-c", line]
            subprocess.run(shell, cwd=place, env=os.environ | environ, check=True, timeout=PATIENCE)
    prefork, command, *arguments = shlex.split(last)
    assert (prefork, command) == ("prefork", "serve")
    return start(*arguments, "--workers", "1", cwd=place).wait_ready(1)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_quickstart_serves_the_page(name: str, start: Start, tmp_path: Path) -> None:
    status, page = serve(name, start, tmp_path).get("/")
    assert status == 200
    assert ANSWERS[name] in page


def test_the_quickstart_for_tcp_echoes(start: Start, tmp_path: Path) -> None:
    with serve("TCP", start, tmp_path).connect() as client:
        client.sendall(b"hello")
        client.shutdown(socket.SHUT_WR)
        assert read_all(client) == b"hello"


def test_there_is_no_other_quickstart() -> None:
    assert set(QUICKSTARTS) == {*ANSWERS, "TCP"}


def test_the_keys_before_production_exist() -> None:
    chapter = README.partition("## Before production\n")[2].partition("\n## ")[0]
    assert len(re.findall(r"^\d+\. ", chapter, re.MULTILINE)) == 10
    for name in re.findall(r"`([a-z]+\.[a-z_]+)`", chapter):
        assert name in KEYS


def test_each_command_exists_and_has_these_options() -> None:
    context = Context(group)
    assert set(re.findall(r"`prefork ([a-z]+)", README)) <= set(group.list_commands(context))
    lines = re.findall(r"^\$ prefork (.+)", README, re.MULTILINE)
    assert len(lines) > 10
    for line in lines:
        name, *arguments = shlex.split(line, comments=True)
        command = group.get_command(context, name)
        assert command is not None, line
        command.make_context(name, arguments)


def test_the_file_has_keys_that_exist() -> None:
    (block,) = re.findall(r"```toml\n(.*?)```", README, re.DOTALL)
    sections = tomllib.loads(block)
    assert {f"{name}.{key}" for name, keys in sections.items() for key in keys} <= set(KEYS)
