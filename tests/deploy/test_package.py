"""What is installed: the wheel and the sdist, in an empty environment of their own."""

import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import venv
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork import __version__
from tests.support.commands import ROOT
from tests.support.programs import find
from tests.support.sockets import accepts
from tests.support.waiting import PATIENCE, until
from tools import share


def run(*command: str | Path, **options: Any) -> subprocess.CompletedProcess[str]:
    done: subprocess.CompletedProcess[str] = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        timeout=PATIENCE * 3,
        **options,
    )
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The sdist, and the wheel that is built of it and of nothing else."""
    place = tmp_path_factory.mktemp("dist")
    script = (
        "import sys, setuptools.build_meta as backend;"
        "print(getattr(backend, 'build_' + sys.argv[1])(sys.argv[2]))"
    )

    def build(kind: str, source: Path) -> Path:
        done = run(sys.executable, "-c", script, kind, place, cwd=source)
        return place / done.stdout.splitlines()[-1]

    # Not in the checkout: setuptools leaves its own files where it works.
    source = place / "source"
    source.mkdir()
    for name in ("prefork", "conf", "share", "pyproject.toml", "README.md", "LICENSE"):
        run("cp", "-r", ROOT / name, source)
    sdist = build("sdist", source)
    # Python 3.11.2, as Debian 12 has it, has no filters of tarfile yet.
    run("tar", "-xzf", sdist, "-C", place)
    return sdist, build("wheel", place / sdist.name.removesuffix(".tar.gz"))


@pytest.fixture(scope="module")
def open_place() -> Iterator[Path]:
    """A directory that others may enter.  Each start of pytest closes those of pytest to them."""
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        place.chmod(0o755)
        yield place


@pytest.fixture(scope="module")
def installed(built: tuple[Path, Path], open_place: Path) -> Path:
    """The programs of an environment with the wheel in it.

    What it depends on is taken from ours: a test is to run without a package index.
    """
    place = open_place / "env"
    venv.create(place, with_pip=False, symlinks=True)
    run(
        *(sys.executable, "-m", "pip", "--python", place / "bin" / "python", "install"),
        *("--quiet", "--no-index", "--no-deps", "--disable-pip-version-check", built[1]),
    )
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    site = place / "lib" / version / "site-packages"
    ours = Path(sys.prefix) / "lib" / version / "site-packages"
    for name in ("click", "msgspec", "psutil", "setproctitle"):
        for found in ours.glob(f"{name}*"):
            if not found.name.startswith(f"{name}-") or found.suffix == ".dist-info":
                # Not a link: another user may not be let into the directory of this checkout.
                copy = shutil.copytree if found.is_dir() else shutil.copy2
                copy(found, site / found.name)
    return place / "bin"


def test_both_have_all_that_is_needed_and_nothing_else(built: tuple[Path, Path]) -> None:
    sources = {str(path.relative_to(ROOT)) for path in (ROOT / "prefork").rglob("*.py")} | {
        "prefork/py.typed",
        "prefork/config/prefork.toml",
    }
    data = {f"prefork-{__version__}.data/data/{name}" for name in share.files()}
    with zipfile.ZipFile(built[1]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == sources | data
    with tarfile.open(built[0]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    assert sources | {"LICENSE", "README.md", "pyproject.toml", *share.files()} <= inside


def test_it_runs_in_an_empty_environment(installed: Path, tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(
        "import prefork\n"
        "def app(environ, start_response):\n"
        "    start_response('200 OK', [])\n"
        "    return [prefork.__file__.encode()]\n"
    )
    control = tmp_path / "c"
    environ = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    with subprocess.Popen(
        [
            *(installed / "prefork", "serve", "hello:app", "--workers", "1"),
            *("--bind", f"unix:{tmp_path}/s", "--set", f"control.path={control}"),
        ],
        cwd=tmp_path,
        env=environ,
    ) as server:
        try:
            until(lambda: accepts(tmp_path / "s"), "its socket")
            done = run(
                installed / "prefork",
                "get",
                f"http+unix://{str(tmp_path / 's').replace('/', '%2F')}/",
                cwd=tmp_path,
            )
            assert str(installed.parent) in done.stdout
            run(installed / "prefork", "stop", "--control", control)
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()


def test_an_ordinary_user_gets_manual_configuration_and_a_server(
    installed: Path, open_place: Path
) -> None:
    """As nobody if we are root, with a HOME that cannot be written."""
    home = open_place / "home"
    home.mkdir(mode=0o555)
    work = open_place / "work"
    work.mkdir()
    environ = {"PATH": f"{installed}:/usr/bin:/bin", "HOME": str(home), "LC_ALL": "C.UTF-8"}
    wrapper: tuple[str, ...] = ()
    if os.geteuid() == 0:
        wrapper = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups")
        os.chown(work, 65534, 65534)
        started = subprocess.run([*wrapper, installed / "python", "-V"], capture_output=True)
        if started.returncode:
            pytest.skip("does not apply: this Python is in a directory of root's own")
    options: dict[str, Any] = {"cwd": work, "env": environ}

    if man := shutil.which("man"):
        page = run(*wrapper, man, "-P", "cat", "prefork", **options).stdout
        assert "a pre-fork server with a supervisor" in page
        assert "cpu_affinity" in run(*wrapper, man, "-P", "cat", "prefork.toml", **options).stdout
    assert "thread-safe" in run(*wrapper, "prefork", "explain", "threads", **options).stdout
    # The control socket, which all of this user share, is named after the file.
    site = work / f"ordinary-{os.getpid()}.toml"
    run(*wrapper, "prefork", "init", site.name, **options)
    (work / "index.html").write_text("hello")
    site.write_text(site.read_text().replace("\n[static]\n", '\n[static]\nroot = "."\n'))
    url = f"http+unix://{str(work / 's').replace('/', '%2F')}/"
    with subprocess.Popen(
        [*wrapper, "prefork", "serve", site.name, "--bind", f"unix:{work}/s"], **options
    ) as server:
        try:
            until(lambda: accepts(work / "s"), "its socket")
            assert run(*wrapper, "prefork", "get", url, **options).stdout == "hello"
            run(*wrapper, "prefork", "stop", site.name, **options)
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
    assert not list(home.iterdir())


def test_bash_completes_with_the_installed_file(installed: Path) -> None:
    script = installed.parent / "share" / "bash-completion" / "completions" / "prefork"
    program = (
        f"source {script}; COMP_WORDS=(prefork re); COMP_CWORD=1; "
        '_prefork_completion prefork; echo "${COMPREPLY[@]}"'
    )
    environ = {**os.environ, "PATH": f"{installed}:{os.environ['PATH']}"}
    assert run(find("bash"), "-c", program, env=environ).stdout.split() == ["reload", "reopen"]


def test_the_version_names_python_and_the_libraries(installed: Path) -> None:
    lines = run(installed / "prefork", "--version").stdout.splitlines()
    assert lines[0] == f"prefork {__version__}"
    told = dict(line.split(" ", 1) for line in lines[1:])
    assert told["Python"].startswith(".".join(map(str, sys.version_info[:3])))
    assert told["Linux"].startswith(os.uname().release)
    for library in ("click", "msgspec", "psutil", "setproctitle"):
        assert told[library][0].isdigit()
    assert "not installed" in told["scapy"]  # of an extra


def test_the_shell_completes_commands_and_files(installed: Path) -> None:
    def completed(words: str) -> list[str]:
        asked = {"COMP_WORDS": words, "COMP_CWORD": str(words.count(" "))}
        environ = {**os.environ, **asked, "_PREFORK_COMPLETE": "bash_complete"}
        return run(installed / "prefork", env=environ).stdout.split()

    assert completed("prefork re") == ["plain,reload", "plain,reopen"]
    assert completed("prefork serve --thr") == ["plain,--threads"]
    for command in ("serve", "check", "reload", "migrate gunicorn"):
        assert completed(f"prefork {command} si") == ["file,si"]
    for shell in ("bash", "zsh", "fish"):
        script = run(installed / "prefork", "completion", shell).stdout
        assert "_PREFORK_COMPLETE" in script
    run("bash", "-n", "-c", run(installed / "prefork", "completion", "bash").stdout)
