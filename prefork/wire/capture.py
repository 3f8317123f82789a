"""The packets of one port, captured with a packet(7) socket and a filter in the kernel.

Neither libpcap nor tcpdump is needed: the kernel provides socket, filter and timestamps.
"""

import contextlib
import errno
import os
import select
import shlex
import socket
import struct
import sys
from collections.abc import Iterator
from types import TracebackType
from typing import Self

from prefork.linux import attach_filter, bind_packet
from prefork.wire.filter import SNAP, capture_filter
from prefork.wire.packet import Frame, WireError

ANY = "any"
"""All interfaces at once."""

_ETH_P_ALL = 0x0003  # linux/if_ether.h
_SOL_PACKET, _PACKET_STATISTICS = 263, 6  # linux/socket.h, linux/if_packet.h
_SO_TIMESTAMPNS = 35  # asm-generic/socket.h; socket(7) calls it SO_TIMESTAMPNS
_SO_RCVBUFFORCE = 33
_TIME = struct.Struct("@ll")
_BUFFER = 32 * 1024 * 1024
"""The size of the receive buffer, if this process may set it."""


class CaptureError(WireError):
    """Packets cannot be captured."""


class Capture:
    """The capture of one port; it begins with the constructor."""

    def __init__(self, interface: str, port: int) -> None:
        """`interface` may be ANY; raises CaptureError."""
        with _as_capture_error(interface), contextlib.ExitStack() as undo:
            # With protocol 0 it receives nothing until the filter is attached and bind(2) names
            # one.
            self._sock = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, 0)
            undo.callback(self._sock.close)
            attach_filter(self._sock, capture_filter(port))
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_TIMESTAMPNS, 1)
            self._enlarge()
            index = 0 if interface == ANY else socket.if_nametoindex(interface)
            bind_packet(self._sock, index, _ETH_P_ALL)
            self._stopped = os.eventfd(0, os.EFD_CLOEXEC)
            undo.pop_all()
        self._interface = interface
        self._room = bytearray(SNAP)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._sock.close()
        os.close(self._stopped)

    def stop(self) -> None:
        """Ends `frames`, from another thread, after the packets that were captured by now."""
        os.eventfd_write(self._stopped, 1)

    def frames(self) -> Iterator[Frame]:
        """The captured frames, until `stop`.  Raises CaptureError if the interface disappears."""
        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        poll.register(self._stopped, select.POLLIN)
        while True:
            stopped = self._stopped in dict(poll.poll())
            while (frame := self._receive()) is not None:
                yield frame
            if stopped:
                return

    def lost(self) -> int:
        """The number of packets dropped for want of buffer since the last call, packet(7)."""
        statistics = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[1])

    def _receive(self) -> Frame | None:
        with _as_capture_error(self._interface):
            try:
                size, about, _, address = self._sock.recvmsg_into(
                    [self._room], 64, socket.MSG_DONTWAIT
                )
            except BlockingIOError:
                return None
        seconds, nanoseconds = _TIME.unpack(about[0][2])
        at = seconds * 1_000_000_000 + nanoseconds
        return Frame(at, bytes(self._room[:size]), address[0])

    def _enlarge(self) -> None:
        try:
            self._sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _BUFFER)
        except PermissionError:
            # Without CAP_NET_ADMIN the limit is net.core.rmem_max.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


def _remedy() -> str:
    """How this command gets the right, and no other program."""
    if os.geteuid() == 0:
        return "root has lost it here: start the container with --cap-add=NET_RAW, or use the host"
    # With its full path: sudo has another PATH than a virtual environment.
    command = shlex.join([sys.executable, "-m", "prefork", *sys.argv[1:]])
    return f"run it with sudo: sudo {command}"


@contextlib.contextmanager
def _as_capture_error(interface: str) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise CaptureError(
            f"no permission to capture: CAP_NET_RAW is missing; {_remedy()}"
        ) from None
    except OSError as error:
        names = ", ".join([name for _, name in socket.if_nameindex()] + [ANY])
        # As the words of if_nametoindex() were before CPython 3.13.
        reason = "no interface with this name" if error.errno == errno.ENODEV else error.strerror
        raise CaptureError(f"{interface}: {reason or error}; the interfaces are {names}") from None
