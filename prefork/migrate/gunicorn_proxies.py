"""Translates gunicorn's settings for trusted proxies, forwarded headers and bodies."""

from collections.abc import Callable
from typing import Any

from prefork.config.values import toml
from prefork.migrate.gunicorn_move import GunicornMove
from prefork.migrate.gunicorn_settings import SETTINGS

_SCHEME = "X-FORWARDED-PROTO"


def _trusted(move: GunicornMove, value: list[str] | None) -> None:
    """Sets the trusted proxies. gunicorn always trusts the peer of a Unix socket."""
    document = move.document
    comment = "gunicorn trusts these by default."
    proxies = ["127.0.0.1", "::1"]
    if value is not None:
        comment, proxies = "", list(value)
    elif said := move.environ.get("FORWARDED_ALLOW_IPS"):
        comment = "From FORWARDED_ALLOW_IPS, which gunicorn reads and prefork does not."
        proxies = [text.strip() for text in said.split(",") if text.strip()]
    everybody = "*" in proxies
    if everybody:
        proxies = ["0.0.0.0/0", "::/0"]
        comment = (
            "All peers, as before. List only the proxies: any client can forge its address now."
        )
    if everybody or _has_unix(move):
        proxies.append("unix")
    if move.get("proxy_protocol") != "off":
        proxies += [each for each in move.addresses("proxy_allow_ips") if each != "*"]
    if not proxies:
        return
    document.set("http.trusted_proxies", list(dict.fromkeys(proxies)), comment)
    document.set(
        "http.trusted_headers",
        ["X-Forwarded-For", "X-Forwarded-Proto"],
        "Add X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix or Forwarded only if the proxy"
        " sets it: otherwise a client can forge it. gunicorn passes these headers on unchanged.",
        fixed=True,
    )
    document.changed(
        "X-Forwarded-For",
        "from http.trusted_proxies it sets REMOTE_ADDR; gunicorn leaves the proxy's address there",
    )
    document.changed(
        "X-Forwarded-Host, X-Forwarded-Port, X-Forwarded-Prefix, Forwarded",
        "they are removed, while gunicorn passes them to the application unread; name those that"
        " your proxy sets in http.trusted_headers",
    )
    if not everybody and _is_reached_from_elsewhere(move):
        document.lost(
            "X-Forwarded-* from a proxy on another machine or in another container",
            "gunicorn passes these headers of every peer to the application; prefork removes them"
            f" unless the peer is one of http.trusted_proxies ({', '.join(proxies)}): add the"
            " proxy's address or network",
        )
    if value is None and "FORWARDED_ALLOW_IPS" not in move.environ:
        document.changed(
            "FORWARDED_ALLOW_IPS",
            "gunicorn reads this variable; if it is set on the server, write its addresses into"
            " http.trusted_proxies",
        )


def _has_unix(move: GunicornMove) -> bool:
    return any(text.startswith(("unix:", "fd:", "systemd")) for text in _bound(move))


def _bound(move: GunicornMove) -> list[str]:
    entry = move.document.settings.get("server.bind")
    return list(entry.value) if entry is not None else ["127.0.0.1:8000"]


def _is_reached_from_elsewhere(move: GunicornMove) -> bool:
    """Whether other machines can connect."""
    local = ("unix:", "127.", "localhost:", "[::1]:")
    return any(not text.startswith(local) for text in _bound(move))


def _scheme_headers(move: GunicornMove, value: dict[str, Any] | None) -> None:
    if value is None or value == SETTINGS["secure_scheme_headers"].default:
        return
    document = move.document
    headers = {name.upper(): text for name, text in value.items()}
    others = sorted(name for name in headers if name != _SCHEME)
    if headers.get(_SCHEME) != "https" or others:
        document.lost(
            f"secure_scheme_headers = {value!r}",
            "only X-Forwarded-Proto: https marks a request as https; let the proxy send"
            f" that{' in place of ' + ', '.join(others) if others else ''}",
        )


def _proxy_protocol(move: GunicornMove, value: str | None) -> None:
    if value in (None, "off", "false", "0"):
        return
    document = move.document
    document.set("http.proxy_protocol", True)
    document.changed(
        f"proxy_protocol = {value!r}",
        "a connection that does not begin with the PROXY header is closed; gunicorn may serve it",
    )
    if "*" in move.addresses("proxy_allow_ips") and "*" not in move.addresses(
        "forwarded_allow_ips"
    ):
        document.lost(
            'proxy_allow_ips = "*"', "name the proxies in http.trusted_proxies, for both headers"
        )


def _proxy_allow_ips(move: GunicornMove, value: list[str] | None) -> None:
    if value and move.get("proxy_protocol") == "off":
        move.document.unneeded("proxy_allow_ips", "there is no proxy_protocol")
    elif value:
        move.document.changed(
            f"proxy_allow_ips = {toml(value)}",
            "http.trusted_proxies is for both, the PROXY protocol and forwarded headers",
        )


def keep_bodies(move: GunicornMove) -> None:
    """Keeps gunicorn's behaviour: it has no limit for bodies."""
    document = move.document
    document.set(
        "http.max_body",
        0,
        "No limit, as before. Set one if the proxy has none (nginx: client_max_body_size, 1 MiB by"
        " default): a larger body gets 413. The default of prefork is 64 MiB.",
    )
    document.changed(
        "bodies",
        "a request's body is read before the application is called, into a temporary file if it is"
        " large; http.stream_body = true passes it on as it arrives",
    )


TRANSLATIONS: dict[str, Callable[[GunicornMove, Any], None]] = {
    "forwarded_allow_ips": _trusted,
    "secure_scheme_headers": _scheme_headers,
    "proxy_protocol": _proxy_protocol,
    "proxy_allow_ips": _proxy_allow_ips,
}
