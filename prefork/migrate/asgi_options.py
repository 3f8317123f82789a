"""The options of uvicorn 0.54, hypercorn 0.18 and daphne 4.2, as data: how each is migrated.

`prefork.migrate.asgi_command` reads command lines by these tables, `prefork.migrate.asgi`
translates what was read, and a test writes the tables of docs/coming-from.md from them.
"""

from typing import NamedTuple

from prefork.migrate.migration_report import Fate


class AsgiOption(NamedTuple):
    """One option.

    here: the keys (TRANSLATED), or the replacement and the reason.
    kind: how the option is read: "text", "texts" (it may be repeated), "integer", "number",
    "boolean", "flag" (without a value), or "switch" (--name and --no-name).
    options: on the command line, if they are not `--name-with-hyphens`; () for none.
    default: a value with which the option is not reported.
    """

    fate: Fate
    here: str
    kind: str = "text"
    options: tuple[str, ...] | None = None
    default: object = None


_T, _C, _L, _U = Fate.TRANSLATED, Fate.CHANGED, Fate.LOST, Fate.UNNEEDED

_PREFIX = (
    "let the proxy send X-Forwarded-Prefix, and name it in http.trusted_headers; or give it to the"
    " application, as in FastAPI(root_path=...)"
)
_HTTP2 = "let the proxy in front (nginx, HAProxy) speak HTTP/2; it speaks HTTP/1.1 to prefork"
_STATSD = "there is no statsd client; Prometheus reads [metrics]"
_CIPHERS = "TLS 1.2 and 1.3 with the ciphers of Python's default context; see tls.min_version"
_PASSWORD = "the key must be readable without a password; its file belongs to root, with mode 0600"
_LOGGERS = "write it as a dictConfig in a JSON or TOML file and name that as log.config; it is for"
_LOGGERS += " the application's loggers, not for the server's log"
_WATCH = "`prefork serve FILE --reload` watches the application's files"
_ONE_READER = "there is one HTTP parser"
_HEADER = "use ASGI middleware, or let the proxy add it"

UVICORN: dict[str, AsgiOption] = {
    "app": AsgiOption(_T, "server.app", options=()),
    "factory": AsgiOption(_T, "server.app, with parentheses: module:factory()", "flag"),
    "interface": AsgiOption(_T, "server.protocol", default="auto"),
    "app_dir": AsgiOption(_T, "server.pythonpath", default=""),
    "env_file": AsgiOption(_T, "server.env_file"),
    "host": AsgiOption(_T, "server.bind"),
    "port": AsgiOption(_T, "server.bind"),
    "uds": AsgiOption(_T, "server.bind, as unix:PATH"),
    "fd": AsgiOption(_T, "server.bind, as fd:N", "integer"),
    "backlog": AsgiOption(_T, "server.backlog", "integer"),
    "workers": AsgiOption(_T, "workers.count; WEB_CONCURRENCY, or 1, by default", "integer"),
    "loop": AsgiOption(_T, "workers.loop", default="auto"),
    "lifespan": AsgiOption(_T, "server.lifespan", default="auto"),
    "limit_concurrency": AsgiOption(
        _T, "workers.max_concurrency; requests beyond it wait and get no 503", "integer"
    ),
    "limit_max_requests": AsgiOption(_T, "workers.max_requests", "integer"),
    "limit_max_requests_jitter": AsgiOption(_T, "workers.max_requests_jitter", "integer"),
    "timeout_keep_alive": AsgiOption(_T, "http.keepalive", "integer"),
    "timeout_graceful_shutdown": AsgiOption(
        _T, "workers.graceful_timeout; without it 0, no limit", "integer"
    ),
    "ws_max_size": AsgiOption(_T, "websocket.max_message; 16 MiB by default", "integer"),
    "ws_ping_interval": AsgiOption(_T, "websocket.ping_interval", "number"),
    "ws_ping_timeout": AsgiOption(_T, "websocket.ping_timeout", "number"),
    "ws_per_message_deflate": AsgiOption(_T, "websocket.compression", "boolean"),
    "proxy_headers": AsgiOption(_T, "http.trusted_proxies", "switch"),
    "forwarded_allow_ips": AsgiOption(
        _T, "http.trusted_proxies; FORWARDED_ALLOW_IPS, or 127.0.0.1 and ::1, by default"
    ),
    "server_header": AsgiOption(_T, "http.server_header", "switch"),
    "access_log": AsgiOption(_T, "log.access; on by default", "switch"),
    "log_level": AsgiOption(_T, "log.level"),
    "ssl_certfile": AsgiOption(_T, "tls.certificate"),
    "ssl_keyfile": AsgiOption(_T, "tls.key"),
    "ssl_ca_certs": AsgiOption(_T, "tls.client_ca"),
    "ssl_cert_reqs": AsgiOption(_T, "tls.client_auth", "integer"),
    "ssl_keyfile_password": AsgiOption(_L, _PASSWORD),
    "root_path": AsgiOption(_L, _PREFIX, default=""),
    "header": AsgiOption(_L, _HEADER, "texts"),
    "log_config": AsgiOption(_L, _LOGGERS),
    "http2": AsgiOption(_L, _HTTP2, "flag"),
    "date_header": AsgiOption(
        _C, "there is always a Date header (RFC 9110, 6.6.1)", "switch", None, True
    ),
    "reload": AsgiOption(_C, _WATCH, "flag"),
    "reload_dir": AsgiOption(_C, _WATCH, "texts"),
    "reload_include": AsgiOption(_C, _WATCH, "texts"),
    "reload_exclude": AsgiOption(_C, _WATCH, "texts"),
    "reload_delay": AsgiOption(_U, _WATCH, "number"),
    "ws_max_queue": AsgiOption(_C, "websocket.receive_queue, in bytes", "integer"),
    "h11_max_incomplete_event_size": AsgiOption(
        _C, "http.max_header_size, 64 KiB by default", "integer"
    ),
    "http": AsgiOption(_U, _ONE_READER, default="auto"),
    "ws": AsgiOption(_U, "there is one implementation of WebSocket", default="auto"),
    "use_colors": AsgiOption(_U, "the log has no colours", "switch"),
    "timeout_worker_healthcheck": AsgiOption(
        _U, "the master sees a worker that does not run without asking it", "integer"
    ),
    "reset_contextvars": AsgiOption(_U, "each call has a context of its own", "flag"),
    "ssl_version": AsgiOption(_U, _CIPHERS, "integer"),
    "ssl_ciphers": AsgiOption(_U, _CIPHERS),
}

HYPERCORN: dict[str, AsgiOption] = {
    "application": AsgiOption(_T, "server.app; wsgi: before it sets server.protocol", options=()),
    "config": AsgiOption(_U, "the new file takes its place", options=("-c", "--config")),
    "bind": AsgiOption(_T, "server.bind", "texts", ("-b", "--bind")),
    "insecure_bind": AsgiOption(_T, "server.bind, and tls.bind for the others", "texts"),
    "backlog": AsgiOption(_T, "server.backlog; 100 by default", "integer"),
    "workers": AsgiOption(_T, "workers.count; 1 by default", "integer", ("-w", "--workers")),
    "worker_class": AsgiOption(
        _T, "workers.loop: asyncio or uvloop", options=("-k", "--worker-class"), default="asyncio"
    ),
    "keep_alive_timeout": AsgiOption(_T, "http.keepalive", "number", ("--keep-alive",)),
    "keep_alive_max_requests": AsgiOption(
        _T, "http.keepalive_requests; 1,000 by default", "integer", ()
    ),
    "graceful_timeout": AsgiOption(_T, "workers.graceful_timeout; 3 by default", "number"),
    "startup_timeout": AsgiOption(_T, "workers.boot_timeout; 60 by default", "number", ()),
    "read_timeout": AsgiOption(_T, "http.body_timeout", "number"),
    "max_requests": AsgiOption(_T, "workers.max_requests", "integer"),
    "max_requests_jitter": AsgiOption(_T, "workers.max_requests_jitter", "integer"),
    "websocket_ping_interval": AsgiOption(
        _T, "websocket.ping_interval; without it 0, no pings", "number"
    ),
    "websocket_max_message_size": AsgiOption(
        _T, "websocket.max_message; 16 MiB by default", "integer", ()
    ),
    "accesslog": AsgiOption(_T, "log.access", options=("--access-logfile", "--access-log")),
    "errorlog": AsgiOption(
        _T,
        "log.error",
        options=("--error-logfile", "--error-log", "--log-file"),
        default="-",
    ),
    "loglevel": AsgiOption(_T, "log.level", options=("--log-level",)),
    "pid_path": AsgiOption(_T, "process.pidfile", options=("-p", "--pid")),
    "umask": AsgiOption(_T, "server.unix_mode", options=("-m", "--umask")),
    "user": AsgiOption(_T, "server.unix_owner", options=("-u", "--user")),
    "group": AsgiOption(_T, "server.unix_owner", options=("-g", "--group")),
    "certfile": AsgiOption(_T, "tls.certificate"),
    "keyfile": AsgiOption(_T, "tls.key"),
    "ca_certs": AsgiOption(_T, "tls.client_ca"),
    "verify_mode": AsgiOption(_T, "tls.client_auth"),
    "cert_reqs": AsgiOption(_T, "tls.client_auth", "integer"),
    "include_server_header": AsgiOption(_T, "http.server_header", "boolean", ()),
    "keyfile_password": AsgiOption(_L, _PASSWORD),
    "root_path": AsgiOption(_L, _PREFIX, default=""),
    "quic_bind": AsgiOption(_L, "there is no HTTP/3; let the proxy in front speak it", "texts"),
    "server_names": AsgiOption(
        _L, "let the proxy, or the application, refuse other hosts", "texts", ("--server-name",)
    ),
    "statsd_host": AsgiOption(_L, _STATSD),
    "statsd_prefix": AsgiOption(_L, _STATSD, default=""),
    "logconfig": AsgiOption(_L, _LOGGERS, options=("--log-config",)),
    "access_log_format": AsgiOption(
        _L, 'log.access_format: "common", "combined" or "json"', options=("--access-logformat",)
    ),
    "use_reloader": AsgiOption(_C, _WATCH, "flag", ("--reload",)),
    "daemon": AsgiOption(_U, "workers always end with the master", "flag", ("-D", "--daemon")),
    "debug": AsgiOption(_U, "asyncio's debug mode is PYTHONASYNCIODEBUG=1", "flag"),
    "ciphers": AsgiOption(_U, _CIPHERS),
}

DAPHNE: dict[str, AsgiOption] = {
    "application": AsgiOption(_T, "server.app", options=()),
    "host": AsgiOption(_T, "server.bind", options=("-b", "--bind")),
    "port": AsgiOption(_T, "server.bind", options=("-p", "--port")),
    "unix_socket": AsgiOption(_T, "server.bind, as unix:PATH", options=("-u", "--unix-socket")),
    "fd": AsgiOption(_T, "server.bind, as fd:N", "integer"),
    "endpoint": AsgiOption(
        _T, "server.bind, with tls.certificate and tls.key", "texts", ("-e", "--endpoint")
    ),
    "http_timeout": AsgiOption(
        _T, "workers.request_timeout; without it 0, no limit", "number", ("-t", "--http-timeout")
    ),
    "websocket_timeout": AsgiOption(
        _T, "websocket.max_age; a day by default", "number", ("--websocket_timeout",)
    ),
    "ping_interval": AsgiOption(_T, "websocket.ping_interval", "number"),
    "ping_timeout": AsgiOption(_T, "websocket.ping_timeout; 30 by default", "number"),
    "websocket_max_message_size": AsgiOption(
        _T, "websocket.max_message; 1 MiB by default", "integer"
    ),
    "access_log": AsgiOption(_T, "log.access; on by default"),
    "verbosity": AsgiOption(
        _T, "log.level, and log.access unless it is 0", "integer", ("-v", "--verbosity")
    ),
    "proxy_headers": AsgiOption(_T, "http.trusted_proxies", "flag"),
    "no_server_name": AsgiOption(_T, "http.server_header = false", "flag"),
    "server_name": AsgiOption(
        _C,
        "the header is `Server: prefork`",
        options=("-s", "--server-name"),
        default="daphne",
    ),
    "root_path": AsgiOption(_L, _PREFIX, default=""),
    "proxy_headers_host": AsgiOption(
        _L, "the proxy has to name the client in X-Forwarded-For", default="X-Forwarded-For"
    ),
    "proxy_headers_port": AsgiOption(
        _L, "the port of the client is not taken from a header", default="X-Forwarded-Port"
    ),
    "log_fmt": AsgiOption(_C, 'log.format: "text" or "json"'),
    "websocket_max_frame_size": AsgiOption(
        _U, "websocket.max_message is for a message, however many frames it has", "integer"
    ),
    "websocket_connect_timeout": AsgiOption(
        _U,
        "workers.request_timeout is for the answer to the handshake, too",
        "number",
        ("--websocket_connect_timeout",),
    ),
    "application_close_timeout": AsgiOption(
        _C, "an application is told that its client has gone, and is not cancelled", "number"
    ),
}

SERVERS: dict[str, dict[str, AsgiOption]] = {
    "uvicorn": UVICORN,
    "hypercorn": HYPERCORN,
    "daphne": DAPHNE,
}


def strings(name: str, option: AsgiOption) -> tuple[str, ...]:
    """The options of the command line for an entry of a table; none if it has none."""
    if option.options is not None:
        return option.options
    plain = f"--{name.replace('_', '-')}"
    return (plain, f"--no-{name.replace('_', '-')}") if option.kind == "switch" else (plain,)
