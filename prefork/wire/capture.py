"""The packets of one port as they pass, from a packet(7) socket with a filter in the kernel.

No libpcap and no tcpdump: the socket, its filter and its timestamps are the kernel's own.
"""

import contextlib
import os
import select
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
"""Bytes that the kernel may keep for us where we have the right to ask for so much."""


class CaptureError(WireError):
    """The kernel gives nothing to look at."""


class Capture:
    """A look at one port, from its making on."""

    def __init__(self, interface: str, port: int) -> None:
        """`interface` may be ANY; raises CaptureError."""
        with _explained(interface), contextlib.ExitStack() as undo:
            # Of no protocol, it receives nothing until the filter is there and bind(2) names one.
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
        """Ends `frames`, from another thread; what has been seen by now still comes."""
        os.eventfd_write(self._stopped, 1)

    def frames(self) -> Iterator[Frame]:
        """What passes, until `stop`; raises CaptureError where the interface goes away."""
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
        """Packets that found no room since the last time this was asked (packet(7))."""
        statistics = self._sock.getsockopt(_SOL_PACKET, _PACKET_STATISTICS, 8)
        return int(struct.unpack("=II", statistics)[1])

    def _receive(self) -> Frame | None:
        with _explained(self._interface):
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
            # Up to net.core.rmem_max without CAP_NET_ADMIN.
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _BUFFER)


@contextlib.contextmanager
def _explained(interface: str) -> Iterator[None]:
    try:
        yield
    except PermissionError:
        raise CaptureError(
            "no right to capture: CAP_NET_RAW is missing; run it as root (sudo), or give it to"
            f" Python: sudo setcap cap_net_raw+ep {os.path.realpath(sys.executable)}"
        ) from None
    except OSError as error:
        names = ", ".join([name for _, name in socket.if_nameindex()] + [ANY])
        raise CaptureError(f"{interface}: {error.strerror or error}; there are {names}") from None
