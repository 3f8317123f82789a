"""Capture files: ours read back, and others that are whole, cut, or no captures at all."""

import gzip
import struct
from pathlib import Path

import pytest
from scapy.layers.inet import IP, TCP

from prefork.wire.packet import Frame
from prefork.wire.pcap_files import FileError, Writer, read

DATA = bytes(IP(src="127.0.0.1", dst="127.0.0.1") / TCP(sport=50000, dport=8000) / b"hello")
FRAMES = [Frame(1_700_000_000_123_456_789, DATA), Frame(1_700_000_001_000_000_001, DATA + b"!")]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A file with FRAMES."""
    path = tmp_path / "a.pcap"
    with Writer(str(path)) as writer:
        for frame in FRAMES:
            writer.write(frame)
    return path


def problem(path: Path) -> str:
    with pytest.raises(FileError) as caught:
        list(read(str(path)))
    return str(caught.value)


def test_what_was_written_is_read_to_the_nanosecond(path: Path) -> None:
    assert list(read(str(path))) == FRAMES


def test_each_frame_is_in_the_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    with Writer(str(path)) as writer:
        assert list(read(str(path))) == []
        writer.write(FRAMES[0])
        assert list(read(str(path))) == FRAMES[:1]


def test_a_gzipped_file(path: Path, tmp_path: Path) -> None:
    packed = tmp_path / "a.pcap.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert list(read(str(packed))) == FRAMES


@pytest.mark.parametrize("order", ["<", ">"])
def test_microseconds_and_both_byte_orders(tmp_path: Path, order: str) -> None:
    path = tmp_path / "a.pcap"
    header = struct.pack(f"{order}IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 101)
    record = struct.pack(f"{order}IIII", 1_700_000_000, 999_999, len(DATA), len(DATA))
    path.write_bytes(header + record + DATA)
    assert list(read(str(path))) == [Frame(1_700_000_000_999_999_000, DATA)]


def block(kind: int, body: bytes) -> bytes:
    size = len(body) + 12
    return struct.pack("<II", kind, size) + body + struct.pack("<I", size)


def test_pcapng_with_nanoseconds_and_with_no_times(tmp_path: Path) -> None:
    section = block(0x0A0D0D0A, struct.pack("<IHHq", 0x1A2B3C4D, 1, 0, -1))
    resolution = struct.pack("<HHB3xHH", 9, 1, 9, 0, 0)
    interface = block(1, struct.pack("<HHI", 101, 0, 0x40000) + resolution)
    at, padded = FRAMES[0].at, DATA + bytes(-len(DATA) % 4)
    times = struct.pack("<IIIII", 0, at >> 32, at & 0xFFFFFFFF, len(DATA), len(DATA))
    enhanced = block(6, times + padded)
    simple = block(3, struct.pack("<I", len(DATA)) + padded)
    path = tmp_path / "a.pcapng"
    path.write_bytes(section + interface + enhanced + simple)
    assert list(read(str(path))) == [FRAMES[0], Frame(0, DATA)]


def test_a_file_cut_in_a_frame_is_read_up_to_there(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-3])
    frames = read(str(path))
    assert next(frames).data == DATA
    assert next(frames).data == DATA[:-2]
    with pytest.raises(FileError, match="damaged or truncated: "):
        next(frames)


@pytest.mark.parametrize(
    "content", [b"", b"GET", b"not a capture file at all", b"\x1f\x8bnot gzip"]
)
def test_what_is_no_capture_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x"
    path.write_bytes(content)
    assert problem(path) == "not a pcap or pcapng file"


def test_a_link_that_is_not_understood(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    header = struct.pack("<IHHIIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 250)
    path.write_bytes(header + struct.pack("<IIII", 0, 0, 4, 4) + b"abcd")
    assert problem(path) == "frame 1: unknown link type 250"


def test_files_that_cannot_be_opened(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        list(read(str(tmp_path / "none")))
    with pytest.raises(IsADirectoryError):
        Writer(str(tmp_path))
