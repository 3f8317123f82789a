"""uWSGI's sockets, and the proxy in front of them."""

import re

from prefork import address
from prefork.migrate.uwsgi_move import UwsgiMove


def translate(move: UwsgiMove) -> None:
    document = move.document
    found: list[str] = []
    spoken = move.text("protocol") == "http"
    for name in ("socket", "http-socket", "http", "https"):
        for text in move.values.get(name, []):
            parts = text.split(",")
            try:
                ours = _address(move, parts[0])
            except ValueError as reason:
                document.lost(f"{name} = {text}", str(reason))
                continue
            if ours in found:
                continue
            found.append(ours)
            if name == "socket" and not spoken:
                document.lost(f"socket = {text}", _nginx(ours))
            elif name == "https" and len(parts) >= 3:
                document.set("tls.certificate", move.path(parts[1]))
                document.set("tls.key", move.path(parts[2]))
                document.set("tls.bind", [*_tls_bind(move), ours])
    if found:
        document.set("server.bind", found)
    files = [text for text in found if text.startswith("unix:")]
    if files:
        _socket_files(move)
    _proxies(move, found, bool(files))
    if (backlog := move.number("listen")) is not None:
        document.set("server.backlog", max(backlog, 1))
    seconds = move.number("http-keepalive")
    if seconds:
        document.set("http.keepalive", seconds)
    elif move.called.get("http-socket") != "http11-socket":
        document.set(
            "http.keepalive_requests",
            1,
            "uWSGI closes each connection after one answer. Idle connections cost no worker"
            " here: delete this line to keep them open, for http.keepalive seconds.",
        )


def _tls_bind(move: UwsgiMove) -> list[str]:
    entry = move.document.settings.get("tls.bind")
    return list(entry.value) if entry else []


def _address(move: UwsgiMove, text: str) -> str:
    text = text.strip()
    if text.startswith("fd://"):
        return str(address.parse(f"fd:{text.removeprefix('fd://')}"))
    if text.startswith("@"):
        return str(address.parse(f"unix:{text}"))
    path = text.removeprefix("unix://").removeprefix("unix:")
    if "/" in path or ":" not in path:
        return str(address.parse(f"unix:{move.path(path)}"))
    return str(address.parse(text.replace("*:", ":")))


def _socket_files(move: UwsgiMove) -> None:
    document = move.document
    mode = move.text("chmod-socket")
    if mode in ("true", "1"):
        document.set("server.unix_mode", "0666")
    elif re.fullmatch(r"0?[0-7]{3}", mode):
        document.set("server.unix_mode", f"0{mode[-3:]}")
    else:
        document.set(
            "server.unix_mode",
            "0755",
            'As with the usual umask: only its owner may connect. The proxy needs "0660" and'
            ' unix_owner, or "0666".',
        )
    if owner := move.text("chown-socket"):
        document.set("server.unix_owner", owner)


def _proxies(move: UwsgiMove, found: list[str], unix: bool) -> None:
    document = move.document
    document.set(
        "http.trusted_proxies",
        ["127.0.0.1", "::1", *(["unix"] if unix else [])],
        "The proxy on this machine: its headers name the client and the scheme.",
    )
    document.set("http.trusted_headers", ["X-Forwarded-For", "X-Forwarded-Proto"])
    document.changed(
        "X-Forwarded-*",
        "from http.trusted_proxies X-Forwarded-For sets REMOTE_ADDR and X-Forwarded-Proto the"
        " scheme. From others, and if http.trusted_headers does not name them, these headers"
        " are removed; uWSGI passes them on",
    )
    local = ("unix:", "127.", "localhost:", "[::1]:")
    if any(not text.startswith(local) for text in found):
        document.lost(
            "X-Forwarded-* from a proxy on another machine or in another container",
            "these headers are removed unless the peer is one of http.trusted_proxies: add the"
            " proxy's address or network",
        )
    if move.is_set("enable-proxy-protocol"):
        document.set("http.proxy_protocol", True)


def _nginx(bound: str) -> str:
    """What nginx needs in place of uwsgi_pass, as lines of its configuration."""
    where = f"unix:{bound.removeprefix('unix:')}" if bound.startswith("unix:") else bound
    if where.startswith("0.0.0.0:"):
        where = f"127.0.0.1:{where.rpartition(':')[2]}"
    return "\n".join(
        [
            "the uwsgi protocol is not spoken here; nginx needs, in place of uwsgi_pass and"
            " include uwsgi_params:",
            f"proxy_pass http://{where};",
            "proxy_set_header Host $http_host;",
            "proxy_set_header X-Forwarded-For $remote_addr;",
            "proxy_set_header X-Forwarded-Proto $scheme;",
        ]
    )
