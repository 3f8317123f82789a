"""`make release`: builds the sdist and the wheel, checks them, and runs what is installed of them.

Nothing is uploaded: a pushed tag does that, by .github/workflows/release.yml.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from prefork import __version__

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
LIMIT = 300
"""Seconds for one program; pip may have to download."""

APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"released"]
"""


class ReleaseError(Exception):
    """The release is not fit to be published; str() says why."""


def run(*command: str | Path, cwd: Path = ROOT) -> str:
    """The output of a program; raises ReleaseError with all that it wrote if it fails."""
    done = subprocess.run(
        list(map(str, command)), cwd=cwd, capture_output=True, text=True, timeout=LIMIT
    )
    if done.returncode != 0:
        raise ReleaseError(f"{' '.join(map(str, command))}:\n{done.stdout}{done.stderr}")
    return done.stdout


def check_changelog(text: str, version: str) -> None:
    """Raises ReleaseError unless the newest section is the one of this version."""
    newest = re.search(r"^## (.+)$", text, re.MULTILINE)
    if newest is None or newest[1].split()[0] != version:
        found = f'"{newest[1]}"' if newest else "none"
        raise ReleaseError(f"CHANGELOG.md: the newest section is to be {version}, but is {found}")


def build() -> list[Path]:
    """Makes the sdist, and of it the wheel, in dist/; both are checked for the index."""
    shutil.rmtree(DIST, ignore_errors=True)
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", DIST)
    files = sorted(DIST.iterdir())
    expected = [f"prefork-{__version__}-py3-none-any.whl", f"prefork-{__version__}.tar.gz"]
    if [file.name for file in files] != expected:
        raise ReleaseError(f"dist/ has {[file.name for file in files]} and not {expected}")
    run(sys.executable, "-m", "twine", "check", "--strict", *files)
    return files


def try_installed(file: Path) -> None:
    """Installs this file in an empty environment, serves with it, and asks for a page."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        venv.create(place / "env", with_pip=True, symlinks=True)
        programs = place / "env" / "bin"
        run(programs / "python", "-m", "pip", "install", "--quiet", file, cwd=place)
        if run(programs / "prefork", "--version", cwd=place).split()[1] != __version__:
            raise ReleaseError(f"{file.name} installs another version")
        run(programs / "prefork", "init", cwd=place)
        (place / "hello.py").write_text(APP)
        socket, control = place / "s", place / "c"
        keys = ("process.daemon=true", f"control.path={control}", f"log.error={place / 'log'}")
        settings = [word for key in keys for word in ("--set", key)]
        with subprocess.Popen(
            [programs / "prefork", "serve", "hello:app", "--bind", f"unix:{socket}", *settings],
            cwd=place,
            env={**os.environ, "PYTHONPATH": ""},
        ) as start:
            if start.wait(LIMIT) != 0:  # a daemon: the command returns when it serves
                raise ReleaseError(f"{file.name}: prefork serve failed:\n{_read(place / 'log')}")
        try:
            url = f"http+unix://{str(socket).replace('/', '%2F')}/"
            if run(programs / "prefork", "get", "--fail", url, cwd=place) != "released":
                raise ReleaseError(f"{file.name}: the page is another")
        finally:
            run(programs / "prefork", "stop", "--control", control, cwd=place)


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def tag() -> str:
    """Tags the commit, which has to be all that is in the checkout; returns the tag."""
    check_changelog((ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), __version__)
    if run("git", "status", "--porcelain"):
        raise ReleaseError("commit all changes before the tag")
    name = f"v{__version__}"
    run("git", "tag", "--annotate", name, "--message", f"prefork {__version__}")
    return name


def main() -> None:
    """Prints each step as it is done; exits with 1 and the reason if one fails."""
    parser = argparse.ArgumentParser(prog="make release", description=__doc__)
    parser.add_argument("--tag", action="store_true", help="tag the commit at the end")
    wanted = parser.parse_args()
    try:
        for file in build():
            print(f"built and checked {file.relative_to(ROOT)}", flush=True)
            try_installed(file)
            print("installed it in an empty environment, and it serves", flush=True)
        if wanted.tag:
            print(f"tagged {tag()}; to publish it: git push origin v{__version__}")
    except ReleaseError as error:
        sys.exit(f"no release: {error}")


if __name__ == "__main__":
    main()
