"""The steps of deploy/container/Dockerfile, carried out in chroots: there may be no engine."""

import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from tests.support.commands import ROOT
from tests.support.empty_debian import EmptyDebian, empty_debian, mounted_proc
from tests.support.programs import DEPLOY
from tests.support.waiting import PATIENCE, until
from tools import release

DOCKERFILE = (DEPLOY / "container" / "Dockerfile").read_text()


@dataclass
class Stage:
    """A root that instructions change, and what the last image of the file will have."""

    machine: EmptyDebian
    directory: str = "/"
    environ: dict[str, str] = field(default_factory=dict)
    user: str = "0"
    exec: dict[str, list[str]] = field(default_factory=dict)

    def obey(self, word: str, rest: str, stages: dict[str, "Stage"]) -> None:
        root = self.machine.root
        if word == "WORKDIR":
            self.directory = rest
            (root / rest.lstrip("/")).mkdir(parents=True, exist_ok=True)
        elif word == "RUN":
            self.machine.run("sh", "-ec", f"cd {self.directory} && {rest}", environ=self.environ)
        elif word == "COPY":
            *sources, to = rest.split()
            origin = ROOT
            if sources[0].startswith("--from="):
                origin = stages[sources.pop(0).removeprefix("--from=")].machine.root
            for source in sources:
                found = list(origin.glob(source.lstrip("/")))
                assert found, source
                for path in found:
                    target = root / os.path.join(self.directory, to).lstrip("/")
                    if to.endswith("/"):
                        target = target / path.name
                    target.parent.mkdir(parents=True, exist_ok=True)
                    if path.is_dir():
                        shutil.copytree(path, target, symlinks=True, dirs_exist_ok=True)
                    else:
                        shutil.copy(path, target)
        elif word == "ENV":
            for name, value in (pair.split("=", 1) for pair in shlex.split(rest)):
                self.environ[name] = value.replace("$PATH", "/usr/local/bin:/usr/bin:/bin")
        elif word == "USER":
            self.user = rest
        elif word in ("ENTRYPOINT", "CMD"):
            self.exec[word] = json.loads(rest)
        elif word == "HEALTHCHECK":
            self.exec[word] = json.loads(rest.partition("CMD ")[2])
        else:
            assert word in ("EXPOSE", "STOPSIGNAL"), f"{word} {rest}"


def instructions() -> list[tuple[str, str]]:
    """The word and the rest of each instruction, without comments, lines joined."""
    lines = re.sub(r"^#.*\n", "", DOCKERFILE, flags=re.MULTILINE).replace("\\\n", " ")
    found = [line.partition(" ") for line in lines.splitlines() if line.strip()]
    return [(word, " ".join(rest.split())) for word, _, rest in found]


@pytest.mark.nightly
@pytest.mark.timeout(900)
@pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a chroot")
def test_its_steps_make_an_image_that_serves() -> None:
    release.build()
    base = re.findall(r"^ARG BASE=python:\d+\.\d+\.\d+-slim-(\w+)$", DOCKERFILE, re.MULTILINE)
    with tempfile.TemporaryDirectory(prefix="image") as temporary:
        place = Path(temporary)
        packages = ("python3", "python3-venv", "ca-certificates")
        with empty_debian(place / "build", base[0], packages) as machine:
            (machine.root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
            last = place / "last"
            subprocess.run(["cp", "-ax", machine.root, last], check=True)
            with mounted_proc(last):
                stages = {"build": Stage(machine), "": Stage(EmptyDebian(last))}
                current = stages["build"]
                for word, rest in instructions():
                    if word == "FROM":
                        current = stages[rest.partition(" AS ")[2]]
                    elif word != "ARG":
                        current.obey(word, rest, stages)
                try_image(current)


def try_image(image: Stage) -> None:
    """Runs it as an engine would: entry point and command, as its user, stopped by TERM."""
    assert image.user == "10001"
    command = image.machine.command("env", "-i", *(f"{k}={v}" for k, v in image.environ.items()))
    command += ["setpriv", f"--reuid={image.user}", f"--regid={image.user}", "--clear-groups"]
    command += ["sh", "-c", f'cd {image.directory} && exec "$@"', "sh"]
    log = image.machine.root / "tmp" / "log"
    with (
        log.open("w") as output,
        subprocess.Popen(
            [*command, *image.exec["ENTRYPOINT"], *image.exec["CMD"], "--bind", "127.0.0.1:0"],
            stdout=output,
            stderr=output,
        ) as server,
    ):
        try:
            until(lambda: '"worker ready"' in log.read_text() or server.poll() is not None)
            port = re.findall(r'"address": ?"127\.0\.0\.1:(\d+)"', log.read_text())
            assert port, log.read_text()
            health = [
                word.replace("127.0.0.1:8000", f"127.0.0.1:{port[0]}")
                for word in image.exec["HEALTHCHECK"]
            ]
            assert subprocess.run([*command, *health], timeout=PATIENCE).returncode == 0
            server.send_signal(signal.SIGTERM)
            server.send_signal(signal.SIGTERM)  # at once: without the drain_delay
            assert server.wait(PATIENCE) == 0
        finally:
            server.kill()
