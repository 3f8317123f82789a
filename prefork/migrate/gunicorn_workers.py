"""Translates gunicorn's settings for workers and requests."""

from collections.abc import Callable
from typing import Any

from prefork.config.values import KIB, MIB
from prefork.migrate.data_flow import CPUS
from prefork.migrate.gunicorn_move import GunicornMove
from prefork.migrate.python_file import SourceError
from prefork.quantity import quantity

_ASGI = ("uvicorn", "asgi", "hypercorn")
_GREEN = ("gevent", "eventlet", "meinheld")
_GREEN_THREADS = 64


def kind_of(move: GunicornMove) -> str:
    """The kind of worker: "sync", "threads", "green", "tornado", "aiohttp", "asgi" or "other"."""
    name = str(move.get("worker_class")).lower()
    if "aiohttp" in name:
        return "aiohttp"
    if any(word in name for word in _ASGI):
        return "asgi"
    if any(word in name for word in _GREEN):
        return "green"
    if "tornado" in name:
        return "tornado"
    if "thread" in name:
        return "threads"
    if name in ("", "sync") or name.endswith("syncworker"):
        return "threads" if move.get("threads") > 1 else "sync"
    return "other"


def _workers(move: GunicornMove, value: int | None) -> None:
    document = move.document
    sources = move.sources("workers")
    if value is None or "WEB_CONCURRENCY" in sources:
        count = 1 if value is None else value
        text = move.environ.get("WEB_CONCURRENCY", "")
        if value is None and text.isdecimal() and 0 < int(text) < 1024:
            count = int(text)
        document.leave_out(
            "workers.count",
            max(count, 1),
            "WEB_CONCURRENCY sets it, as with gunicorn, but only as long as this line is a comment."
            f" Without WEB_CONCURRENCY gunicorn would start {count}, prefork one for each CPU.",
        )
        document.changed(
            "workers",
            f"WEB_CONCURRENCY still sets it; without that variable gunicorn would start {count} and"
            " prefork starts one for each CPU. If the application keeps state in its process, write"
            f" count = {max(count, 1)} into [workers]",
        )
        return
    expression = move.ran.flow.expressions.get("workers", "")
    plain = (
        expression.endswith("cpu_count()")
        and expression.replace(".", "").replace("_", "").removesuffix("()").isalpha()
    )
    if sources == {CPUS} and plain:
        document.set("workers.count", "auto")
    else:
        if value == 0:
            document.changed("workers = 0", "gunicorn would answer nothing; prefork starts 1")
        document.set("workers.count", value)


def _worker_class(move: GunicornMove, value: str | None) -> None:
    document, kind = move.document, kind_of(move)
    what = f"worker_class = {value!r}"
    if kind == "aiohttp":
        raise SourceError(
            f"{move.ran.shown}: {what}: an aiohttp.web.Application is neither a WSGI nor an ASGI"
            " application, which is what prefork serves; stay with this worker, or let nginx or"
            " HAProxy balance over processes that call aiohttp.web.run_app"
        )
    if kind == "asgi":
        _asgi(move)
        return
    if kind == "green":
        connections = move.get("worker_connections")
        count = max(1, min(connections, _GREEN_THREADS))
        document.set(
            "workers.threads",
            count,
            f"{value} served up to {quantity(connections, 'request')} at a time in each worker."
            " Here threads do that, up to 255 of them; slow clients and idle connections need no"
            " thread.",
        )
        document.changed(
            what,
            f"requests that wait are served by {quantity(count, 'thread')} in each worker"
            " (workers.threads, up to 255). The application must be thread-safe; it needs no"
            " monkey patching",
        )
        document.lost(
            f"WebSockets and connections that stay open, with {what}",
            "each occupies a thread here, as a WebSocket of flask-sock or simple-websocket does;"
            " serve many of them by ASGI, or with another server behind the same proxy",
        )
    elif kind == "tornado":
        document.lost(what, "a tornado.web.Application is no WSGI application; wrap it or keep it")
    elif kind == "other":
        document.changed(what, "it is not used: prefork has workers of its own, with threads")
    elif value not in (None, "", "sync"):
        document.unneeded(what, "workers.threads is enough")


def _asgi(move: GunicornMove) -> None:
    document = move.document
    document.set("server.protocol", "asgi", f"worker_class was {move.get('worker_class')}.")
    loop = str(move.get("asgi_loop") or "auto")
    if loop in ("asyncio", "uvloop") or ":" in loop:
        document.set("workers.loop", loop)
    if (lifespan := move.get("asgi_lifespan")) in ("on", "off"):
        document.set("server.lifespan", lifespan)
    size = move.get("websocket_max_message_size")
    document.set(
        "websocket.max_message",
        size,
        "The default of gunicorn and uvicorn." if size == 16 * MIB else "",
    )


def _nothing(move: GunicornMove, value: object) -> None:
    """For settings that the translation of another one reads."""


def _threads(move: GunicornMove, value: int | None) -> None:
    document, kind = move.document, kind_of(move)
    if kind == "threads":
        document.set("workers.threads", move.get("threads"))
    elif kind in ("green", "asgi") and value not in (None, 1):
        document.unneeded(f"threads = {value}", "this worker class ignores it")
    if kind == "threads" and (value or 0) > 255:
        document.changed(f"threads = {value}", "a worker has at most 255")


def _timeout(move: GunicornMove, value: int | None) -> None:
    document, kind, seconds = move.document, kind_of(move), move.get("timeout")
    if kind in ("sync", "other", "tornado"):
        if value is not None:
            document.set(
                "workers.request_timeout",
                seconds,
                "A request that takes longer gets 504; gunicorn killed the worker without an"
                " answer.",
            )
        return
    limit = f" of {quantity(seconds, 'second')}" if seconds else ""
    document.set(
        "workers.request_timeout",
        0,
        f"No limit, as before: gunicorn's timeout{limit} was for the worker's heartbeat and ended"
        " no request. Here a request over the limit gets 504; the default of prefork is 30.",
        fixed=True,
    )
    if not seconds:
        return
    document.changed(
        f"timeout = {seconds}",
        "for this kind of worker it was a heartbeat and ended no request, so"
        " workers.request_timeout is 0: no limit. Set one if no request may take longer",
    )


def _graceful_timeout(move: GunicornMove, value: int | None) -> None:
    if value == 0:
        move.document.set(
            "workers.graceful_timeout",
            0.1,
            "It was 0: gunicorn kills its workers at once. Here 0 would mean no limit.",
        )
    elif value is not None:
        move.document.set("workers.graceful_timeout", value)


def _max_requests_jitter(move: GunicornMove, value: int | None) -> None:
    if value and not move.get("max_requests"):
        move.document.unneeded(f"max_requests_jitter = {value}", "there is no max_requests")
    elif value:
        move.document.set("workers.max_requests_jitter", value)


def _keepalive(move: GunicornMove, value: int | None) -> None:
    document, kind, seconds = move.document, kind_of(move), move.get("keepalive")
    if kind != "sync" and seconds:
        document.set("http.keepalive", seconds, "" if value else "gunicorn's default.")
        return
    if value:
        document.set("http.keepalive", value)
    reason = "sync workers close" if kind == "sync" else "keepalive = 0 closes"
    document.set(
        "http.keepalive_requests",
        1,
        f"gunicorn's {reason} each connection after one answer. Idle connections cost no worker"
        " here: delete this line to keep them open, for http.keepalive seconds.",
        fixed=True,
    )


def _backlog(move: GunicornMove, value: int | None) -> None:
    if value == 0:
        move.document.set("server.backlog", 1, "It was 0, which here means the kernel's limit.")
    elif value is not None:
        move.document.set("server.backlog", value)


def _request_line(move: GunicornMove, value: int | None) -> None:
    if value is not None:
        limit = min(value, 8190)
        comment = "" if limit == value else f"gunicorn takes {value} for 8190."
        move.document.set("http.max_request_line", limit, comment)


def _fields(move: GunicornMove, value: int | None) -> None:
    if value is not None:
        limit = value if 0 < value <= 32768 else 32768
        comment = "" if limit == value else f"gunicorn takes {value} for 32768."
        move.document.set("http.max_header_count", limit, comment)


def _field_size(move: GunicornMove, value: int | None) -> None:
    if value is None:
        return
    each = value or 8190
    document = move.document
    document.set(
        "http.max_header_size",
        64 * KIB + (each if each > 8190 else 0),
        f"Of all header lines together; gunicorn's {each} was for each of them.",
    )
    document.changed(
        f"limit_request_field_size = {value}",
        "http.max_header_size is of all header lines together",
    )


TRANSLATIONS: dict[str, Callable[[GunicornMove, Any], None]] = {
    "worker_class": _worker_class,
    "asgi_loop": _nothing,
    "asgi_lifespan": _nothing,
    "websocket_max_message_size": _nothing,
    "workers": _workers,
    "threads": _threads,
    "timeout": _timeout,
    "graceful_timeout": _graceful_timeout,
    "max_requests_jitter": _max_requests_jitter,
    "keepalive": _keepalive,
    "backlog": _backlog,
    "limit_request_line": _request_line,
    "limit_request_fields": _fields,
    "limit_request_field_size": _field_size,
}
