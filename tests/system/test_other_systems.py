"""On another system than Linux the command says so, in one line."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("platform", ["darwin", "win32", "freebsd14"])
@pytest.mark.parametrize("arguments", [["serve", "public/"], ["status"], ["--version"], []])
def test_one_line_says_what_to_do(platform: str, arguments: list[str]) -> None:
    program = (
        f"import sys; sys.platform = {platform!r}; sys.argv[1:] = {arguments!r}\n"
        "import prefork.cli; prefork.cli.main()"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"prefork runs on Linux only, and this is {platform}: ")
    assert "container" in line
