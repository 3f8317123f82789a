"""A kernel or a container that refuses what the server needs: a line says what, and what to do."""

import os
import subprocess
import sys

import pytest

from tests.support.commands import ROOT, prefork_command
from tests.support.waiting import PATIENCE

APP = "tests.apps.basic:app"
NAME = f"server.name=refused-{os.getpid()}"  # a control socket that no other test has
SERVE = ("serve", APP, "--bind", "127.0.0.1:0", "--workers", "1", "--set", NAME)
AFFINITY = ("--set", "process.cpu_affinity=auto")

REFUSE = """
import errno, os, sys
from tests.support.seccomp import refuse
refuse({sys.argv[1]: getattr(errno, sys.argv[2])})
os.execv(sys.executable, sys.argv[3:])
"""


def outcome(*command: str) -> str:
    """What a command prints that fails, without the lines of the log at level info."""
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONDONTWRITEBYTECODE": "1"}
    environ.pop("PYTHONUNBUFFERED", None)  # what is buffered fails later
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environ,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE * 2,
        check=False,
    )
    assert done.returncode in (1, 3), done.stdout
    assert "Traceback" not in done.stdout
    return "\n".join(line for line in done.stdout.splitlines() if "[info]" not in line)


def in_shell(script: str, *args: str) -> str:
    return outcome("sh", "-c", f'{script}; exec "$@"', "sh", *prefork_command(*args))


def in_mounts(script: str, *args: str) -> str:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    if subprocess.run(["unshare", "-m", "true"], check=False).returncode:
        pytest.skip(
            "needs a mount namespace; there is none if the root of a chroot is no mount point"
        )
    return outcome(
        *("unshare", "-m", "sh", "-c", f'{script} && exec "$@"', "sh", *prefork_command(*args))
    )


@pytest.mark.parametrize("error", ["ENOSYS", "EPERM"])
@pytest.mark.parametrize(
    ("call", "said"),
    [
        ("memfd_create", "prefork: the kernel refuses shared memory (memfd_create(2)"),
        ("sched_setaffinity", "process.cpu_affinity: cannot be bound to CPU"),
    ],
)
def test_a_system_call_that_a_seccomp_profile_refuses(call: str, error: str, said: str) -> None:
    command = prefork_command(*SERVE, *AFFINITY)
    assert said in outcome(sys.executable, "-c", REFUSE, call, error, *command)


@pytest.mark.parametrize("limit", [6, 8, 10, 12])
def test_few_open_files(limit: int) -> None:
    said = in_shell(f"ulimit -n {limit}", *SERVE)
    assert "Too many open files" in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("more", [(), ("--set", "workers.preload=true")])
def test_a_limit_of_the_size_of_files(more: tuple[str, ...]) -> None:
    said = in_shell("ulimit -f 0", *SERVE, *more)
    assert said.startswith("prefork: File too large; the limit of a file's size is 0 bytes")


def test_no_proc() -> None:
    said = in_mounts("mount -t tmpfs none /proc", *SERVE)
    assert said.endswith("the file system proc(5) has to be mounted at /proc")
    assert len(said.splitlines()) == 1


def test_no_dev() -> None:
    said = in_mounts("mount -t tmpfs none /dev", *SERVE)
    assert said == "prefork: /dev/null: No such file or directory; a container needs this device"


@pytest.mark.parametrize("options", ["ro", "nr_inodes=1"])
def test_nowhere_to_write(options: str) -> None:
    mount = f"mount -t tmpfs -o {options} none"
    said = in_mounts(
        f"{mount} /run && {mount} /mnt && export TMPDIR=/mnt HOME=/nonexistent"
        " && unset XDG_RUNTIME_DIR PREFORK_RUN_DIR",
        *SERVE,
    )
    assert "no directory for the control socket" in said
    assert said.endswith("set control.path")


FULL = "mount -t tmpfs -o size=4k,mode=777 none /mnt && head -c 4k /dev/zero > /mnt/zeros"


@pytest.mark.parametrize(
    "args",
    [
        (*SERVE, "--set", "process.pidfile=/mnt/pid", "--set", "control.path=/tmp/none"),
        ("init", "/mnt/site.toml"),
    ],
)
def test_a_full_disk(args: tuple[str, ...]) -> None:
    said = in_mounts(FULL, *args)
    assert "/mnt/" in said
    assert said.endswith("No space left on device")
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize(
    "args", [("explain", "bind"), ("check", APP), ("completion", "bash"), ("--version",)]
)
def test_a_full_standard_output(args: tuple[str, ...]) -> None:
    said = outcome("sh", "-c", 'exec "$@" > /dev/full', "sh", *prefork_command(*args))
    assert len(said.splitlines()) == 1
    assert "No space left on device" in said
