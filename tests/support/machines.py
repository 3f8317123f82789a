"""Three machines, a proxy and a client: network namespaces, and cables (veth) between them.

The addresses are those of the files in deploy/: the proxy is 10.0.0.1 and the machines 10.0.0.11
to 13; the client sees the proxy as 10.1.0.1. None of it is in our own namespace.
"""

import contextlib
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.network import enter

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None,
    reason="needs root and ip to make network namespaces",
)

PROXY = "10.1.0.1"
"""The proxy, as the client sees it."""

MACHINES = (1, 2, 3)

T = TypeVar("T")


def _ip(*command: str) -> str:
    done = subprocess.run(("ip", *command), check=True, capture_output=True, text=True)
    return done.stdout


class Network:
    """`proxy`, `client` and `machine(n)` are the names of namespaces."""

    def __init__(self) -> None:
        self._prefix = f"prefork-{os.getpid()}"
        self.proxy, self.client = f"{self._prefix}-proxy", f"{self._prefix}-client"

    def machine(self, number: int) -> str:
        return f"{self._prefix}-{number}"

    @staticmethod
    def address(number: int) -> str:
        return f"10.0.0.{10 + number}"

    def make(self) -> None:
        for namespace in (self.proxy, self.client, *map(self.machine, MACHINES)):
            _ip("netns", "add", namespace)
            _ip("-n", namespace, "link", "set", "lo", "up")
        for number in MACHINES:
            cable = f"to{number}"
            self._cable(cable, self.machine(number), f"{self.address(number)}/24")
            _ip("-n", self.proxy, "addr", "add", "10.0.0.1/32", "dev", cable)
            _ip("-n", self.proxy, "route", "add", f"{self.address(number)}/32", "dev", cable)
        self._cable("client", self.client, "10.1.0.2/24")
        _ip("-n", self.proxy, "addr", "add", f"{PROXY}/24", "dev", "client")

    def _cable(self, ours: str, theirs: str, address: str) -> None:
        """From the proxy's device `ours` to eth0 of another namespace."""
        ends = ("name", ours, "netns", self.proxy, "type", "veth", "peer", "name", "eth0")
        _ip("link", "add", *ends, "netns", theirs)
        _ip("-n", self.proxy, "link", "set", ours, "up")
        _ip("-n", theirs, "addr", "add", address, "dev", "eth0")
        _ip("-n", theirs, "link", "set", "eth0", "up")

    def unmake(self) -> None:
        for namespace in (self.client, self.proxy, *map(self.machine, MACHINES)):
            with contextlib.suppress(subprocess.CalledProcessError):
                self.kill(namespace)
                _ip("netns", "del", namespace)

    def pull_the_cable(self, number: int) -> None:
        _ip("-n", self.machine(number), "link", "set", "eth0", "down")

    def plug_it_in(self, number: int) -> None:
        _ip("-n", self.machine(number), "link", "set", "eth0", "up")

    @staticmethod
    def kill(namespace: str) -> None:
        """Kills all processes there at once: none can react to the death of another."""
        pids = [int(pid) for pid in _ip("netns", "pids", namespace).split()]
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)

    def at_client(self, call: Callable[[], T]) -> T:
        """Calls a function in the client's namespace; a socket belongs to that of its thread."""
        with ThreadPoolExecutor(1, initializer=enter, initargs=(self.client,)) as threads:
            return threads.submit(call).result()


@contextlib.contextmanager
def network() -> Iterator[Network]:
    made = Network()
    try:
        made.make()
        yield made
    finally:
        made.unmake()


def within(namespace: str) -> tuple[str, ...]:
    """A command prefix that executes a program in a namespace."""
    return ("ip", "netns", "exec", namespace)


@contextlib.contextmanager
def proxy(namespace: str, *command: str | Path) -> Iterator[None]:
    """A proxy that runs in a namespace while the block does."""
    with subprocess.Popen([*within(namespace), *map(str, command)]) as process:
        try:
            yield
        finally:
            process.kill()
