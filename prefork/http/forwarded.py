"""Headers in which proxies describe their client: Forwarded (RFC 7239) and X-Forwarded-*.

Each proxy adds the address that it was called from at the right end of a list.  So the list is
read from the right, as long as its writers are trusted: the first address that is not a
trusted proxy's is the client, and whatever stands left of it is that client's own invention.

No socket is touched here.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from functools import lru_cache
from ipaddress import ip_address, ip_network
from itertools import islice
from typing import Any, NamedTuple

from prefork.http.head_rules import Reject, unquote

UNIX = "unix"
"""Stands among trusted networks for the peers of Unix sockets."""

_KNOWN_PEERS = 4096
"""Addresses whose trust is remembered."""

_MAX_HOPS = 64
"""Proxies in a row; a client can send a list of trusted addresses of any length."""

_MAX_ITEMS = 2 * _MAX_HOPS
"""Items of a list that are looked at, from the right; some may be empty."""

_MAX_PAIRS = 512
"""Parameters in one Forwarded, which is read from the left because of its quotes."""

Trusts = Callable[[str], bool]
"""Whether an address is a trusted proxy's; "" is the peer of a Unix socket."""


def trust(networks: Iterable[str]) -> Trusts:
    """`networks`: trusted addresses, networks, and "unix".  Raises ValueError for anything else."""
    named = set(networks)
    unix = UNIX in named
    known = [ip_network(each) for each in named - {UNIX}]

    @lru_cache(_KNOWN_PEERS)
    def trusts(host: str) -> bool:
        if not host:
            return unix
        try:
            address = ip_address(host.partition("%")[0])  # a link-local one has its interface
        except ValueError:
            return False
        return any(address in network for network in known)

    return trusts


class Forwarding(NamedTuple):
    """The values that are believed; None if there is none, or none that is valid."""

    address: str | None = None
    port: str | None = None
    """The client's port, if the proxy has sent it."""
    scheme: str | None = None
    host: str | None = None
    server_port: str | None = None
    prefix: str | None = None


class _Hop(NamedTuple):
    """One address of a list; `host` is None for "unknown", and for any other text."""

    host: str | None
    port: str | None


_NODE = re.compile(r"(?:\[([0-9A-Fa-f:.]+)\]|([0-9.]+))(?::([0-9]{1,5}))?")
_HOST = re.compile(r"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~-]+)(?::([0-9]{1,5}))?")
_PREFIX = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@%-]+)+")
_PORTS = {"http": "80", "https": "443"}


def _hop(text: str) -> _Hop:
    node = _NODE.fullmatch(text)
    host, port = (node[1] or node[2], node[3]) if node is not None else (text, None)
    try:
        address = ip_address(host)
    except ValueError:
        return _Hop(None, None)
    mapped = getattr(address, "ipv4_mapped", None)
    return _Hop(str(mapped or address), port if port is None or int(port) < 65536 else None)


def _client(nodes: Iterable[str], trusts: Trusts) -> tuple[_Hop, int]:
    """The client among the entries of a list, the right-most one first, and its place from 1.

    An entry that is no address, such as "unknown", ends the search: it hides the entries that
    follow.  If already the first is none, no client is known, and its place is 0.  What stands
    left of the client is never looked at, so that its length costs nothing.
    """
    client, place = _Hop(None, None), 0
    for node in islice(nodes, _MAX_HOPS):
        hop = _hop(node)
        if hop.host is None:
            break
        client, place = hop, place + 1
        if not trusts(hop.host):
            break
    return client, place


def read(headers: Mapping[str, str], trusts: Trusts) -> Forwarding:
    """The values of a trusted peer; `headers` by their names in the environ (HTTP_FORWARDED, ...).

    Raises Reject(400) if Forwarded is malformed, or the two kinds disagree on the client: then
    one of them is a client's own, which a proxy that knows only the other has let through.
    """
    several = _read_x_forwarded(headers, trusts)
    text = headers.get("HTTP_FORWARDED")
    if text is None:
        return several
    single = _read_forwarded(text, trusts)
    if "HTTP_X_FORWARDED_FOR" in headers and single.address != several.address:
        raise Reject(400, "Forwarded and X-Forwarded-For disagree")
    return Forwarding(
        *(one if one is not None else other for one, other in zip(single, several, strict=True))
    )


def _from_right(text: str) -> Iterator[str]:
    """The items of a list, the right-most one first; nothing for an empty text."""
    end = len(text)
    while end > 0:
        comma = text.rfind(",", 0, end)
        yield text[comma + 1 : end].strip()
        end = comma
    if end == 0:
        yield ""  # the text begins with a comma


def _read_x_forwarded(headers: Mapping[str, str], trusts: Trusts) -> Forwarding:
    text = headers.get("HTTP_X_FORWARDED_FOR", "")
    client, place = _client(filter(None, islice(_from_right(text), _MAX_ITEMS)), trusts)
    # How many proxies have added to the lists: of another list, the same one's entry counts.
    depth = place or 1

    def said(name: str) -> str | None:
        items = list(islice(_from_right(headers.get(f"HTTP_X_FORWARDED_{name}", "")), depth))
        return items[-1] if items else None

    port = said("PORT")
    return Forwarding(
        client.host,
        client.port,
        _scheme(said("PROTO")),
        _host(said("HOST")),
        port if port is not None and _is_port(port) else None,
        _prefix(said("PREFIX")),
    )


_PAIR = re.compile(
    r"[ \t]*([!#$%&'*+\-.^_`|~0-9A-Za-z]+)="
    r"(?:([!#$%&'*+\-.^_`|~0-9A-Za-z:\[\]]+)"
    r'|"((?:[\t \x21\x23-\x5b\x5d-\x7e\x80-\xff]|\\[\t\x20-\xff])*)")'
    r"[ \t]*(;|,|\Z)"
)
_EMPTY = re.compile(r"[ \t]*(;|,|\Z)")


def _elements(text: str) -> list[dict[str, str]]:
    """The elements of Forwarded (RFC 7239 section 4), by lower-case parameter.

    Raises Reject(400).  Colons and brackets are taken without quotes, as some proxies send them.
    """
    if text.count(",") + text.count(";") >= _MAX_PAIRS:
        raise Reject(400, f"Forwarded has more than {_MAX_PAIRS} parameters")
    elements: list[dict[str, str]] = []
    pairs: dict[str, str] = {}
    at = 0
    while at < len(text):
        match = _PAIR.match(text, at)
        if match is not None:
            name = match[1].lower()
            if name in pairs:
                raise Reject(400, f"Forwarded has {name} twice in one element")
            value = match[2] if match[2] is not None else re.sub(r"\\(.)", r"\1", match[3])
            pairs[name] = value
        else:
            match = _EMPTY.match(text, at)
            if match is None:
                raise Reject(400, "malformed Forwarded")
        at = match.end()
        if match[match.lastindex or 0] == "," or at == len(text):
            if pairs:
                elements.append(pairs)
            pairs = {}
    return elements


def _read_forwarded(text: str, trusts: Trusts) -> Forwarding:
    elements = _elements(text)
    if not elements:
        return Forwarding()
    nodes = (element.get("for", "") for element in reversed(elements))
    client, place = _client(nodes, trusts)
    # One that names no address is still the last proxy's word on the rest.
    said = elements[-(place or 1)]
    return Forwarding(client.host, client.port, _scheme(said.get("proto")), _host(said.get("host")))


def _scheme(text: str | None) -> str | None:
    scheme = text.lower() if text is not None else ""
    return scheme if scheme in _PORTS else None


def _is_port(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) < 6 and 0 < int(text) < 65536


def _host(text: str | None) -> str | None:
    match = _HOST.fullmatch(text) if text is not None else None
    if match is None or (match[1] is not None and not _is_port(match[1])):
        return None
    return match[0]


def _prefix(text: str | None) -> str | None:
    path = text.rstrip("/") if text is not None else ""
    if not _PREFIX.fullmatch(path):
        return None
    decoded = unquote(path.encode("latin-1")).decode("latin-1")
    return None if ".." in decoded.split("/") else decoded


def apply(environ: MutableMapping[str, Any], said: Forwarding) -> None:
    """Puts the values that are believed into the variables of PEP 3333 and CGI (RFC 3875)."""
    if said.address is not None:
        environ["REMOTE_ADDR"] = said.address
        environ["REMOTE_PORT"] = said.port or ""
    scheme = said.scheme or environ["wsgi.url_scheme"]
    if said.scheme is not None:
        environ["wsgi.url_scheme"] = scheme
        environ.pop("HTTPS", None)
        if scheme == "https":
            environ["HTTPS"] = "on"
    if said.prefix is not None:
        environ["SCRIPT_NAME"] = said.prefix
    if said.scheme is None and said.host is None and said.server_port is None:
        return
    host = said.host or environ.get("HTTP_HOST", "")
    name, port = _split(host)
    if said.server_port is not None:
        port = said.server_port
        if host:
            host = name if port == _PORTS[scheme] else f"{name}:{port}"
    if host:
        environ["HTTP_HOST"] = host
    if said.host is not None:
        environ["SERVER_NAME"] = name
    environ["SERVER_PORT"] = port or _PORTS[scheme]


def _split(host: str) -> tuple[str, str]:
    """The name and the port of a Host header; either may be empty."""
    name, colon, port = host.rpartition(":")
    return (name, port) if colon and not port.endswith("]") else (host, "")
