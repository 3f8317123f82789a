"""In a container: process 1 of its own process namespace, within a control group's limits."""

import contextlib
import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import yaml

from tests.support.commands import ROOT, prefork_command
from tests.support.load import Gate
from tests.support.programs import DEPLOY
from tests.support.server import Server, Start
from tests.support.waiting import PATIENCE, until

NEEDS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="needs root for a namespace of its own")

APP = """
import os
from urllib.parse import parse_qs

def app(environ, start_response):
    fifo = parse_qs(environ["QUERY_STRING"]).get("fifo", [""])[0]
    if environ["PATH_INFO"] == "/hold":
        open(fifo).read()
    elif environ["PATH_INFO"] == "/orphan":
        # The child ends at once, and leaves one of its own behind.
        child = os.fork()
        if child == 0:
            if os.fork() == 0:
                os.execv("/bin/cat", ["orphan", fifo])
            os._exit(0)
        os.waitpid(child, 0)
    start_response("200 OK", [])
    return [str(os.getppid()).encode()]
"""


@pytest.fixture
def contained(start: Start, tmp_path: Path) -> Iterator[tuple[Server, psutil.Process]]:
    """A server that is process 1, and the same as we see it from outside."""
    (tmp_path / "inside.py").write_text(APP)
    server = start(
        "inside:app",
        *("--workers", "2", "--set", f"server.chdir={tmp_path}"),
        wrapper=("unshare", "--pid", "--fork", "--mount-proc"),
    )
    try:
        server.wait_ready(2)
        (master,) = psutil.Process(server.pid).children()
        yield server, master
    finally:
        # The end of process 1 is that of the namespace.
        for child in psutil.Process(server.pid).children() if server.process.poll() is None else ():
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()


def names(master: psutil.Process) -> dict[int, str]:
    """Its children by process id; a zombie is one."""
    found = {}
    for child in master.children():
        with contextlib.suppress(psutil.NoSuchProcess):
            zombie = child.status() == psutil.STATUS_ZOMBIE
            found[child.pid] = "zombie" if zombie else child.name()
    return found


@NEEDS_ROOT
def test_process_1_reaps_orphans_and_stops_gracefully(
    contained: tuple[Server, psutil.Process], tmp_path: Path
) -> None:
    server, master = contained
    assert server.get("/") == (200, b"1")
    workers = set(names(master))
    assert len(workers) == 2

    orphan = Gate(tmp_path / "orphan")
    server.get(f"/orphan?fifo={tmp_path}/orphan")
    orphan.arrived()
    until(lambda: set(names(master)) > workers, "the orphan is the master's child")
    orphan.open()
    until(lambda: set(names(master)) == workers, "the orphan is reaped")

    gate = Gate(tmp_path / "gate")
    with server.connect() as client:
        client.sendall(f"GET {gate.target} HTTP/1.0\r\n\r\n".encode())
        gate.arrived()
        master.send_signal(signal.SIGTERM)
        server.wait("signal received", signal="SIGTERM")
        gate.open()
        assert client.recv(65536).startswith(b"HTTP/1.1 200")
    assert server.wait_exit() == 0
    assert server.find("stopped")


@NEEDS_ROOT
def test_process_1_is_stopped_at_once_by_int(contained: tuple[Server, psutil.Process]) -> None:
    server, master = contained
    master.send_signal(signal.SIGINT)
    assert server.wait_exit() == 0


def _group(controller: str) -> Path | None:
    """Where a group of ours may be made: version 1 of that controller, or version 2."""
    for line in Path("/proc/self/mountinfo").read_text().splitlines():
        left, _, right = line.partition(" - ")
        kind, _, options = right.split(" ", 2)
        where = Path(left.split()[4])
        if kind == "cgroup" and controller in options.split(","):
            return where
        if kind == "cgroup2":
            with contextlib.suppress(OSError):
                if controller in (where / "cgroup.subtree_control").read_text().split():
                    return where
    return None


@contextlib.contextmanager
def group(controller: str, **files: str) -> Iterator[Path]:
    """A control group with these files written, of those that there are."""
    above = _group(controller)
    if above is None or not os.access(above, os.W_OK):
        pytest.skip(f"no control group of {controller} can be made here")
    place = above / f"prefork-test-{os.getpid()}"
    place.mkdir()
    try:
        for name, text in files.items():
            path = place / name.replace("__", ".")
            if path.exists():
                path.write_text(text)
        yield place
    finally:
        until(lambda: not (place / "cgroup.procs").read_text(), "the group is empty")
        place.rmdir()


def shown_in(place: Path, config: str) -> str:
    """What `prefork check --show` says within a group."""
    done = subprocess.run(
        [
            *("sh", "-c", f'echo $$ > {place}/cgroup.procs && exec "$@"', "sh"),
            *prefork_command("check", config, "--show"),
        ],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@NEEDS_ROOT
def test_as_many_workers_as_the_group_has_cpus() -> None:
    limits = {
        "cpu__cfs_period_us": "100000",
        "cpu__cfs_quota_us": "50000",
        "cpu__max": "50000 100000",
    }
    with group("cpu", **limits) as place:
        assert "workers.count = 1 " in shown_in(place, "examples.demo:app")


@NEEDS_ROOT
def test_a_share_of_the_memory_of_the_group(tmp_path: Path) -> None:
    size = str(512 << 20)
    config = tmp_path / "site.toml"
    config.write_text(f'[server]\napp = "a:b"\nchdir = "{ROOT}"\n[workers]\nmax_memory = "25%"\n')
    with group("memory", memory__limit_in_bytes=size, memory__max=size) as place:
        assert 'workers.max_memory = "128MiB"' in shown_in(place, str(config))


@NEEDS_ROOT
def test_the_checks_of_image_and_cluster_tell_what_is(start: Start, tmp_path: Path) -> None:
    """The image's own configuration in namespaces, asked by the commands of the files."""
    config = tmp_path / "site.toml"
    text = (DEPLOY / "container" / "site.toml").read_text()
    config.write_text(text.replace('chdir = "/srv/site"', f'chdir = "{ROOT}"'))
    environ = {"PREFORK_RUN_DIR": str(tmp_path), "PYTHONPATH": str(ROOT)}
    server = start(
        *(str(config), "--set", "workers.count=1", "--set", "workers.drain_delay=60"),
        env=environ,
        bind=(),
        default_control=True,
        wrapper=(
            *("unshare", "--net", "--pid", "--fork", "--mount-proc"),
            *("sh", "-c", 'ip link set lo up && exec "$@"', "sh"),
        ),
    ).wait_ready(1)
    (master,) = psutil.Process(server.pid).children()

    def inside(command: list[str]) -> int:
        assert command[0] == "prefork"
        words = [str(config) if word.startswith("/etc/prefork/") else word for word in command[1:]]
        done = subprocess.run(
            [
                *("nsenter", "--target", str(master.pid), "--net", "--"),
                *prefork_command(*words),
            ],
            env={**os.environ, **environ},
            capture_output=True,
            timeout=PATIENCE,
        )
        return done.returncode

    dockerfile = (DEPLOY / "container" / "Dockerfile").read_text()
    health = json.loads(re.findall(r"HEALTHCHECK .*\\\n +CMD (\[.*\])", dockerfile)[0])
    pods = yaml.safe_load_all((DEPLOY / "kubernetes" / "site.yaml").read_text())
    (deployment,) = (each for each in pods if each["kind"] == "Deployment")
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    alive = container["livenessProbe"]["exec"]["command"]

    assert inside(health) == 0
    assert inside(alive) == 0
    master.send_signal(signal.SIGTERM)
    server.wait("draining")
    assert inside(health) != 0  # nothing new, please
    assert inside(alive) == 0  # but it is not to be killed
    master.send_signal(signal.SIGTERM)  # the second one: now
    assert server.wait_exit() == 0
