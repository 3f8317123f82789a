"""Capture files: written as pcap, read as pcap or pcapng, plain or gzipped."""

import logging
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

from scapy.error import Scapy_Exception
from scapy.utils import RawPcapReader, RawPcapWriter

from prefork.wire.dissect import unwrap
from prefork.wire.filter import SNAP
from prefork.wire.packet import Frame, WireError

_SECOND = 1_000_000_000
_RAW_IP = 101
"""LINKTYPE_RAW: no link header, IPv4 or IPv6 by its first bits (tcpdump.org/linktypes.html)."""


class FileError(WireError):
    """A file cannot be read to its end."""


class Writer:
    """A pcap file with times in nanoseconds; frames are written without a buffer."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        # Opened here, since scapy would leave its file open if the header cannot be written.
        self._file = open(path, "wb", buffering=0)  # noqa: SIM115
        self._pcap = RawPcapWriter(self._file, linktype=_RAW_IP, nano=True, snaplen=SNAP)
        self._pcap.write_header(None)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, frame: Frame) -> None:
        """Raises OSError."""
        seconds, rest = divmod(frame.at, _SECOND)
        self._pcap.write_packet(frame.data, sec=seconds, usec=rest)


def read(path: str) -> Iterator[Frame]:
    """The IP packets of a capture file, in order.

    Raises OSError, and FileError if it is not a capture file, or if it is truncated or damaged,
    after the packets that could be read.
    """
    with _ScapyWarnings() as warnings:
        try:
            with RawPcapReader(path) as reader:
                for number, (data, about) in enumerate(reader, 1):
                    yield from _frames(reader, data, about, number)
        except Scapy_Exception:
            raise FileError("not a pcap or pcapng file") from None
    if warnings.messages:
        raise FileError(f"damaged or truncated: {warnings.messages[0]}")


def _frames(reader: Any, data: bytes, about: Any, number: int) -> Iterator[Frame]:
    link = getattr(about, "linktype", None)
    try:
        packet = unwrap(data, reader.linktype if link is None else link)
    except ValueError as error:
        raise FileError(f"frame {number}: {error}") from None
    if packet is not None:
        yield Frame(_time(reader, about), packet)


def _time(reader: Any, about: Any) -> int:
    if hasattr(about, "tsresol"):
        # Simple packet blocks of pcapng have no timestamp.
        ticks = ((about.tshigh or 0) << 32) | (about.tslow or 0)
        return int(ticks * _SECOND // about.tsresol)
    return int(about.sec * _SECOND + about.usec * (1 if reader.nano else 1000))


class _ScapyWarnings(logging.Handler):
    """Collects the warnings that scapy logs about a file."""

    _logger = logging.getLogger("scapy.runtime")

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.messages.append(" ".join(record.getMessage().split()))

    def __enter__(self) -> Self:
        self._logger.addHandler(self)
        self._propagated, self._logger.propagate = self._logger.propagate, False
        return self

    def __exit__(self, *_: object) -> None:
        self._logger.propagate = self._propagated
        self._logger.removeHandler(self)
