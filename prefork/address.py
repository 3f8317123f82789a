"""The addresses that a server binds and a client connects to, as text and as a value.

Only this module parses the grammar (`host:port`, `[v6]:port`, `unix:/path`, `unix:@name`, `fd:N`,
`systemd[:NAME]`), so that the configuration, the listeners and the client agree on it. It makes no
system call. Equal addresses have equal canonical text, by which a reload finds the listeners that
it keeps.
"""

import ipaddress
import re
import socket
from typing import Literal

from msgspec import Struct

Kind = Literal["tcp", "unix", "abstract", "fd", "systemd"]

UNIX_PATH_MAX = 107
"""Bytes of a path in a Unix socket address, without its NUL: sun_path has 108, unix(7)."""

_NAME = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")


class Address(Struct, frozen=True):
    """One address, made by `parse`; `str()` is its canonical text.

    host, port: of "tcp"; the port is 0 to 65535, with 0 the kernel chooses one. path: the path of
    "unix", the name of "abstract" (without its NUL), or the name of "systemd" ("":
        all sockets that were passed).
    number: the descriptor of "fd".
    """

    kind: Kind
    host: str = ""
    port: int = 0
    path: str = ""
    number: int = 0

    @property
    def family(self) -> socket.AddressFamily:
        """AF_INET, AF_INET6 or AF_UNIX; AF_UNSPEC if only the system knows it (a host name, an
        inherited descriptor)."""
        if self.kind in ("unix", "abstract"):
            return socket.AF_UNIX
        if self.kind != "tcp":
            return socket.AF_UNSPEC
        if ":" in self.host:
            return socket.AF_INET6
        return socket.AF_INET if _is_numeric(self.host) else socket.AF_UNSPEC

    def __str__(self) -> str:
        match self.kind:
            case "tcp":
                host = f"[{self.host}]" if ":" in self.host else self.host
                return f"{host}:{self.port}"
            case "unix":
                return f"unix:{self.path}"
            case "abstract":
                return f"unix:@{self.path}"
            case "fd":
                return f"fd:{self.number}"
            case "systemd":
                return f"systemd:{self.path}" if self.path else "systemd"


def parse(text: str) -> Address:
    """The address of a text.

    A Unix path may be relative; the caller knows the directory.
    Raises ValueError with the reason, as words that can follow the text and a colon.
    """
    if not text:
        raise ValueError("empty; write host:port, unix:/path, fd:N or systemd")
    if not text.isprintable():
        raise ValueError("contains a control or unprintable character")
    if text.startswith("unix:"):
        return _parse_unix(text.removeprefix("unix:"))
    if text.startswith("fd:"):
        return _parse_fd(text.removeprefix("fd:"))
    if text == "systemd" or text.startswith("systemd:"):
        return _parse_systemd(text.removeprefix("systemd"))
    return _parse_tcp(text)


def _parse_unix(path: str) -> Address:
    name = path.removeprefix("@")
    if not name:
        raise ValueError("no path; write unix:/path or unix:@name")
    if (length := len(name.encode(errors="surrogateescape"))) > UNIX_PATH_MAX:
        raise ValueError(f"{length} bytes is too long for a Unix socket (at most {UNIX_PATH_MAX})")
    if path.startswith("@"):
        return Address("abstract", path=name)
    if path.endswith("/"):
        raise ValueError("ends with a slash; give the path of the socket file")
    return Address("unix", path=path)


def _parse_fd(number: str) -> Address:
    # A descriptor is a C int. str.isdigit() alone would take "²", which int() refuses.
    if not (number.isascii() and number.isdigit()) or len(number) > 10 or int(number) >= 2**31:
        raise ValueError("expected the number of an open descriptor, as in fd:3")
    return Address("fd", number=int(number))


def _parse_systemd(rest: str) -> Address:
    # sd_listen_fds_with_names(3): a name has at most 255 printable ASCII characters and no colon.
    name = rest.removeprefix(":")
    if rest == ":":
        raise ValueError("no name after the colon; write systemd:NAME or systemd")
    if not name.isascii() or ":" in name or len(name) > 255:
        raise ValueError("a name has at most 255 ASCII characters and no colon")
    return Address("systemd", path=name)


def _parse_tcp(text: str) -> Address:
    if "://" in text:
        raise ValueError("this is a URL; write host:port")
    host, colon, port = text.rpartition(":")
    if not colon:
        raise ValueError(_no_port(text))
    return Address("tcp", host=_parse_host(host), port=_parse_port(port))


def _no_port(text: str) -> str:
    if "/" in text:
        return f"no port; for a path write unix:{text}"
    return f"no port; write :{text}" if text.isdigit() else f"no port; write {text}:8000"


def _parse_port(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or len(text) > 5 or int(text) > 65535:
        raise ValueError(f'the port "{text}" is not a number from 0 to 65535')
    return int(text)


def _parse_host(text: str) -> str:
    if not text:
        return "0.0.0.0"
    if text.startswith("[") and text.endswith("]"):
        return _parse_ipv6(text[1:-1])
    if ":" in text or "[" in text or "]" in text:
        raise ValueError("write an IPv6 address in brackets, as in [::1]:8000")
    if text == "*":
        raise ValueError("write :PORT for every IPv4 interface, [::]:PORT for every interface")
    if text.replace(".", "").isdigit():
        return _parse_ipv4(text)
    name = text.lower()
    if len(name) > 253 or not _NAME.fullmatch(name):
        raise ValueError(f'"{text}" is not a host name')
    return name


def _parse_ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise ValueError(f'"{text}" is not an IPv4 address') from None


def _parse_ipv6(text: str) -> str:
    try:
        return str(ipaddress.IPv6Address(text))
    except ValueError:
        raise ValueError(f'"{text}" is not an IPv6 address') from None


def _is_numeric(host: str) -> bool:
    return host.replace(".", "").isdigit()
