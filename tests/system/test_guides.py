"""The guides of docs/guides for frameworks do what they say: their commands and files, as written.

A block of commands runs as one script, unless "<!-- skipped: REASON -->" stands before it. A block
with a title is a file, or what is added to it. `prefork serve` at the end of a block starts the
server, and each "<!-- answers: PATH STATUS [https] -->" until the next block is a request to it.

Pyramid is not among what is locked for the tests, since it needs an old setuptools; its guide runs
where Pyramid is installed.
"""

import os
import re
import shlex
import ssl
import subprocess
import sys
from http.client import HTTPConnection, HTTPSConnection
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE

STEP = re.compile(
    r"(?P<skipped><!-- skipped: [^\n]+ -->\n)?"
    r'```(?P<kind>\w+)(?: title="(?P<file>[^",]+)(?P<append>, at the end)?")?\n(?P<block>.*?)^```'
    r"|<!-- answers: (?P<path>\S+) (?P<status>\d+)(?P<https> https)? -->",
    re.DOTALL | re.MULTILINE,
)


def script(block: str) -> list[str]:
    """The commands of a block, without prompts; a line with "> " goes on with the one before."""
    lines = re.sub(r"\\\n> ?", " ", block).splitlines()
    return [line.removeprefix("$ ") for line in lines if line.startswith("$ ")]


def ask(server: Server, path: str, https: bool) -> int:
    """The status of the answer, for the host that the guides allow; a redirect is not followed."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    connection = (
        HTTPSConnection("127.0.0.1", server.port, timeout=PATIENCE, context=context)
        if https
        else HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)
    )
    connection.request("GET", path, headers={"Host": "localhost"})
    status = connection.getresponse().status
    connection.close()
    return status


@pytest.mark.parametrize("name", ["django", "fastapi", "flask", "pyramid"])
def test_a_guide_does_what_it_says(name: str, start: Start, tmp_path: Path) -> None:
    pytest.importorskip(name, reason=f"does not apply: {name} needs setuptools < 82")
    environ = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    server: Server | None = None
    asked = 0
    for step in STEP.finditer((ROOT / "docs" / "guides" / f"{name}.md").read_text()):
        if step["path"]:
            assert server is not None
            assert ask(server, step["path"], bool(step["https"])) == int(step["status"])
            asked += 1
        elif step["file"] and Path(step["file"]).name != "production.py":
            file = tmp_path / step["file"]
            file.parent.mkdir(exist_ok=True)
            before = file.read_text() if step["append"] else ""
            file.write_text(f"{before}\n{step['block']}")
        elif step["kind"] == "console" and not step["skipped"]:
            commands = script(step["block"])
            serve = commands.pop() if commands[-1].startswith("prefork serve") else ""
            subprocess.run(
                ["sh", "-ec", "\n".join(commands)],
                cwd=tmp_path,
                env=os.environ | environ,
                check=True,
                timeout=PATIENCE,
            )
            if serve:
                if server is not None:
                    server.stop()
                arguments = shlex.split(serve)[2:]
                server = start(*arguments, "--workers", "1", cwd=tmp_path).wait_ready(1)
    assert asked
