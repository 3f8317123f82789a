"""`migrate` translates the configuration of uWSGI."""

import os
import re
from typing import Any

from prefork.config.values import MIB, is_module
from prefork.migrate import uwsgi_network
from prefork.migrate.document import Document
from prefork.migrate.migration_report import Fate
from prefork.migrate.python_file import SourceError
from prefork.migrate.secrets import is_secret
from prefork.migrate.uwsgi_command import UwsgiLine
from prefork.migrate.uwsgi_move import FALSE, UwsgiMove, leading_number
from prefork.migrate.uwsgi_options import OPTIONS

_PYTHON = re.compile(r"(c?python|pypy)[\d.]*|http|corerouter|logfile|syslog|router_\w+|")
_TITLE = (
    "From {source}, by `prefork migrate uwsgi`. Keep this file in the directory that uWSGI was"
    " started in: relative paths are relative to this file."
)


def migrate(line: UwsgiLine) -> Document:
    """The equivalent of a command line, or of a file.  Raises SourceError."""
    document = Document(_TITLE.format(source=line.shown))
    move = UwsgiMove(document, line.file)
    _application(move)
    uwsgi_network.translate(move)
    _workers(move)
    _requests(move)
    _logs(move)
    _process(move)
    _origins(move)
    _others(move)
    document.report.changed += move.file.remarks
    document.report.lost += move.file.missing
    for word in line.before:
        document.changed(
            word, "it comes before uwsgi in the command line; put it before prefork, too"
        )
    return document


def _application(move: UwsgiMove) -> None:
    document = move.document
    directory = move.text("chdir")
    if directory and move.near(directory) != ".":
        document.set("server.chdir", move.near(directory))
    paths = [move.path(path) for path in move.values.get("pythonpath", [])]
    module, file = move.text("module"), move.text("wsgi-file")
    for item in list(move.values.get("mount", [])):
        prefix, _, target = item.partition("=")
        if prefix in ("", "/") and not module:
            module = target.removesuffix(".py").replace("/", ".")
            move.values["mount"].remove(item)
    if not module and not file and move.is_set("emperor"):
        raise SourceError(
            f"it starts an emperor: migrate each file in {move.text('emperor')}, one for each site"
        )
    if not module and file:
        module, more = _module_of(move, file)
        paths += more
    if module:
        name, _, target = module.partition(":")
        target = move.text("callable") or target or "application"
        call, bracket, _ = target.partition("(")
        document.set("server.app", f"{name}:{call}()" if bracket else f"{name}:{target}")
    if paths:
        document.set("server.pythonpath", list(dict.fromkeys(paths)))
    _environment(move)
    mounts = {}
    for item in move.values.get("static-map", []):
        prefix, _, place = item.partition("=")
        prefix = f"/{prefix.strip('/')}/"
        if prefix == "//" or not place or "." in prefix.rstrip("/").rpartition("/")[2]:
            document.lost(f"static-map = {item}", "static.mounts takes a prefix and a directory")
        else:
            mounts[prefix] = move.path(place)
            document.changed(
                f"static-map = {item}",
                "a file that is not there is answered with 404; uWSGI asks the application for it",
            )
    if mounts:
        document.set("static.mounts", mounts)
        if index := move.text("static-index"):
            document.set("static.index", index)


def _module_of(move: UwsgiMove, file: str) -> tuple[str, list[str]]:
    """The module that a file is, and what has to be in the path for it."""
    directory = move.text("chdir") or "."
    near = os.path.relpath(file, directory) if os.path.isabs(file) else os.path.normpath(file)
    module = near.removesuffix(".py").replace("/", ".")
    if near.endswith(".py") and is_module(module):
        return module, []
    stem = os.path.basename(file).removesuffix(".py")
    if not file.endswith(".py") or not is_module(stem):
        move.document.lost(f"wsgi-file = {file}", "it is no module; give it a name such as wsgi.py")
    return stem, [move.path(os.path.dirname(file))]


def _environment(move: UwsgiMove) -> None:
    variables = dict(item.partition("=")[::2] for item in move.values.get("env", []))
    for name in [name for name, text in variables.items() if is_secret(name, text)]:
        del variables[name]
        move.document.lost(
            name,
            "it looks like a secret and is not written into the new file; put it into a file of"
            " mode 0600 and name that as server.env_file",
        )
    variables.pop("", None)
    if variables:
        move.document.set("server.env", variables)


def _workers(move: UwsgiMove) -> None:
    document = move.document
    count = move.number("processes")
    document.set("workers.count", max(count or 1, 1), "" if count else "uWSGI's default.")
    threads = move.number("threads")
    if threads and threads > 1:
        document.set("workers.threads", threads)
    green = move.number("gevent")
    if green:
        document.set(
            "workers.threads",
            min(green, 64),
            f"uWSGI had {green} green threads. Here threads do that, up to 255 of them; slow"
            " clients and idle connections need no thread.",
        )
        document.lost(
            "WebSockets and connections that stay open",
            "each occupies a thread here, as a WebSocket of flask-sock or simple-websocket does;"
            " serve many of them by ASGI, or with another server behind the same proxy",
        )
    _cheaper(move, count or 1)
    if not move.is_set("lazy-apps"):
        document.set(
            "workers.preload",
            True,
            "uWSGI imports the application before it forks, unless lazy-apps is set.",
        )
    for name, key in (
        ("max-requests", "workers.max_requests"),
        ("max-worker-lifetime", "workers.max_age"),
    ):
        if number := move.number(name):
            document.set(key, number)
    if move.number("max-requests") and (delta := move.number("max-requests-delta")):
        document.set("workers.max_requests_jitter", delta)
    if move.number("reload-on-rss"):
        least = min(filter(None, map(leading_number, move.values["reload-on-rss"])))
        document.set("workers.max_memory", f"{min(least, 10**9)}MiB")
    mercy = move.number("worker-reload-mercy") or move.number("reload-mercy")
    document.set("workers.graceful_timeout", mercy or 60, "" if mercy else "uWSGI's default.")


def _cheaper(move: UwsgiMove, count: int) -> None:
    least = move.number("cheaper")
    if not least:
        return
    document = move.document
    document.set("workers.min", min(least, count))
    document.set("workers.max", count)
    spare = min(move.number("cheaper-step") or 1, count)
    document.set("workers.spare", spare, "The number of idle workers that are kept.")
    document.changed(
        f"cheaper = {least}",
        f"{spare} idle worker{'s are' if spare > 1 else ' is'} kept (workers.spare), between"
        " workers.min and workers.max; the pool shrinks after ten seconds of low demand",
    )


def _requests(move: UwsgiMove) -> None:
    document = move.document
    seconds = move.number("harakiri") or 0
    comment = "A request that takes longer gets 504; uWSGI killed the worker without an answer."
    document.set(
        "workers.request_timeout", seconds, comment if seconds else "No harakiri, so no limit."
    )
    limit = move.number("limit-post") or 0
    document.set(
        "http.max_body",
        limit,
        ""
        if limit
        else "No limit, as before. Set one if the proxy has none: a larger body gets 413. The"
        " default of prefork is 64 MiB.",
    )
    size = move.number("buffer-size")
    if size and size > 64 * 1024:
        document.set("http.max_header_size", size)
    elif size:
        document.unneeded(f"buffer-size = {size}", "headers may take 64 KiB by default")
    memory = move.number("post-buffering")
    if memory and memory > 1:
        document.set("http.body_memory", min(memory, 16 * MIB))


def _logs(move: UwsgiMove) -> None:
    document = move.document
    target = move.text("daemonize") or move.text("logto")
    logger = move.text("logger")
    if move.is_set("daemonize"):
        document.set("process.daemon", True)
        target = "" if target == "true" else target
    if logger == "true" or logger.startswith("syslog"):
        target = "syslog"
    elif logger.startswith("file:"):
        target = logger.removeprefix("file:").partition(",")[0]
    elif logger:
        document.lost(f"logger = {logger}", OPTIONS["logger"].here)
    if re.fullmatch(r"[\w.-]+:\d+", target):
        document.lost(f"logto = {target}", "logs go to files, stderr or syslog, not over UDP")
        target = ""
    if target and target not in ("/dev/stderr", "/dev/stdout", "syslog"):
        target = os.path.normpath(target)
    if not target and move.is_set("daemonize"):
        target = "syslog"
    plain = {"/dev/stderr": "stderr", "/dev/stdout": "stdout"}.get(target, target)
    if plain and plain != "stdout":
        document.set("log.error", plain)
    requests = move.text("req-logger")
    if requests.startswith("file:"):
        plain = os.path.normpath(requests.removeprefix("file:").partition(",")[0])
    if not move.is_set("disable-logging"):
        document.set(
            "log.access",
            plain or "stderr",
            "uWSGI logs each request unless disable-logging is set.",
        )
        document.changed(
            "the lines for requests", "they are in Apache's combined format (log.access_format)"
        )


def _process(move: UwsgiMove) -> None:
    document = move.document
    for name, key in (
        ("uid", "process.user"),
        ("gid", "process.group"),
        ("procname", "server.name"),
    ):
        if text := move.text(name):
            document.set(key, text)
    if path := move.text("pidfile"):
        document.set("process.pidfile", os.path.normpath(path))
    if (mask := move.text("umask")) and re.fullmatch(r"0?[0-7]{1,3}", mask):
        document.set("process.umask", f"{int(mask, 8):04o}")
    elif mask:
        document.lost(f"umask = {mask}", "expected an octal number")
    cpus = move.number("cpu-affinity")
    if cpus == 1:
        document.set("process.cpu_affinity", "auto")
    elif cpus:
        document.lost(
            f"cpu-affinity = {cpus}",
            f"write the sets of {cpus} CPUs as process.cpu_affinity, as in"
            f' ["0-{cpus - 1}", "{cpus}-{2 * cpus - 1}"]',
        )
    limits: dict[str, Any] = {}
    for name, limit, unit in (
        ("max-fd", "nofile", 1),
        ("limit-as", "as", MIB),
        ("limit-nproc", "nproc", 1),
    ):
        if number := move.number(name):
            limits[limit] = min(number * unit, 2**62)
    if limits:
        document.set("process.limits", limits)


def _origins(move: UwsgiMove) -> None:
    for name, variables in move.file.variables.items():
        named = " and ".join(dict.fromkeys(variables))
        move.document.changed(
            name,
            f"it came from the environment, {named}; the new file has its value here. For each"
            " key a variable such as PREFORK_SERVER_BIND takes precedence over the file",
        )


def _others(move: UwsgiMove) -> None:
    document = move.document
    for main, values in move.values.items():
        option = OPTIONS[main]
        name = move.called[main]
        for value in values:
            if value.lower() in FALSE:
                continue
            what = name if value == "true" else f"{name} = {value}"
            here = option.here.format(value=value)
            foreign = main == "plugins" and not _is_for_python(value)
            if foreign or option.fate is Fate.LOST:
                document.lost(what, here)
            elif option.fate is Fate.CHANGED:
                document.changed(what, here)
            elif option.fate is Fate.UNNEEDED:
                document.unneeded(what, here)


def _is_for_python(plugins: str) -> bool:
    return all(_PYTHON.fullmatch(part.strip()) for part in plugins.split(","))
