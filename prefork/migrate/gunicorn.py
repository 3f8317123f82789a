"""gunicorn's settings (version 27 and before) as prefork's: `migrate`.

Each setting that gunicorn documents is in one of four tables: taken over as it is, translated by a
function, not needed here, or without an equivalent; a test holds them complete.
"""

import shlex
from collections.abc import Callable, Mapping
from typing import Any

from prefork.config import KEYS
from prefork.migrate.document import Document

Settings = Mapping[str, Any]

SAME = {
    "backlog": "server.backlog",
    "chdir": "server.chdir",
    "proc_name": "server.name",
    "threads": "workers.threads",
    "preload_app": "workers.preload",
    "graceful_timeout": "workers.graceful_timeout",
    "max_requests": "workers.max_requests",
    "max_requests_jitter": "workers.max_requests_jitter",
    "keepalive": "http.keepalive",
    "limit_request_line": "http.max_request_line",
    "limit_request_fields": "http.max_header_count",
    "logconfig_json": "log.config",
    "daemon": "process.daemon",
    "pidfile": "process.pidfile",
    "certfile": "tls.certificate",
    "keyfile": "tls.key",
    "control_socket": "control.path",
}
"""Settings that mean the same."""

NOT_NEEDED = {
    "config": "this file takes its place",
    "sendfile": "files are sent by the kernel wherever they can be",
    "capture_output": "what the application prints goes where stdout and stderr go, in a daemon to"
    " the error log",
    "enable_stdio_inheritance": "a daemon's stdout and stderr go to its error log",
    "worker_tmp_dir": "workers have no heartbeat file: the master sees in shared memory what each"
    " does",
    "default_proc_name": "server.name says it",
    "check_config": "it is a command, `prefork check FILE`",
    "print_config": "it is a command, `prefork check FILE --show`",
    "reload": "it is an option of the command, `prefork serve FILE --reload`",
    "reload_engine": "`prefork serve --reload` uses inotify",
    "initgroups": "the groups of process.user are always set",
    "disable_redirect_access_to_syslog": "log.access has a destination of its own",
    "control_socket_mode": "only the server's user and root can use the control socket",
    "control_socket_disable": "the control socket is a part of the server; only its user and root"
    " can use it",
    "suppress_ragged_eofs": "a client that ends a TLS connection without a goodbye is no error",
    "do_handshake_on_connect": "handshakes never keep a worker waiting",
    "http_parser": "the parser is llhttp, in C",
    "nworkers_changed": "the log says when workers come and go",
    "tmp_upload_dir": "large bodies go to the directory that TMPDIR names (server.env)",
}
"""Settings that there is no use for, and why."""

_HOOK = "workers.hooks calls a function of one argument, a worker with slot, generation, pid, name"
_MASTER = "the master runs no code of the application; use systemd's ExecStartPre= and its kin"
_LENIENT = "malformed requests are refused: what one server reads otherwise than another is how"
_LENIENT += " requests are smuggled past a proxy"
_HTTP2 = "HTTP/2 ends at the proxy in front (nginx, HAProxy), which speaks HTTP/1.1 to prefork"
_ASGI = "prefork serves WSGI; ASGI applications need another server"
_DIRTY = "long work belongs into a task queue, or workers.threads"
_STATSD = "there is no statsd client; see [metrics], which Prometheus reads"

NO_EQUIVALENT = {
    "worker_connections": "slow and idle connections cost a worker nothing, and no number limits"
    " them",
    "reload_extra_files": "`prefork serve --reload` watches the directories of the application",
    "spew": "no tracing of each line; use python -X importtime, or a profiler",
    "reuse_port": "all workers accept from one socket, which is what balances them",
    "secure_scheme_headers": "X-Forwarded-Proto and Forwarded are understood, from trusted proxies",
    "proxy_allow_ips": "proxy_protocol takes its addresses from http.trusted_proxies",
    "uwsgi_allow_ips": "the uwsgi protocol is not spoken; let nginx use proxy_pass",
    "logger_class": "the server's log has two forms, log.format",
    "logconfig": "of the forms of logging.config only the dictConfig is read: write it as JSON or"
    " TOML, and name it as log.config",
    "logconfig_dict": "write it into a JSON or TOML file, and name that as log.config",
    "syslog_prefix": "lines to syslog are tagged prefork",
    "syslog_facility": "lines to syslog are of the facility daemon",
    "statsd_host": _STATSD,
    "dogstatsd_tags": _STATSD,
    "statsd_prefix": _STATSD,
    "enable_backlog_metric": _STATSD,
    "paste": "no Paste files: write a module with `application = loadapp(...)`, and name that",
    "raw_paste_global_conf": "no Paste files",
    "on_starting": _MASTER,
    "on_reload": _MASTER,
    "when_ready": f"{_MASTER}; READY is told to systemd",
    "pre_exec": _MASTER,
    "on_exit": f"{_MASTER} (ExecStopPost=)",
    "child_exit": f"{_MASTER}; in the worker there is the hook before_exit",
    "pre_fork": f"{_HOOK}: move it into a module, as before_fork, with preload",
    "post_fork": f"{_HOOK}: move it into a module, as after_fork",
    "post_worker_init": f"{_HOOK}: move it into a module, as ready",
    "worker_exit": f"{_HOOK}: move it into a module, as before_exit",
    "worker_int": "a worker has no hook for signals; before_exit is called when it leaves",
    "worker_abort": "a request over its time is logged by the master",
    "pre_request": "wrap the application (WSGI middleware)",
    "post_request": "wrap the application (WSGI middleware)",
    "ssl_context": "the [tls] keys make the context",
    "ssl_version": "TLS 1.2 and 1.3 are spoken, as Python's default context does",
    "ciphers": "those of Python's default context, which are the safe ones, are offered",
    "permit_obsolete_folding": _LENIENT,
    "strip_header_spaces": _LENIENT,
    "permit_unconventional_http_method": _LENIENT,
    "permit_unconventional_http_version": _LENIENT,
    "casefold_http_method": _LENIENT,
    "forwarder_headers": "headers with underscores are not taken for those with hyphens",
    "header_map": "headers with underscores are not taken for those with hyphens",
    "root_path": _ASGI,
    "asgi_loop": _ASGI,
    "asgi_lifespan": _ASGI,
    "asgi_disconnect_grace_period": _ASGI,
    "websocket_max_message_size": _ASGI,
    "http_protocols": _HTTP2,
    "http2_cleartext": _HTTP2,
    "http2_max_concurrent_streams": _HTTP2,
    "http2_initial_window_size": _HTTP2,
    "http2_max_frame_size": _HTTP2,
    "http2_max_header_list_size": _HTTP2,
    "dirty_apps": _DIRTY,
    "dirty_workers": _DIRTY,
    "dirty_timeout": _DIRTY,
    "dirty_threads": _DIRTY,
    "dirty_graceful_timeout": _DIRTY,
    "on_dirty_starting": _DIRTY,
    "dirty_post_fork": _DIRTY,
    "dirty_worker_init": _DIRTY,
    "dirty_worker_exit": _DIRTY,
}
"""Settings that nothing here corresponds to, and why."""


def migrate(settings: Settings, source: str) -> Document:
    """The equivalent of what was set; names that gunicorn does not have are left out.

    `source`: where it comes from, for the title.
    """
    document = Document(
        f"From {source}, by `prefork migrate gunicorn`. Its place is the directory that gunicorn"
        " was started in: relative paths, and server.chdir, are relative to this file."
    )
    translated = {"workers": 1, **settings}  # gunicorn's default is one worker, ours "auto"
    for name, value in translated.items():
        if value is None:
            continue
        if name in SAME:
            _same(document, name, value)
        elif name in TRANSLATED:
            TRANSLATED[name](document, value, settings)
        elif name in NOT_NEEDED:
            document.note(name, f"not needed, {NOT_NEEDED[name]}")
        elif name in NO_EQUIVALENT:
            document.note(name, NO_EQUIVALENT[name])
    if "server.app" not in document.settings:
        document.note("wsgi_app", 'not set: give it as server.app, "module:callable"')
    if "process.daemon" in document.settings and "log.error" not in document.settings:
        document.set(
            "log.error", "syslog", "gunicorn's daemon logs to nowhere where none is named."
        )
    return document


def _same(document: Document, name: str, value: Any) -> None:
    if value is not False or KEYS[SAME[name]].default is True:
        document.set(SAME[name], value)


def _app(document: Document, value: Any, settings: Settings) -> None:
    module, colon, name = str(value).partition(":")
    name = name or "application"
    call, bracket, arguments = name.partition("(")
    if bracket and arguments.strip() != ")":
        document.note(
            f"wsgi_app {value}", "a factory is called without arguments: write one that needs none"
        )
        name = f"{call}()"
    comment = "" if colon else "gunicorn's name where none is given."
    document.set("server.app", f"{module}:{name}", comment)


def _bind(document: Document, value: Any, settings: Settings) -> None:
    texts = value.split(",") if isinstance(value, str) else value
    document.set("server.bind", [_address(str(text).strip()) for text in texts])


def _address(text: str) -> str:
    text = text.removeprefix("tcp://")
    for prefix, ours in (("fd://", "fd:"), ("unix://", "unix:")):
        if text.startswith(prefix):
            return ours + text.removeprefix(prefix)
    if text.startswith(("unix:", "fd:")) or ":" in text.rpartition("]")[2]:
        return text
    return f"{text}:8000"


def _workers(document: Document, value: Any, settings: Settings) -> None:
    comment = "" if "workers" in settings else 'gunicorn\'s default; "auto" is one for each CPU.'
    document.set("workers.count", value, comment)


def _worker_class(document: Document, value: Any, settings: Settings) -> None:
    name = value if isinstance(value, str) else getattr(value, "__name__", str(value))
    kind = name.rpartition(".")[2].lower()
    if "sync" in kind:
        document.note(f"worker_class {name}", "not needed, it is what workers are")
    elif "thread" in kind:
        document.note(f"worker_class {name}", "not needed, workers.threads says it")
    else:
        why = "workers run threads: workers.threads, up to 255, takes many calls that wait; slow"
        why += " clients and idle connections need none"
        document.note(
            f"worker_class {name}", why if kind not in ("asgi", "uvicornworker") else _ASGI
        )


def _timeout(document: Document, value: Any, settings: Settings) -> None:
    comment = "For each request, and it is answered 504; gunicorn's was for the worker's heartbeat."
    document.set("workers.request_timeout", value, comment)


def _field_size(document: Document, value: Any, settings: Settings) -> None:
    if value == 0 or value > KEYS["http.max_header_size"].default:
        comment = "Of all header lines together; gunicorn's limit_request_field_size was of each."
        document.set("http.max_header_size", value, comment)
    else:
        document.note("limit_request_field_size", "http.max_header_size is of all lines together")


def _raw_env(document: Document, value: Any, settings: Settings) -> None:
    document.set("server.env", dict(str(item).partition("=")[::2] for item in value))


def _pythonpath(document: Document, value: Any, settings: Settings) -> None:
    document.set("server.pythonpath", str(value).split(","))


def _access(document: Document, value: Any, settings: Settings) -> None:
    document.set("log.access", "stdout" if value == "-" else value)


def _error(document: Document, value: Any, settings: Settings) -> None:
    if value == "-" and settings.get("daemon"):
        return
    document.set("log.error", "stderr" if value == "-" else value)


_COMMON = '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s'
_FORMATS = {_COMMON: "common", f'{_COMMON} "%(f)s" "%(a)s"': "combined"}


def _access_format(document: Document, value: Any, settings: Settings) -> None:
    if value in _FORMATS:
        document.set("log.access_format", _FORMATS[value])
    elif value.lstrip().startswith("{"):
        document.set("log.access_format", "json", "Its fields have names of their own.")
    else:
        document.note("access_log_format", "there are common, combined and json: log.access_format")


def _level(document: Document, value: Any, settings: Settings) -> None:
    level = str(value).lower()
    if level == "critical":
        document.set("log.level", "error", "The highest there is.")
    else:
        document.set("log.level", level)


def _syslog(document: Document, value: Any, settings: Settings) -> None:
    if value:
        document.set("log.error", "syslog")


def _syslog_address(document: Document, value: Any, settings: Settings) -> None:
    if not settings.get("syslog"):
        return
    scheme, _, rest = str(value).partition("://")
    if scheme == "unix":
        path, _, _ = rest.partition("#")
        document.set("log.error", "syslog" if path == "/dev/log" else f"syslog:{path}")
    else:
        document.note(
            "syslog_addr",
            "syslog is spoken on this machine's socket only; let its daemon forward it",
        )


def _user(key: str) -> Callable[[Document, Any, Settings], None]:
    def translate(document: Document, value: Any, settings: Settings) -> None:
        document.set(f"process.{key}", str(value))

    return translate


def _umask(document: Document, value: Any, settings: Settings) -> None:
    number = int(value, 0) if isinstance(value, str) else value
    document.set("process.umask", f"{number:04o}")


def _trusted(document: Document, value: Any, settings: Settings) -> None:
    texts = value.split(",") if isinstance(value, str) else value
    proxies = [text.strip() for text in texts if text.strip()]
    if "*" in proxies:
        comment = "Everybody, as it was: name the proxies instead, anybody could forge an address."
        document.set("http.trusted_proxies", ["0.0.0.0/0", "::/0"], comment)
    else:
        document.set("http.trusted_proxies", proxies)


def _proxy_protocol(document: Document, value: Any, settings: Settings) -> None:
    if value is True or str(value).lower() not in ("off", "false", "0", ""):
        document.set("http.proxy_protocol", True)


def _protocol(document: Document, value: Any, settings: Settings) -> None:
    if value != "http":
        document.note(f"protocol {value}", NO_EQUIVALENT["uwsgi_allow_ips"])


def _client_certificates(document: Document, value: Any, settings: Settings) -> None:
    asked = ("none", "optional", "required")[int(value)]  # ssl.CERT_NONE and so on
    if asked == "none":
        return
    document.set("tls.client_auth", asked)
    if not settings.get("ca_certs"):
        document.note(
            "cert_reqs",
            "where no ca_certs are named, every authority that this machine trusts is"
            " believed about clients: name yours as tls.client_ca",
        )


def _client_authorities(document: Document, value: Any, settings: Settings) -> None:
    if int(settings.get("cert_reqs") or 0):
        document.set("tls.client_ca", value)
    else:
        document.note("ca_certs", "not needed, without cert_reqs no client is asked for its own")


TRANSLATED: dict[str, Callable[[Document, Any, Settings], None]] = {
    "wsgi_app": _app,
    "bind": _bind,
    "workers": _workers,
    "worker_class": _worker_class,
    "timeout": _timeout,
    "limit_request_field_size": _field_size,
    "raw_env": _raw_env,
    "pythonpath": _pythonpath,
    "accesslog": _access,
    "errorlog": _error,
    "access_log_format": _access_format,
    "loglevel": _level,
    "syslog": _syslog,
    "syslog_addr": _syslog_address,
    "user": _user("user"),
    "group": _user("group"),
    "umask": _umask,
    "forwarded_allow_ips": _trusted,
    "proxy_protocol": _proxy_protocol,
    "protocol": _protocol,
    "ca_certs": _client_authorities,
    "cert_reqs": _client_certificates,
}
"""Settings that are written in another way."""


def shown(arguments: list[str]) -> str:
    """A command line, for the title."""
    return f"`gunicorn {shlex.join(arguments)}`"
