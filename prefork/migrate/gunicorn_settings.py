"""All settings of gunicorn 27, as data: the kind, the default, and how each is migrated.

`prefork.migrate.gunicorn` reads this table, and so does the test that writes the table of
docs/coming-from.md. A test compares names, options and defaults with gunicorn's own.
"""

from typing import Any, NamedTuple

from prefork.migrate.migration_report import Fate


class GunicornSetting(NamedTuple):
    """One setting.

    kind: how gunicorn reads it, a name in `prefork.migrate.gunicorn_values.READERS`.
    here: the key (SAME), a text with the keys (TRANSLATED), or the replacement and the reason.
    default: gunicorn's; a setting with its default value is not reported.
    options: on the command line, if they are not `--name-with-hyphens`; () for none.
    """

    kind: str
    fate: Fate
    here: str
    default: Any = None
    options: tuple[str, ...] | None = None
    flag: bool = False
    """The option takes no value."""


_SAME, _TRANSLATED, _CHANGED = Fate.SAME, Fate.TRANSLATED, Fate.CHANGED
_LOST, _UNNEEDED = Fate.LOST, Fate.UNNEEDED

_MASTER = "the master runs no code of the application; use systemd's ExecStartPre="
_HOOK = "move it into a module and name it in workers.hooks; it gets one argument, a worker with"
_HOOK += " slot, generation, pid and name"
_MIDDLEWARE = "wrap the application in WSGI middleware"
_STRICT = "malformed requests are refused, because two servers that read one request differently"
_STRICT += " let clients smuggle requests past the proxy"
_HTTP2 = "let the proxy in front (nginx, HAProxy) speak HTTP/2; it speaks HTTP/1.1 to prefork"
_GRACE = "an application that is told that its client has gone may take its time"
_PREFIX = "let the proxy send X-Forwarded-Prefix, and name it in http.trusted_headers"
_DIRTY = "long work belongs in a task queue (Celery, RQ, dramatiq) or in workers.threads"
_STATSD = "there is no statsd client; Prometheus reads [metrics]"
_UNDERSCORES = "headers with underscores in their names are always dropped"
_TLS = "TLS 1.2 and 1.3 with the ciphers of Python's default context are used; see"
_TLS += " tls.min_version"

SETTINGS: dict[str, GunicornSetting] = {
    "config": GunicornSetting(
        "string",
        _UNNEEDED,
        "the new file takes its place",
        "./gunicorn.conf.py",
        ("-c", "--config"),
    ),
    "wsgi_app": GunicornSetting("string", _TRANSLATED, "server.app", options=()),
    "bind": GunicornSetting(
        "strings", _TRANSLATED, "server.bind", ["127.0.0.1:8000"], ("-b", "--bind")
    ),
    "backlog": GunicornSetting("integer", _TRANSLATED, "server.backlog", 2048),
    "workers": GunicornSetting(
        "integer",
        _TRANSLATED,
        'workers.count; gunicorn starts 1 by default, prefork "auto": as many as CPUs',
        1,
        ("-w", "--workers"),
    ),
    "worker_class": GunicornSetting(
        "class",
        _TRANSLATED,
        "workers.threads, for gevent and eventlet, too; server.protocol for a worker for ASGI",
        "sync",
        ("-k", "--worker-class"),
    ),
    "threads": GunicornSetting("integer", _TRANSLATED, "workers.threads, 1 to 255", 1),
    "worker_connections": GunicornSetting(
        "integer",
        _CHANGED,
        "slow and idle connections occupy no worker; http.max_connections limits them",
        1000,
    ),
    "max_requests": GunicornSetting("integer", _SAME, "workers.max_requests", 0),
    "max_requests_jitter": GunicornSetting(
        "integer", _TRANSLATED, "workers.max_requests_jitter", 0
    ),
    "timeout": GunicornSetting(
        "integer",
        _TRANSLATED,
        "workers.request_timeout for sync workers; for others a heartbeat, which limits no request",
        30,
        ("-t", "--timeout"),
    ),
    "graceful_timeout": GunicornSetting(
        "integer", _TRANSLATED, "workers.graceful_timeout, where 0 means no limit", 30
    ),
    "keepalive": GunicornSetting(
        "integer",
        _TRANSLATED,
        "http.keepalive; sync workers and 0 close each connection: http.keepalive_requests = 1",
        2,
        ("--keep-alive",),
    ),
    "limit_request_line": GunicornSetting("integer", _TRANSLATED, "http.max_request_line", 4094),
    "limit_request_fields": GunicornSetting("integer", _TRANSLATED, "http.max_header_count", 100),
    "limit_request_field_size": GunicornSetting(
        "integer",
        _TRANSLATED,
        "http.max_header_size, which is of all header lines together",
        8190,
        ("--limit-request-field_size", "--limit-request-field-size"),
    ),
    "reload": GunicornSetting(
        "boolean",
        _CHANGED,
        "reloading at each change is an option of the command: `prefork serve FILE --reload`",
        False,
        flag=True,
    ),
    "reload_engine": GunicornSetting(
        "any", _UNNEEDED, "`prefork serve --reload` uses inotify", "auto"
    ),
    "reload_extra_files": GunicornSetting(
        "strings",
        _LOST,
        "`prefork serve --reload` watches the directories of the application only",
        [],
        ("--reload-extra-file",),
    ),
    "spew": GunicornSetting(
        "boolean", _LOST, "no line is traced; use a profiler", False, flag=True
    ),
    "check_config": GunicornSetting(
        "boolean", _UNNEEDED, "it is a command: `prefork check FILE`", False, flag=True
    ),
    "print_config": GunicornSetting(
        "boolean", _UNNEEDED, "it is a command: `prefork check FILE --show`", False, flag=True
    ),
    "preload_app": GunicornSetting(
        "boolean", _SAME, "workers.preload", False, ("--preload",), flag=True
    ),
    "sendfile": GunicornSetting(
        "boolean",
        _UNNEEDED,
        "the kernel sends files wherever it can",
        None,
        ("--no-sendfile",),
        flag=True,
    ),
    "reuse_port": GunicornSetting(
        "boolean",
        _CHANGED,
        "all workers accept from one socket, which balances them better",
        False,
        flag=True,
    ),
    "chdir": GunicornSetting("path", _TRANSLATED, "server.chdir"),
    "daemon": GunicornSetting(
        "boolean", _TRANSLATED, "process.daemon", False, ("-D", "--daemon"), flag=True
    ),
    "raw_env": GunicornSetting(
        "strings", _TRANSLATED, "server.env; secrets belong in server.env_file", [], ("-e", "--env")
    ),
    "pidfile": GunicornSetting("path", _TRANSLATED, "process.pidfile", options=("-p", "--pid")),
    "worker_tmp_dir": GunicornSetting(
        "string", _UNNEEDED, "workers have no heartbeat file; the master sees them in shared memory"
    ),
    "user": GunicornSetting("account", _TRANSLATED, "process.user", options=("-u", "--user")),
    "group": GunicornSetting("account", _TRANSLATED, "process.group", options=("-g", "--group")),
    "umask": GunicornSetting(
        "integer",
        _TRANSLATED,
        "server.unix_mode: gunicorn applies it to its Unix sockets, not to the application's files",
        0,
        ("-m", "--umask"),
    ),
    "initgroups": GunicornSetting(
        "boolean", _UNNEEDED, "the groups of process.user are always set", False, flag=True
    ),
    "tmp_upload_dir": GunicornSetting(
        "string",
        _CHANGED,
        "large bodies go to the directory that TMPDIR names where the server is started",
        options=(),
    ),
    "secure_scheme_headers": GunicornSetting(
        "table",
        _TRANSLATED,
        "X-Forwarded-Proto of http.trusted_proxies",
        {
            "X-FORWARDED-PROTOCOL": "ssl",
            "X-FORWARDED-PROTO": "https",
            "X-FORWARDED-SSL": "on",
        },
        (),
    ),
    "forwarded_allow_ips": GunicornSetting(
        "addresses",
        _TRANSLATED,
        'http.trusted_proxies, with "unix" for the peers of Unix sockets',
        "127.0.0.1,::1",
    ),
    "accesslog": GunicornSetting(
        "string", _TRANSLATED, "log.access", options=("--access-logfile",)
    ),
    "disable_redirect_access_to_syslog": GunicornSetting(
        "boolean", _UNNEEDED, "log.access has a destination of its own", False, flag=True
    ),
    "access_log_format": GunicornSetting(
        "string",
        _TRANSLATED,
        'log.access_format: "common", "combined" or "json"',
        '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"',
        ("--access-logformat",),
    ),
    "errorlog": GunicornSetting(
        "string", _TRANSLATED, "log.error", "-", ("--error-logfile", "--log-file")
    ),
    "loglevel": GunicornSetting("string", _TRANSLATED, "log.level", "info", ("--log-level",)),
    "capture_output": GunicornSetting(
        "boolean",
        _CHANGED,
        "what the application prints goes to stdout and stderr; in a daemon, to the error log",
        False,
        flag=True,
    ),
    "logger_class": GunicornSetting(
        "class",
        _LOST,
        "the server's log has two forms, log.format; the application's loggers have log.config",
        "gunicorn.glogging.Logger",
    ),
    "logconfig": GunicornSetting(
        "string",
        _LOST,
        "write it as a dictConfig in a JSON or TOML file and name that as log.config; it configures"
        " the application's loggers, not the server's log",
        options=("--log-config",),
    ),
    "logconfig_dict": GunicornSetting(
        "table",
        _LOST,
        "write it into a JSON or TOML file and name that as log.config; it configures the"
        " application's loggers, not the server's log",
        {},
        (),
    ),
    "logconfig_json": GunicornSetting(
        "path",
        _TRANSLATED,
        "log.config, for the application's loggers",
        None,
        ("--log-config-json",),
    ),
    "syslog_addr": GunicornSetting(
        "string",
        _TRANSLATED,
        'log.error = "syslog:PATH"; only this machine\'s socket',
        "udp://localhost:514",
        ("--log-syslog-to",),
    ),
    "syslog": GunicornSetting(
        "boolean", _TRANSLATED, 'log.error = "syslog"', False, ("--log-syslog",), flag=True
    ),
    "syslog_prefix": GunicornSetting(
        "string", _CHANGED, "lines to syslog are tagged prefork", None, ("--log-syslog-prefix",)
    ),
    "syslog_facility": GunicornSetting(
        "string",
        _CHANGED,
        "lines to syslog have the facility daemon",
        "user",
        ("--log-syslog-facility",),
    ),
    "enable_stdio_inheritance": GunicornSetting(
        "boolean",
        _UNNEEDED,
        "a daemon's stdout and stderr go to its error log",
        False,
        ("-R", "--enable-stdio-inheritance"),
        flag=True,
    ),
    "statsd_host": GunicornSetting("string", _LOST, _STATSD),
    "dogstatsd_tags": GunicornSetting("string", _LOST, _STATSD, ""),
    "statsd_prefix": GunicornSetting("string", _LOST, _STATSD, ""),
    "enable_backlog_metric": GunicornSetting("boolean", _LOST, _STATSD, False, flag=True),
    "proc_name": GunicornSetting("string", _SAME, "server.name", None, ("-n", "--name")),
    "default_proc_name": GunicornSetting(
        "string", _UNNEEDED, "server.name is used", "gunicorn", ()
    ),
    "pythonpath": GunicornSetting("string", _TRANSLATED, "server.pythonpath"),
    "paste": GunicornSetting(
        "string",
        _LOST,
        "Paste files are not read; write a module with `application = loadapp(...)` and name it as"
        " server.app",
        None,
        ("--paste", "--paster"),
    ),
    "on_starting": GunicornSetting("function", _LOST, _MASTER, options=()),
    "on_reload": GunicornSetting("function", _LOST, _MASTER, options=()),
    "when_ready": GunicornSetting(
        "function",
        _LOST,
        "the master runs no code of the application; with Type=notify systemd runs ExecStartPost="
        " when the server is ready",
        options=(),
    ),
    "pre_fork": GunicornSetting(
        "function", _LOST, f"{_HOOK}; it is before_fork, with workers.preload = true", options=()
    ),
    "post_fork": GunicornSetting("function", _LOST, f"{_HOOK}; it is after_fork", options=()),
    "post_worker_init": GunicornSetting("function", _LOST, f"{_HOOK}; it is ready", options=()),
    "worker_int": GunicornSetting(
        "function", _LOST, "workers have no hook for signals; before_exit is called", options=()
    ),
    "worker_abort": GunicornSetting(
        "function",
        _LOST,
        "the master logs a request over its time; workers.slow_request shows stacks",
        options=(),
    ),
    "pre_exec": GunicornSetting("function", _LOST, _MASTER, options=()),
    "pre_request": GunicornSetting("function", _LOST, _MIDDLEWARE, options=()),
    "post_request": GunicornSetting("function", _LOST, _MIDDLEWARE, options=()),
    "child_exit": GunicornSetting(
        "function",
        _LOST,
        "no hook is called for workers that were killed, as child_exit is; for those that leave by"
        " themselves it is before_exit in workers.hooks",
        options=(),
    ),
    "worker_exit": GunicornSetting("function", _LOST, f"{_HOOK}; it is before_exit", options=()),
    "nworkers_changed": GunicornSetting(
        "function", _LOST, "the log says when workers come and go", options=()
    ),
    "on_exit": GunicornSetting(
        "function",
        _LOST,
        "the master runs no code of the application; use systemd's ExecStopPost=",
        options=(),
    ),
    "ssl_context": GunicornSetting(
        "function", _LOST, "the [tls] keys make the context", options=()
    ),
    "proxy_protocol": GunicornSetting("word", _TRANSLATED, "http.proxy_protocol", "off"),
    "proxy_allow_ips": GunicornSetting(
        "addresses",
        _TRANSLATED,
        "http.trusted_proxies, also for the PROXY protocol",
        "127.0.0.1,::1",
        ("--proxy-allow-from",),
    ),
    "protocol": GunicornSetting(
        "string", _TRANSLATED, "HTTP only; nginx needs proxy_pass in place of uwsgi_pass", "http"
    ),
    "uwsgi_allow_ips": GunicornSetting(
        "addresses",
        _UNNEEDED,
        "the uwsgi protocol is not spoken",
        "127.0.0.1,::1",
        ("--uwsgi-allow-from",),
    ),
    "keyfile": GunicornSetting("path", _TRANSLATED, "tls.key"),
    "certfile": GunicornSetting("path", _TRANSLATED, "tls.certificate"),
    "ssl_version": GunicornSetting("any", _CHANGED, _TLS, 2),
    "cert_reqs": GunicornSetting("integer", _TRANSLATED, "tls.client_auth", 0),
    "ca_certs": GunicornSetting("path", _TRANSLATED, "tls.client_ca"),
    "suppress_ragged_eofs": GunicornSetting(
        "boolean",
        _UNNEEDED,
        "a client may end a TLS connection without close_notify",
        True,
        flag=True,
    ),
    "do_handshake_on_connect": GunicornSetting(
        "boolean", _UNNEEDED, "a worker never waits for a handshake", False, flag=True
    ),
    "ciphers": GunicornSetting("string", _LOST, _TLS),
    "http_protocols": GunicornSetting("string", _TRANSLATED, f"HTTP/1.1 only; {_HTTP2}", "h1"),
    "http2_cleartext": GunicornSetting("any", _LOST, _HTTP2, "off"),
    "http2_max_concurrent_streams": GunicornSetting("integer", _UNNEEDED, _HTTP2, 100),
    "http2_initial_window_size": GunicornSetting("integer", _UNNEEDED, _HTTP2, 65535),
    "http2_max_frame_size": GunicornSetting("integer", _UNNEEDED, _HTTP2, 16384),
    "http2_max_header_list_size": GunicornSetting("integer", _UNNEEDED, _HTTP2, 65536),
    "raw_paste_global_conf": GunicornSetting(
        "strings", _LOST, "Paste files are not read", [], ("--paste-global",)
    ),
    "permit_obsolete_folding": GunicornSetting("boolean", _LOST, _STRICT, False, flag=True),
    "strip_header_spaces": GunicornSetting("boolean", _LOST, _STRICT, False, flag=True),
    "permit_unconventional_http_method": GunicornSetting(
        "boolean", _LOST, _STRICT, False, flag=True
    ),
    "permit_unconventional_http_version": GunicornSetting(
        "boolean", _LOST, _STRICT, False, flag=True
    ),
    "casefold_http_method": GunicornSetting("boolean", _LOST, _STRICT, False, flag=True),
    "forwarder_headers": GunicornSetting(
        "string",
        _LOST,
        f"{_UNDERSCORES}; for SCRIPT_NAME let the proxy send X-Forwarded-Prefix, and name it in"
        " http.trusted_headers",
        "SCRIPT_NAME,PATH_INFO",
    ),
    "header_map": GunicornSetting("string", _LOST, _UNDERSCORES, "drop"),
    "asgi_loop": GunicornSetting("any", _TRANSLATED, "workers.loop", "auto"),
    "asgi_lifespan": GunicornSetting("any", _TRANSLATED, "server.lifespan", "auto"),
    "asgi_disconnect_grace_period": GunicornSetting("integer", _UNNEEDED, _GRACE, 3),
    "websocket_max_message_size": GunicornSetting(
        "integer", _TRANSLATED, "websocket.max_message", 16777216
    ),
    "http_parser": GunicornSetting("any", _UNNEEDED, "there is one reader of HTTP", "auto"),
    "root_path": GunicornSetting("string", _LOST, _PREFIX, ""),
    "dirty_apps": GunicornSetting("strings", _LOST, _DIRTY, [], ("--dirty-app",)),
    "dirty_workers": GunicornSetting("integer", _LOST, _DIRTY, 0),
    "dirty_timeout": GunicornSetting("integer", _UNNEEDED, _DIRTY, 300),
    "dirty_threads": GunicornSetting("integer", _UNNEEDED, _DIRTY, 1),
    "dirty_graceful_timeout": GunicornSetting("integer", _UNNEEDED, _DIRTY, 30),
    "on_dirty_starting": GunicornSetting("function", _LOST, _DIRTY, options=()),
    "dirty_post_fork": GunicornSetting("function", _LOST, _DIRTY, options=()),
    "dirty_worker_init": GunicornSetting("function", _LOST, _DIRTY, options=()),
    "dirty_worker_exit": GunicornSetting("function", _LOST, _DIRTY, options=()),
    "control_socket": GunicornSetting("path", _TRANSLATED, "control.path"),
    "control_socket_mode": GunicornSetting(
        "integer", _CHANGED, "only the server's user and root can use the control socket", 0o600
    ),
    "control_socket_disable": GunicornSetting(
        "boolean",
        _CHANGED,
        "the control socket is a part of the server; only its user and root can use it",
        False,
        ("--no-control-socket",),
        flag=True,
    ),
}


def options(name: str) -> tuple[str, ...]:
    """A setting's options on gunicorn's command line."""
    named = SETTINGS[name].options
    return (f"--{name.replace('_', '-')}",) if named is None else named
