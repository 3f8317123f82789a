"""A Debian that debootstrap makes in a directory, for tests of what is installed on one."""

import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.support.programs import find

MIRROR = "http://deb.debian.org/debian"
PATIENCE = 300
"""Seconds for one command."""

# pip in the chroot trusts what this machine does.
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")


class EmptyDebian:
    """A directory with a Debian, and /proc in it, in which commands run as root."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def command(self, *command: str) -> list[str]:
        return ["chroot", str(self.root), *command]

    def run(
        self, *command: str, environ: Mapping[str, str] | None = None, check: bool = True
    ) -> str:
        """The output, both streams."""
        done = subprocess.run(
            self.command(*command),
            env={
                "PATH": "/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "LC_ALL": "C.UTF-8",
                "HOME": "/root",
                **(environ or {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=PATIENCE,
        )
        assert done.returncode == 0 or not check, done.stdout
        return done.stdout


def release() -> str:
    """The code name of this machine's Debian."""
    lines = Path("/etc/os-release").read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line)["VERSION_CODENAME"]


@contextmanager
def empty_debian(root: Path, suite: str, packages: Sequence[str]) -> Iterator[EmptyDebian]:
    """Needs root, debootstrap and the mirror."""
    made = subprocess.run(
        [
            *(find("debootstrap"), "--variant=minbase", f"--include={','.join(packages)}"),
            *(suite, str(root), MIRROR),
        ],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stdout[-2000:] + made.stderr
    if _CERTIFICATES.exists():
        copy = root / _CERTIFICATES.relative_to("/")
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(_CERTIFICATES.read_bytes())
    with mounted_proc(root):
        yield EmptyDebian(root)


@contextmanager
def mounted_proc(root: Path) -> Iterator[None]:
    subprocess.run(["mount", "-t", "proc", "proc", root / "proc"], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", root / "proc"], check=True)
