"""The suite on other interpreters and with other versions than the locked ones.

`make test-all`, `test-lowest`, `test-newest` and `test-compiled` run these sessions. `make test`
needs none of them: it runs what requirements/ locks on the interpreter that is there.
"""

import os
import shutil
import tempfile
from pathlib import Path

import nox

nox.options.default_venv_backend = "venv"
# An interpreter that is not on the machine is named in the summary, and is no failure.
nox.options.error_on_missing_interpreters = False

EXTRAS = tuple(nox.project.load_toml("pyproject.toml")["project"]["optional-dependencies"])
EVERY_EXTRA = f".[{','.join(EXTRAS)}]"
SUITE = ("python", "-m", "pytest", "-n", "4", "--dist", "loadfile")

SELECTED = os.environ.get("PYENV_VERSION")
PYENV = Path(os.environ.get("PYENV_ROOT") or Path.home() / ".pyenv")


def _select_every_version_of_pyenv() -> None:
    """pyenv puts a command for each installed version on PATH, which runs only if it is selected.

    uv's interpreters, and those on PATH, are found without this.
    """
    versions = sorted(path.name for path in PYENV.glob("versions/*") if path.is_dir())
    if versions and not SELECTED:
        os.environ |= {"PYENV_ROOT": str(PYENV), "PYENV_VERSION": ":".join(versions)}


_select_every_version_of_pyenv()


def _suite(session: nox.Session) -> None:
    session.install("--no-deps", "--no-build-isolation", "-e", ".")
    # The tests do without it where there is no compiler.
    compiled = ("--require-hashes", "-r", "requirements/compiled.txt")
    session.install(*compiled, success_codes=[0, 1])
    session.run("python", "-m", "compileall", "-q", "prefork", "tests", "examples")
    # nox's own temporary directory makes the paths of Unix sockets longer than the kernel allows.
    environ = {"TMPDIR": tempfile.gettempdir(), "PYENV_VERSION": SELECTED}
    session.run(*SUITE, *session.posargs, env=environ)


@nox.session(python=["3.11", "3.12", "3.13", "3.14", "3.15", "3.14t"])
def tests(session: nox.Session) -> None:
    """The locked versions on each Python that prefork promises to run on."""
    session.install("--require-hashes", "-r", "requirements/test.txt")
    _suite(session)


@nox.session
def lowest(session: nox.Session) -> None:
    """The lowest versions that pyproject.toml promises."""
    session.install("uv")
    floor = session.create_tmp() + "/lowest.txt"
    extras = [f"--extra={extra}" for extra in EXTRAS]
    compiled = ("uv", "pip", "compile", "--quiet", "pyproject.toml", *extras, "--group=build")
    session.run_install(*compiled, "--resolution=lowest-direct", "-o", floor)
    # Later ones import what the lowest click does not have; what they require does not say so.
    tools = ("check-jsonschema<0.34", "--group=test")
    session.run_install("uv", "pip", "install", "--quiet", "-r", floor, *tools, "-c", floor)
    _suite(session)


@nox.session
def compiled(session: nox.Session) -> None:
    """The tests against the compiled build; those with real servers have no sources in the way."""
    session.install("--require-hashes", "-r", "requirements/test.txt")
    session.install("--no-deps", "--no-build-isolation", ".", env={"PREFORK_COMPILE": "1"})
    whole = ("tests/system", "tests/faults", "tests/deploy/test_compiled_build.py")
    without = shutil.ignore_patterns("build", ".*", "__pycache__")
    environ = {"TMPDIR": tempfile.gettempdir(), "PYENV_VERSION": SELECTED}
    # Not in nox's own directory: its path is too long for what some tests see of it on a terminal.
    with tempfile.TemporaryDirectory(prefix="suite-") as place:
        shutil.copytree(".", place, ignore=without, dirs_exist_ok=True)
        shutil.rmtree(f"{place}/prefork")
        with session.chdir(place):
            session.run(*SUITE, *(session.posargs or whole), env=environ)
            if not session.posargs:
                # Some of these read the sources: here, of the build.
                where = ("python", "-c", "import prefork; print(prefork.__path__[0])")
                os.symlink(str(session.run(*where, silent=True)).strip(), "prefork")
                session.run(*SUITE, "tests/unit", env=environ)


@nox.session
def newest(session: nox.Session) -> None:
    """The newest versions that there are of everything."""
    session.install("uv")
    session.run_install(
        *("uv", "pip", "install", "--quiet", "--upgrade", "-e", EVERY_EXTRA),
        *("--group=build", "--group=test"),
    )
    _suite(session)
