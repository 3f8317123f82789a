"""`make release`: builds the sdist and the wheel, checks them, and runs what is installed of them.

`make wheel-compiled` does the same for a compiled wheel of this machine and this Python. Nothing is
uploaded: a pushed tag does that, by .github/workflows/release.yml, which has the compiled wheels
built by cibuildwheel, and has each tried by this program (`--installed`).
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import venv
from pathlib import Path

from prefork import __version__

ROOT = Path(__file__).parents[1]
DIST = ROOT / "dist"
LIMIT = 1800
"""Seconds for one program; pip may have to download, and to compile takes minutes."""

COMPILED, PURE = "compiled", "pure Python"
"""What `prefork --version` says."""

APP = """\
def app(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"released"]
"""


class ReleaseError(Exception):
    """The release is not fit to be published; str() says why."""


def run(*command: str | Path, cwd: Path = ROOT, **variables: str) -> str:
    """The output of a program; raises ReleaseError with all that it wrote if it fails.

    `variables`: of its environment, beside ours.
    """
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=LIMIT,
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


def build_compiled() -> Path:
    """Makes the compiled wheel for this machine and this Python, beside what is in dist/.

    An index takes it only after `auditwheel repair`, for which cibuildwheel has an old C library.
    """
    with tempfile.TemporaryDirectory() as temporary:
        command = (sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir")
        run(*command, temporary, PREFORK_COMPILE="1")
        (made,) = Path(temporary).iterdir()
        python = "cp{}{}".format(*sys.version_info)
        machine = sysconfig.get_platform().replace("-", "_")
        expected = f"prefork-{__version__}-{python}-{python}-{machine}.whl"
        if made.name != expected:
            raise ReleaseError(f"the wheel is {made.name} and not {expected}")
        run(sys.executable, "-m", "twine", "check", "--strict", made)
        DIST.mkdir(exist_ok=True)
        return Path(shutil.move(made, DIST / made.name))


def try_file(file: Path, build: str) -> None:
    """Installs this file in an empty environment, and tries it there: see `try_installed`."""
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        venv.create(place, with_pip=True, symlinks=True)
        programs = place / "bin"
        run(programs / "python", "-m", "pip", "install", "--quiet", file, cwd=place)
        try_installed(programs, build)


def try_installed(programs: Path, build: str) -> None:
    """Serves with the prefork in this directory of programs, and asks for a page.

    Raises ReleaseError; `build`: what has to run, "compiled" or "pure Python".
    """
    prefork = programs / "prefork"
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        lines = run(prefork, "--version", cwd=place).splitlines()
        if lines[0].split()[1] != __version__ or f"Build: {build}" not in lines:
            raise ReleaseError(f"{prefork} is not {__version__}, {build}, but:\n{lines}")
        run(prefork, "init", cwd=place)
        (place / "hello.py").write_text(APP)
        socket, control = place / "s", place / "c"
        keys = ("process.daemon=true", f"control.path={control}", f"log.error={place / 'log'}")
        settings = [word for key in keys for word in ("--set", key)]
        with subprocess.Popen(
            [prefork, "serve", "hello:app", "--bind", f"unix:{socket}", *settings],
            cwd=place,
            env={**os.environ, "PYTHONPATH": ""},
        ) as start:
            if start.wait(LIMIT) != 0:  # a daemon: the command returns when it serves
                raise ReleaseError(f"{prefork} serve failed:\n{_read(place / 'log')}")
        try:
            url = f"http+unix://{str(socket).replace('/', '%2F')}/"
            if run(prefork, "get", "--fail", url, cwd=place) != "released":
                raise ReleaseError(f"{prefork}: the page is another")
        finally:
            run(prefork, "stop", "--control", control, cwd=place)


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
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--tag", action="store_true", help="tag the commit at the end")
    what.add_argument("--compiled", action="store_true", help="build and try the compiled wheel")
    what.add_argument(
        "--installed", action="store_true", help="try the compiled build beside this Python"
    )
    wanted = parser.parse_args()
    try:
        if wanted.installed:
            try_installed(Path(sys.executable).parent, COMPILED)
            return
        for file in [build_compiled()] if wanted.compiled else build():
            print(f"built and checked {file.relative_to(ROOT)}", flush=True)
            try_file(file, COMPILED if wanted.compiled else PURE)
            print("installed it in an empty environment, and it serves", flush=True)
        if wanted.tag:
            print(f"tagged {tag()}; to publish it: git push origin v{__version__}")
    except ReleaseError as error:
        sys.exit(f"no release: {error}")


if __name__ == "__main__":
    main()
