"""Addresses, trusted proxies and TLS of servers for ASGI."""

import re
from collections.abc import Callable

from prefork import address
from prefork.migrate.asgi_move import AsgiMove

_EVERYBODY = ["0.0.0.0/0", "::/0", "unix"]
_HEADERS = ["X-Forwarded-For", "X-Forwarded-Proto"]
_REQUIRED = {"0": "none", "1": "optional", "2": "required"}
_REQUIRED |= {"cert_none": "none", "cert_optional": "optional", "cert_required": "required"}


# Addresses.


def translate_addresses(move: AsgiMove) -> None:
    texts = _listed(move) if move.server == "hypercorn" else _single(move)
    found: list[str] = []
    for name, text in texts:
        try:
            ours = str(address.parse(text))
        except ValueError as reason:
            hint = ""
            if "None" in text or text.endswith(":"):
                hint = "; is a shell variable not set here? Set it and repeat"
            move.document.lost(f"{name} {text}", f"{reason}{hint}")
            continue
        if ours not in found:
            found.append(ours)
            move.keys.setdefault(name, set()).add("server.bind")
    if found:
        variables = {each for name, _ in texts for each in move.line.origins.get(name, ())}
        if variables == {"PORT"} and len(found) == 1 and found[0].startswith("0.0.0.0:"):
            move.document.leave_out(
                "server.bind",
                found,
                "PORT sets it to 0.0.0.0:$PORT, but only as long as this line is a comment. Without"
                " PORT prefork listens on 127.0.0.1:8000.",
            )
        else:
            move.document.set("server.bind", found)
    backlog = move.get("backlog")
    if backlog is not None:
        move.set("backlog", "server.backlog", max(backlog, 1))


def _single(move: AsgiMove) -> list[tuple[str, str]]:
    """The one address of uvicorn, or those of daphne: (setting, address for prefork)."""
    found: list[tuple[str, str]] = []
    for path in (move.get("uds"), move.get("unix_socket")):
        if path:
            found.append(("uds" if move.server == "uvicorn" else "unix_socket", f"unix:{path}"))
    if move.get("fd") is not None:
        found.append(("fd", f"fd:{move.get('fd')}"))
    found += [("endpoint", text) for text in map(_endpoint(move), move.get("endpoint", []))]
    host, port = move.get("host"), move.get("port")
    if host or port or not found:
        if found and move.server == "uvicorn":
            return found[:1]  # uds, then fd, take precedence
        plain = str(host or "127.0.0.1").strip("[]")
        shown = f"[{plain}]" if ":" in plain else plain
        found.insert(0, ("port" if port else "host", f"{shown}:{port or 8000}"))
    return found


def _endpoint(move: AsgiMove) -> Callable[[str], str]:
    """Twisted's endpoint strings as addresses; a certificate in one becomes [tls]."""

    def translated(text: str) -> str:
        kind, _, rest = text.partition(":")
        plain: list[str] = []
        named: dict[str, str] = {}
        for part in re.split(r"(?<!\\):", rest):
            key, equals, value = part.partition("=")
            if equals:
                named[key] = value.replace("\\:", ":")
            else:
                plain.append(key.replace("\\:", ":"))
        first = plain[0] if plain else ""
        if kind == "unix":
            return f"unix:{named.get('address', first)}"
        if kind == "fd":
            return f"fd:{named.get('fileno', first)}"
        if kind not in ("tcp", "tcp6", "ssl"):
            return text
        host = named.get("interface", "::" if kind == "tcp6" else "0.0.0.0")
        ours = f"{f'[{host}]' if ':' in host else host}:{named.get('port', first)}"
        if kind == "ssl":
            certificate = named.get("certKey") or named.get("privateKey", "")
            move.document.set("tls.certificate", certificate)
            move.document.set("tls.key", named.get("privateKey", certificate))
            bound = move.document.settings.get("tls.bind")
            move.document.set("tls.bind", [*(bound.value if bound else []), ours])
        return ours

    return translated


def _listed(move: AsgiMove) -> list[tuple[str, str]]:
    """The addresses of hypercorn; with insecure ones, only the others speak TLS."""
    secure = [("bind", _hypercorn_address(text)) for text in move.get("bind", [])]
    secure = secure or [("bind", "127.0.0.1:8000")]
    insecure = [
        ("insecure_bind", _hypercorn_address(each)) for each in move.get("insecure_bind", [])
    ]
    if insecure and move.get("certfile"):
        move.document.set("tls.bind", [_normal(text) for _, text in secure])
    return secure + insecure


def _normal(text: str) -> str:
    """An address as server.bind has it; one that is wrong is reported there."""
    try:
        return str(address.parse(text))
    except ValueError:
        return text


def _hypercorn_address(text: str) -> str:
    if text.startswith("fd://"):
        return f"fd:{text.removeprefix('fd://')}"
    if text.startswith("unix:") or ":" in text.rpartition("]")[2]:
        return text
    return f"{text}:8000"


# Proxies.


def translate_proxies(move: AsgiMove) -> None:
    if move.server == "uvicorn":
        _uvicorn_proxies(move)
    elif move.server == "daphne" and move.get("proxy_headers"):
        _trust(
            move,
            "proxy_headers",
            _EVERYBODY,
            "All peers, as before. List only the proxies: any client can forge its address now.",
        )
    else:
        _trust(
            move,
            "",
            ["127.0.0.1", "::1", *(["unix"] if move.has_unix else [])],
            "The proxy on this machine: its headers name the client and the scheme.",
        )
        move.document.changed(
            "X-Forwarded-*",
            f"{move.server} passes these headers of every peer to the application; prefork reads"
            " X-Forwarded-For and X-Forwarded-Proto of http.trusted_proxies into the scope, and"
            " removes all others. Middleware that reads them (ProxyFixMiddleware) is not needed",
        )
    if _is_reached_from_elsewhere(move) and "http.trusted_proxies" in move.document.settings:
        proxies = move.document.settings["http.trusted_proxies"].value
        if "0.0.0.0/0" not in proxies:
            move.document.lost(
                "X-Forwarded-* from a proxy on another machine or in another container",
                "prefork removes these headers unless the peer is one of http.trusted_proxies"
                f" ({', '.join(proxies)}): add the proxy's address or network",
            )


def _uvicorn_proxies(move: AsgiMove) -> None:
    document = move.document
    if move.get("proxy_headers") is False:
        document.changed(
            "--no-proxy-headers",
            "nobody is trusted, as before; but the headers X-Forwarded-* are removed, where uvicorn"
            " passes them to the application",
        )
        return
    value = move.get("forwarded_allow_ips")
    comment = ""
    if value is None and (said := move.line.environ.get("FORWARDED_ALLOW_IPS")):
        value = said
        comment = "From FORWARDED_ALLOW_IPS, which uvicorn reads and prefork does not."
    elif value is None:
        value, comment = "127.0.0.1,::1", "uvicorn trusts these by default."
        document.changed(
            "FORWARDED_ALLOW_IPS",
            "uvicorn reads this variable; if it is set on the server, write its addresses into"
            " http.trusted_proxies",
        )
    parts = [text.strip() for text in str(value).split(",") if text.strip()]
    if "*" in parts:
        proxies = _EVERYBODY
        comment = (
            "All peers, as before. List only the proxies: any client can forge its address now."
        )
    else:
        proxies = []
        for text in parts:
            if "/" in text.rstrip("0123456789").rstrip("/") or text.startswith("/"):
                proxies.append("unix")
            elif re.fullmatch(r"[0-9a-fA-F:.]+(/\d+)?", text):
                proxies.append(text)
            else:
                document.lost(
                    f"forwarded_allow_ips {text}",
                    "uvicorn compares it with the peer's address; name an address or a network",
                )
    if proxies:
        _trust(move, "forwarded_allow_ips", list(dict.fromkeys(proxies)), comment)
    if move.has_unix and "unix" not in proxies:
        document.changed(
            "X-Forwarded-* over the Unix socket",
            'uvicorn does not believe them without "*"; nor does prefork: add "unix" to'
            " http.trusted_proxies if the proxy connects there",
        )


def _trust(move: AsgiMove, name: str, proxies: list[str], comment: str) -> None:
    document = move.document
    move.set(name, "http.trusted_proxies", proxies, comment)
    document.set(
        "http.trusted_headers",
        _HEADERS,
        "Add X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix or Forwarded only if the proxy"
        " sets it: otherwise a client can forge it.",
        fixed=True,
    )


def _is_reached_from_elsewhere(move: AsgiMove) -> bool:
    local = ("unix:", "127.", "localhost:", "[::1]:")
    return any(not text.startswith(local) for text in move.bound)


# TLS.


def translate_tls(move: AsgiMove) -> None:
    document = move.document
    prefix = "ssl_" if move.server == "uvicorn" else ""
    certificate, key = f"{prefix}certfile", f"{prefix}keyfile"
    authorities = f"{prefix}ca_certs"
    asked = move.get(f"{prefix}cert_reqs", move.get("verify_mode"))
    if not move.get(certificate):
        for name in (key, authorities):
            if move.get(name):
                document.unneeded(name, "there is no certificate, so no TLS")
        return
    move.set(certificate, "tls.certificate", move.get(certificate))
    if move.get(key):
        move.set(key, "tls.key", move.get(key))
    wanted = _REQUIRED.get(str(asked or 0).lower(), "none")
    if wanted == "none":
        if move.get(authorities):
            document.unneeded(authorities, "no client is asked for a certificate")
    elif not move.get(authorities):
        document.lost(
            f"{prefix}cert_reqs {asked}",
            f"without {authorities} no certificate of a client can be verified; name the"
            " authorities' file as tls.client_ca, and set tls.client_auth",
        )
    else:
        document.set("tls.client_auth", wanted)
        move.set(authorities, "tls.client_ca", move.get(authorities))
