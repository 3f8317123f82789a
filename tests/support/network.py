"""A distant host of a test's own: a network namespace behind a slow link.

The link is two TUN devices and a thread that carries each packet over after a delay, since a
kernel may come without netem.  A socket belongs to the namespace of the thread that made it.
"""

import contextlib
import ctypes
import fcntl
import heapq
import os
import select
import shutil
import struct
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest

needs_namespaces = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("ip") is None or not Path("/dev/net/tun").exists(),
    reason="needs root, ip and /dev/net/tun to make a network namespace",
)

_CLONE_NEWNET = 0x40000000
_TUNSETIFF = 0x400454CA
_IFF_TUN = 0x0001
_IFF_NO_PI = 0x1000
_libc = ctypes.CDLL(None, use_errno=True)


def enter(namespace: str) -> None:
    """Moves the calling thread into a network namespace (setns(2))."""
    fd = os.open(f"/run/netns/{namespace}", os.O_RDONLY)
    try:
        if _libc.setns(fd, _CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def _tun(name: str) -> int:
    fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(fd, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return fd


def _tun_inside(namespace: str, name: str) -> int:
    found: list[int] = []

    def make() -> None:
        enter(namespace)
        found.append(_tun(name))

    thread = threading.Thread(target=make)
    thread.start()
    thread.join()
    return found[0]


def _ip(*command: str) -> None:
    subprocess.run(("ip", *command), check=True, capture_output=True)


class _Link(threading.Thread):
    def __init__(self, ends: tuple[int, int], delay: float) -> None:
        super().__init__(daemon=True)
        self._other = dict(zip(ends, reversed(ends), strict=True))
        self._delay = delay
        self._over, self._end = os.pipe()

    def run(self) -> None:
        due: list[tuple[float, int, bytes, int]] = []
        number = 0
        while True:
            wait = max(due[0][0] - monotonic(), 0) if due else None
            ready, _, _ = select.select([*self._other, self._over], [], [], wait)
            if self._over in ready:
                return
            for fd in ready:
                with contextlib.suppress(BlockingIOError):
                    number += 1
                    packet = os.read(fd, 65536)
                    heapq.heappush(due, (monotonic() + self._delay, number, packet, fd))
            while due and due[0][0] <= monotonic():
                _, _, packet, fd = heapq.heappop(due)
                with contextlib.suppress(OSError):
                    os.write(self._other[fd], packet)

    def close(self) -> None:
        os.close(self._end)
        self.join()
        for fd in (*self._other, self._over):
            os.close(fd)


@contextlib.contextmanager
def distant_host(delay: float) -> Iterator[tuple[str, str]]:
    """(its namespace, our address as seen from it); `delay`: seconds each way."""
    number = os.getpid() % 60000
    namespace, device = f"prefork-{number}", f"pf{number}"
    # 198.18.0.0/15 is for tests of network devices (RFC 2544): they are no host's real address.
    net = f"198.18.{number // 250}.{number % 250 // 4 * 4}"
    ours, theirs = (f"{net.rpartition('.')[0]}.{int(net.rpartition('.')[2]) + n}" for n in (1, 2))
    _ip("netns", "add", namespace)
    try:
        link = _Link((_tun(device), _tun_inside(namespace, device)), delay)
        try:
            _ip("addr", "add", f"{ours}/30", "dev", device)
            _ip("link", "set", device, "up")
            _ip("-n", namespace, "addr", "add", f"{theirs}/30", "dev", device)
            _ip("-n", namespace, "link", "set", device, "up")
            link.start()
            yield namespace, ours
        finally:
            link.close()
    finally:
        _ip("netns", "del", namespace)
