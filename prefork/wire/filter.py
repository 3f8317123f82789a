"""The filter that runs in the kernel, so that only the packets of one port are received.

It is classic BPF for a packet(7) socket of type SOCK_DGRAM: offset 0 is the IP header for any link
layer.
"""

from typing import NamedTuple

from prefork.linux import Instruction

SNAP = 256 * 1024
"""The most bytes of a packet that are kept; only IPv6 jumbograms are longer."""

# linux/bpf_common.h and linux/filter.h
_LOAD_WORD, _LOAD_HALF, _LOAD_BYTE = 0x20, 0x28, 0x30
_LOAD_HALF_X = 0x48
_LOAD_IP_HEADER_LENGTH = 0xB1
_RIGHT_SHIFT = 0x74
_IF_EQUAL, _IF_ANY_BIT = 0x15, 0x45
_RETURN = 0x06
_OF_PACKET = 0xFFFFF000
"""The base of the offsets of a packet's metadata (SKF_AD_OFF)."""
_TYPE, _HARDWARE = _OF_PACKET + 4, _OF_PACKET + 28

_OUTGOING = 4  # linux/if_packet.h, PACKET_OUTGOING
_LOOPBACK = 772  # linux/if_arp.h, ARPHRD_LOOPBACK
_TCP = 6
_FRAGMENT_OFFSET = 0x1FFF


class _Line(NamedTuple):
    """An instruction; jumps name a label, and the empty label is the next line."""

    code: int
    k: int
    true: str = ""
    false: str = ""
    label: str = ""


# On lo every packet is captured twice, when it is sent and when it is received. The first one is
# kept: it is captured inside the system call that sends it.
_ONCE_ON_LOOPBACK = (
    _Line(_LOAD_WORD, _TYPE),
    _Line(_IF_EQUAL, _OUTGOING, true="once"),
    _Line(_LOAD_WORD, _HARDWARE),
    _Line(_IF_EQUAL, _LOOPBACK, true="drop"),
)


def _of_port(port: int) -> tuple[_Line, ...]:
    # A later fragment has no ports, and IPv6 extension headers move them: both are not captured.
    return (
        _Line(_LOAD_BYTE, 0, label="once"),
        _Line(_RIGHT_SHIFT, 4),
        _Line(_IF_EQUAL, 6, true="v6"),
        _Line(_IF_EQUAL, 4, false="drop"),
        _Line(_LOAD_BYTE, 9),
        _Line(_IF_EQUAL, _TCP, false="drop"),
        _Line(_LOAD_HALF, 6),
        _Line(_IF_ANY_BIT, _FRAGMENT_OFFSET, true="drop"),
        _Line(_LOAD_IP_HEADER_LENGTH, 0),
        _Line(_LOAD_HALF_X, 0),
        _Line(_IF_EQUAL, port, true="keep"),
        _Line(_LOAD_HALF_X, 2),
        _Line(_IF_EQUAL, port, true="keep", false="drop"),
        _Line(_LOAD_BYTE, 6, label="v6"),
        _Line(_IF_EQUAL, _TCP, false="drop"),
        _Line(_LOAD_HALF, 40),
        _Line(_IF_EQUAL, port, true="keep"),
        _Line(_LOAD_HALF, 42),
        _Line(_IF_EQUAL, port, true="keep", false="drop"),
        _Line(_RETURN, SNAP, label="keep"),
        _Line(_RETURN, 0, label="drop"),
    )


def port_filter(port: int) -> list[Instruction]:
    """A filter that passes TCP segments from or to a port, over IPv4 and IPv6."""
    return _assemble(_of_port(port))


def capture_filter(port: int) -> list[Instruction]:
    """The same, without the second copy of each packet on the loopback interface."""
    return _assemble(_ONCE_ON_LOOPBACK + _of_port(port))


def _assemble(lines: tuple[_Line, ...]) -> list[Instruction]:
    """The instructions; a jump is the number of instructions to skip."""
    places = {line.label: number for number, line in enumerate(lines) if line.label}

    def skip(number: int, label: str) -> int:
        return places[label] - number - 1 if label else 0

    return [
        (line.code, skip(number, line.true), skip(number, line.false), line.k)
        for number, line in enumerate(lines)
    ]
