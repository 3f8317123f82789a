"""`migrate` translates the start lines of uvicorn, hypercorn and daphne."""

import os
import re

from prefork.config.load import variable
from prefork.config.values import MIB, nearest, toml
from prefork.migrate.asgi_command import AsgiLine
from prefork.migrate.asgi_move import AsgiMove
from prefork.migrate.asgi_network import translate_addresses, translate_proxies, translate_tls
from prefork.migrate.asgi_options import SERVERS
from prefork.migrate.document import Document
from prefork.migrate.migration_report import Fate
from prefork.migrate.python_file import SourceError
from prefork.migrate.secrets import is_secret

_TITLE = (
    "From {shown}, by `prefork migrate {server}`. Keep this file in the directory that {server} was"
    " started in: relative paths are relative to this file."
)
_STREAMS = {"-": "stdout", "/dev/stdout": "stdout", "/dev/stderr": "stderr"}
_LEVELS = {"critical": "error", "trace": "debug", "warn": "warning"}


def migrate(line: AsgiLine) -> Document:
    """The equivalent of a command line, and of the server's defaults for what is not set.

    Raises SourceError for an application that prefork cannot serve.
    """
    document = Document(_TITLE.format(shown=line.shown, server=line.server))
    move = AsgiMove(document, line)
    _application(move)
    translate_addresses(move)
    _workers(move)
    _requests(move)
    _websockets(move)
    translate_proxies(move)
    _logs(move)
    translate_tls(move)
    _process(move)
    _others(move)
    _origins(move)
    return document


def _application(move: AsgiMove) -> None:
    document = move.document
    name = "app" if move.server == "uvicorn" else "application"
    target = str(move.get(name) or "")
    interface = str(move.get("interface", "auto"))
    if move.server == "hypercorn" and target.startswith(("asgi:", "wsgi:")):
        interface, _, target = target.partition(":")
    if interface == "asgi2":
        raise SourceError(
            f"{move.line.shown}: prefork serves ASGI 3; wrap the application with"
            " asgiref.compatibility.guarantee_single_callable and name the result"
        )
    if target:
        module, _, attribute = target.partition(":")
        attribute = attribute or "app"
        call = move.get("factory") and not attribute.endswith("()")
        move.set(name, "server.app", f"{module}:{attribute}{'()' if call else ''}")
    if interface != "wsgi":
        document.set("server.protocol", "asgi")
    directory = os.path.normpath(str(move.get("app_dir") or "."))
    if directory != ".":
        move.set("app_dir", "server.pythonpath", [directory])
    if file := move.get("env_file"):
        move.set("env_file", "server.env_file", file, "prefork reads KEY=VALUE lines from it.")
    plain = {}
    for key, text in move.line.variables.items():
        if is_secret(key, text):
            document.lost(
                key,
                "it looks like a secret and is not written into the new file; put it into a file of"
                " mode 0600 and name that as server.env_file",
            )
        else:
            plain[key] = text
    if plain:
        document.set("server.env", plain)
    if move.server != "daphne" and move.get("lifespan", "auto") != "auto":
        move.set("lifespan", "server.lifespan", move.get("lifespan"))


# Workers and requests.


def _workers(move: AsgiMove) -> None:
    document, count = move.document, move.get("workers")
    concurrency = move.line.environ.get("WEB_CONCURRENCY", "")
    if move.server == "uvicorn" and (
        count is None or "WEB_CONCURRENCY" in move.line.origins.get("workers", ())
    ):
        count = int(concurrency) if concurrency.isdecimal() else count or 1
        document.leave_out(
            "workers.count",
            max(count, 1),
            "WEB_CONCURRENCY sets it, as with uvicorn, but only as long as this line is a comment."
            f" Without WEB_CONCURRENCY uvicorn would start {max(count, 1)}, prefork one for each"
            " CPU.",
        )
        document.changed(
            "workers",
            f"without WEB_CONCURRENCY uvicorn would start {max(count, 1)} and prefork starts one"
            " for each CPU. If the application keeps state in its process, such as WebSockets,"
            f" write count = {max(count, 1)} into [workers]",
        )
    elif count is None:
        document.set(
            "workers.count",
            1,
            f"{move.server}'s default. More workers use more CPUs, if the application keeps no"
            " state in its process.",
        )
    else:
        move.set("workers", "workers.count", max(count, 1))
    loop = str(move.get("loop" if move.server == "uvicorn" else "worker_class", "auto"))
    name = "loop" if move.server == "uvicorn" else "worker_class"
    if loop == "trio":
        raise SourceError(
            f"{move.line.shown}: prefork serves on asyncio, and not on trio; an application that"
            " uses anyio or asyncio can be migrated without --worker-class trio"
        )
    if loop in ("asyncio", "uvloop") and move.get(name) is not None:
        comment = "It must be installed." if loop == "uvloop" else ""
        move.set(name, "workers.loop", loop, comment)
    elif ":" in loop:
        move.set(name, "workers.loop", loop)
    elif loop not in ("auto", "asyncio"):
        document.changed(f"{name} {loop}", 'workers.loop is "auto": uvloop, if it is installed')
    if limit := move.get("limit_concurrency"):
        move.set("limit_concurrency", "workers.max_concurrency", limit)
        document.changed(
            f"limit_concurrency {limit}",
            "requests beyond it wait, or go to another worker, where uvicorn answers 503",
        )
    most, jitter = (
        ("limit_max_requests", "limit_max_requests_jitter")
        if move.server == "uvicorn"
        else ("max_requests", "max_requests_jitter")
    )
    if move.get(most):
        move.set(most, "workers.max_requests", move.get(most))
        if move.get(jitter):
            move.set(jitter, "workers.max_requests_jitter", move.get(jitter))


def _requests(move: AsgiMove) -> None:
    document = move.document
    seconds = move.get("http_timeout")
    document.set(
        "workers.request_timeout",
        seconds or 0,
        "" if seconds else "No limit, as before; the default of prefork is 30 seconds.",
        fixed=not seconds,
    )
    document.set(
        "http.max_body",
        0,
        "No limit, as before. Set one if neither the proxy nor the application has one: a larger"
        " body gets 413. The default of prefork is 64 MiB.",
        fixed=True,
    )
    graceful = move.get("timeout_graceful_shutdown", move.get("graceful_timeout"))
    name = "timeout_graceful_shutdown" if move.server == "uvicorn" else "graceful_timeout"
    if graceful is not None:
        move.set(
            name,
            "workers.graceful_timeout",
            graceful or 0.1,
            "" if graceful else "It was 0; here 0 would mean no limit.",
        )
    elif move.server == "uvicorn":
        move.default("workers.graceful_timeout", 0)
        document.remark(
            "workers.graceful_timeout",
            "It waits for requests without a limit; systemd kills the server after TimeoutStopSec.",
        )
    elif move.server == "hypercorn":
        move.default("workers.graceful_timeout", 3)
    if seconds := move.get("startup_timeout"):
        move.set("startup_timeout", "workers.boot_timeout", seconds)
    if seconds := move.get("read_timeout"):
        move.set("read_timeout", "http.body_timeout", seconds)
    idle = "timeout_keep_alive" if move.server == "uvicorn" else "keep_alive_timeout"
    seconds = move.get(idle)
    if seconds:
        move.set(idle, "http.keepalive", seconds)
    elif seconds is not None:
        move.set(idle, "http.keepalive_requests", 1, "It closed each connection after one answer.")
    if move.server == "hypercorn" and seconds != 0:
        requests = move.get("keep_alive_max_requests")
        if requests is None:
            move.default("http.keepalive_requests", 1000)
        else:
            move.set("keep_alive_max_requests", "http.keepalive_requests", requests)


def _websockets(move: AsgiMove) -> None:
    server = move.server
    size = move.get("ws_max_size" if server == "uvicorn" else "websocket_max_message_size")
    name = "ws_max_size" if server == "uvicorn" else "websocket_max_message_size"
    if size is not None:
        move.set(name, "websocket.max_message", size)
    elif server != "daphne":
        move.default("websocket.max_message", 16 * MIB)
    interval = {"uvicorn": "ws_ping_interval", "hypercorn": "websocket_ping_interval"}.get(
        server, "ping_interval"
    )
    seconds = move.get(interval)
    if seconds is not None:
        move.set(interval, "websocket.ping_interval", max(seconds, 0))
    elif server == "hypercorn":
        move.document.set("websocket.ping_interval", 0, "No pings, as before; the default is 20.")
    patience = "ws_ping_timeout" if server == "uvicorn" else "ping_timeout"
    seconds = move.get(patience)
    if seconds is not None:
        move.set(patience, "websocket.ping_timeout", max(seconds, 0))
    elif server == "daphne":
        move.default("websocket.ping_timeout", 30)
    if server == "daphne":
        seconds = move.get("websocket_timeout")
        if seconds is None:
            move.default("websocket.max_age", 86400)
        else:
            move.set("websocket_timeout", "websocket.max_age", max(seconds, 0))
    deflate = move.get("ws_per_message_deflate")
    if deflate is not None:
        move.set("ws_per_message_deflate", "websocket.compression", deflate)


# Logs and the process.


def _logs(move: AsgiMove) -> None:
    document, server = move.document, move.server
    target: str | None
    if server == "uvicorn":
        target = None if move.get("access_log") is False else "-"
        name = "access_log"
    elif server == "hypercorn":
        name, target = "accesslog", move.get("accesslog")
    else:
        name, target = "access_log", move.get("access_log")
        if target is None and move.get("verbosity", 1) >= 1:
            target = "-"
    if target and target != "/dev/null":
        comment = "" if move.get(name) else f"{server} logs each request by default."
        move.set(name, "log.access", _STREAMS.get(str(target), str(target)), comment)
        document.changed(
            "the lines for requests", "they are in Apache's combined format (log.access_format)"
        )
    errors = str(move.get("errorlog") or "-")
    if errors not in _STREAMS:
        move.set("errorlog", "log.error", errors)
    name = "log_level" if server == "uvicorn" else "loglevel"
    if level := move.get(name):
        plain = str(level).lower()
        plain = _LEVELS.get(plain, plain)
        if plain in ("debug", "info", "warning", "error"):
            move.set(name, "log.level", plain)
        else:
            document.lost(f"{name} {level}", "expected debug, info, warning or error")
    if server == "daphne" and move.get("verbosity") is not None:
        levels = {0: "warning", 1: "info"}
        move.set("verbosity", "log.level", levels.get(move.get("verbosity"), "debug"))


def _process(move: AsgiMove) -> None:
    document = move.document
    off = move.get("server_header") is False or move.get("include_server_header") is False
    if off or move.get("no_server_name"):
        document.set("http.server_header", False)
    if path := move.get("pid_path"):
        move.set("pid_path", "process.pidfile", os.path.normpath(path))
    mask = str(move.get("umask") or "")
    if mask and not move.has_unix:
        document.unneeded(f"umask {mask}", "it is for Unix sockets, and there is none")
    elif re.fullmatch(r"(0o)?[0-7]{1,4}", mask):
        mode = 0o777 & ~int(mask.removeprefix("0o"), 8)
        move.set("umask", "server.unix_mode", f"{mode:04o}")
    elif mask:
        document.lost(f"umask {mask}", "expected an octal number")
    user, group = move.get("user"), move.get("group")
    if (user or group) and not move.has_unix:
        document.unneeded(
            "user, group", "they are for the owner of a Unix socket, and there is none"
        )
    elif user or group:
        document.set("server.unix_owner", f"{user or ''}{f':{group}' if group else ''}")


# What has no key, and where values come from.


def _others(move: AsgiMove) -> None:
    document = move.document
    table = SERVERS[move.server]
    for name, value in move.values.items():
        option = table[name]
        usual = (True,) if option.default is True else (option.default, None, False, "")
        if option.fate is Fate.TRANSLATED or value in usual:
            continue
        shown = f"{name} {value}" if not isinstance(value, bool | list) else name
        if "password" in name:
            shown = name
        if option.fate is Fate.LOST:
            document.lost(shown, option.here)
        elif option.fate is Fate.CHANGED:
            document.changed(shown, option.here)
        else:
            document.unneeded(shown, option.here)
    for name in move.line.unknown:
        near = nearest(name, table, cutoff=0.85)
        hint = f"did you mean {near[0]}?" if near else "it is not known here"
        document.lost(name, hint)
    for word in move.line.before:
        document.changed(
            word, f"it comes before {move.server} in the command line; put it before prefork, too"
        )


def _origins(move: AsgiMove) -> None:
    """Marks values that come from the environment."""
    document = move.document
    for name, variables in move.line.origins.items():
        named = " and ".join(dict.fromkeys(variables))
        for key in sorted(move.keys.get(name, ())):
            entry = document.settings[key]
            if entry.left_out:
                continue
            ours = variable(key)
            document.remark(key, f"It came from {named}; {ours} takes precedence over this line.")
            document.changed(
                name,
                f"it came from the environment, {named}: {key} is {toml(entry.value)}, its value"
                f" here; set {ours} on a server that needs another value",
            )
