"""A host of a test's own: a network namespace with a link to ours, slow if wanted."""

import contextlib
import os
import shutil
import subprocess
from collections.abc import Iterator

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or shutil.which("tc") is None,
    reason="needs root, ip and tc for a network namespace",
)


def run(*command: str) -> None:
    subprocess.run(command, check=True, capture_output=True)


@contextlib.contextmanager
def client_host(delay_ms: int) -> Iterator[tuple[str, str]]:
    """(name of the namespace, our address as seen from it); each way takes `delay_ms`."""
    tag = f"pf{os.getpid() % 100000}"
    ours, theirs = f"{tag}a", f"{tag}b"
    # 198.18.0.0/15 is for tests of network devices (RFC 2544): nobody's real address.
    net = f"198.18.{os.getpid() % 250}"
    run("ip", "netns", "add", tag)
    try:
        run("ip", "link", "add", ours, "type", "veth", "peer", "name", theirs, "netns", tag)
        run("ip", "addr", "add", f"{net}.1/24", "dev", ours)
        run("ip", "link", "set", ours, "up")
        inside = ("ip", "netns", "exec", tag)
        run(*inside, "ip", "addr", "add", f"{net}.2/24", "dev", theirs)
        run(*inside, "ip", "link", "set", theirs, "up")
        for prefix, device in (((), ours), (inside, theirs)):
            run(*prefix, "tc", "qdisc", "add", "dev", device, "root", "netem", "delay", f"{delay_ms}ms")
        yield tag, f"{net}.1"
    finally:
        run("ip", "netns", "del", tag)
