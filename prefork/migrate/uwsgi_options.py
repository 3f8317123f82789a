"""The options of uWSGI, as data: how each is migrated.

`prefork.migrate.uwsgi` reads this table, and so does the test that writes the table of
docs/coming-from.md.
"""

from typing import NamedTuple

from prefork.migrate.migration_report import Fate


class UwsgiOption(NamedTuple):
    """One option: how it is migrated, the key or the replacement, and its other names."""

    fate: Fate
    here: str
    names: tuple[str, ...] = ()


_T, _C, _L, _U = Fate.TRANSLATED, Fate.CHANGED, Fate.LOST, Fate.UNNEEDED

_QUEUE = "use a task queue: Celery, RQ, dramatiq, Huey"
_TIMERS = "use systemd timers or cron"
_UNITS = "give each program a systemd unit of its own"
_PROXY = "let the proxy in front (nginx, HAProxy) do it"
_CACHE = "use Redis or memcached"
_HOOKS = "use systemd's ExecStartPre= and ExecStopPost=; in workers there is workers.hooks"
_EMPEROR = "one file and one unit for each site: `systemctl enable --now prefork@shop`"
_ROTATE = "use logrotate, and `prefork reopen` or USR1"
_PLUGIN = "prefork serves Python only; the interpreter is the one that it is installed for"

OPTIONS: dict[str, UwsgiOption] = {
    # The application.
    "module": UwsgiOption(_T, "server.app", ("wsgi", "w")),
    "wsgi-file": UwsgiOption(_T, "server.app, as a module", ("file",)),
    "callable": UwsgiOption(_T, "server.app, after the colon"),
    "chdir": UwsgiOption(_T, "server.chdir", ("cd",)),
    "pythonpath": UwsgiOption(_T, "server.pythonpath", ("python-path", "pp")),
    "env": UwsgiOption(_T, "server.env; secrets belong in server.env_file", ("environment",)),
    "home": UwsgiOption(
        _C,
        "use the prefork of that environment, as in {value}/bin/prefork",
        ("virtualenv", "venv", "pyhome", "H"),
    ),
    "static-map": UwsgiOption(
        _T,
        "static.mounts; a file that is not there is 404, and the application is not asked for it",
    ),
    "static-index": UwsgiOption(_T, "static.index"),
    # Addresses.
    "socket": UwsgiOption(
        _T, "server.bind; nginx needs proxy_pass in place of uwsgi_pass", ("uwsgi-socket", "s")
    ),
    "http-socket": UwsgiOption(_T, "server.bind", ("http11-socket",)),
    "http": UwsgiOption(_T, "server.bind", ("http-router",)),
    "https": UwsgiOption(_T, "server.bind, tls.certificate and tls.key", ("https-socket",)),
    "protocol": UwsgiOption(_T, "HTTP only", ("socket-protocol",)),
    "chmod-socket": UwsgiOption(_T, "server.unix_mode", ("chmod", "C")),
    "chown-socket": UwsgiOption(_T, "server.unix_owner", ("chown",)),
    "listen": UwsgiOption(_T, "server.backlog", ("l",)),
    "http-keepalive": UwsgiOption(_T, "http.keepalive"),
    "enable-proxy-protocol": UwsgiOption(
        _T, "http.proxy_protocol", ("http-enable-proxy-protocol", "proxy-protocol")
    ),
    # Workers.
    "processes": UwsgiOption(_T, "workers.count; uWSGI starts 1 by default", ("workers", "p")),
    "threads": UwsgiOption(_T, "workers.threads"),
    "cheaper": UwsgiOption(_T, "workers.min, with workers.spare and workers.max"),
    "cheaper-step": UwsgiOption(_T, "workers.spare"),
    "cheaper-initial": UwsgiOption(_C, "the pool starts with workers.min"),
    "cheaper-algo": UwsgiOption(_C, "the pool grows as long as connections wait (workers.spare)"),
    "harakiri": UwsgiOption(_T, "workers.request_timeout; without harakiri 0, no limit", ("t",)),
    "max-requests": UwsgiOption(_T, "workers.max_requests", ("R",)),
    "max-requests-delta": UwsgiOption(_T, "workers.max_requests_jitter"),
    "max-worker-lifetime": UwsgiOption(_T, "workers.max_age"),
    "reload-on-rss": UwsgiOption(_T, "workers.max_memory", ("evil-reload-on-rss",)),
    "reload-on-as": UwsgiOption(
        _L, "workers.max_memory counts resident memory", ("evil-reload-on-as",)
    ),
    "worker-reload-mercy": UwsgiOption(_T, "workers.graceful_timeout; 60 by default"),
    "reload-mercy": UwsgiOption(_T, "workers.graceful_timeout", ("mercy",)),
    "lazy-apps": UwsgiOption(_T, "the default; without it workers.preload = true", ("lazy",)),
    "gevent": UwsgiOption(_T, "workers.threads", ("async", "asyncio", "ugreen")),
    # Requests.
    "buffer-size": UwsgiOption(_T, "http.max_header_size", ("b",)),
    "limit-post": UwsgiOption(_T, "http.max_body; without it 0, no limit"),
    "post-buffering": UwsgiOption(_T, "http.body_memory"),
    # Logs.
    "logto": UwsgiOption(_T, "log.error and log.access", ("logto2", "log-to")),
    "daemonize": UwsgiOption(_T, "process.daemon, log.error and log.access", ("daemonize2", "d")),
    "disable-logging": UwsgiOption(_T, "no log.access; without it there is one", ("L",)),
    "logger": UwsgiOption(_T, "log.error; syslog and files only", ("log-syslog",)),
    "req-logger": UwsgiOption(_T, "log.access; syslog and files only"),
    "log-format": UwsgiOption(
        _L, 'log.access_format: "common", "combined" or "json"', ("logformat",)
    ),
    # The process.
    "uid": UwsgiOption(_T, "process.user"),
    "gid": UwsgiOption(_T, "process.group"),
    "umask": UwsgiOption(_T, "process.umask"),
    "pidfile": UwsgiOption(_T, "process.pidfile", ("pidfile2", "safe-pidfile")),
    "procname": UwsgiOption(
        _T, "server.name", ("procname-master", "procname-prefix", "procname-prefix-spaced")
    ),
    "cpu-affinity": UwsgiOption(_T, 'process.cpu_affinity; 1 is "auto"'),
    "max-fd": UwsgiOption(_T, "process.limits, nofile"),
    "limit-as": UwsgiOption(_T, "process.limits, as", ("rlimit-as",)),
    "limit-nproc": UwsgiOption(_T, "process.limits, nproc"),
    # What works in another way.
    "touch-reload": UwsgiOption(
        _C,
        "`prefork reload`, or a systemd path unit that calls it",
        ("touch-chain-reload", "touch-workers-reload", "fs-reload"),
    ),
    "py-autoreload": UwsgiOption(
        _C, "`prefork serve FILE --reload`", ("python-autoreload", "py-auto-reload")
    ),
    "stats": UwsgiOption(
        _C, "`prefork status --json`, `prefork top`, and [metrics]", ("stats-server", "stats-http")
    ),
    "master-fifo": UwsgiOption(_C, "`prefork reload`, `prefork scale N` and the other commands"),
    "auto-procname": UwsgiOption(_U, "processes are named after server.name and their slot"),
    "socket-timeout": UwsgiOption(
        _C, "http.header_timeout, body_timeout and write_timeout", ("http-timeout", "z")
    ),
    "reuse-port": UwsgiOption(_C, "all workers accept from one socket, which balances them better"),
    "min-worker-lifetime": UwsgiOption(
        _C, "a worker that fails again and again is started more slowly"
    ),
    "so-keepalive": UwsgiOption(_C, "idle connections are closed after http.keepalive"),
    "log-slow": UwsgiOption(_C, "workers.slow_request, with the stacks of the worker"),
    "py-tracebacker": UwsgiOption(_C, "`prefork status --stack SLOT`", ("python-tracebacker",)),
    # What has no use.
    "master": UwsgiOption(_U, "there is always a master", ("M",)),
    "enable-threads": UwsgiOption(_U, "threads of the application always run", ("T",)),
    "single-interpreter": UwsgiOption(_U, "there is one interpreter in each process", ("i",)),
    "vacuum": UwsgiOption(_U, "socket and pid files are removed at the end"),
    "die-on-term": UwsgiOption(_U, "TERM stops the server gracefully"),
    "gevent-monkey-patch": UwsgiOption(
        _U,
        "threads need no monkey patching",
        ("gevent-early-monkey-patch", "gevent-wait-for-hub"),
    ),
    "need-app": UwsgiOption(_U, "a first start that fails ends the server, with status 3"),
    "strict": UwsgiOption(_U, "an unknown key is always an error"),
    "no-orphans": UwsgiOption(_U, "workers end with the master"),
    "thunder-lock": UwsgiOption(_U, "the kernel wakes one worker for each connection"),
    "memory-report": UwsgiOption(_U, "`prefork status` shows the memory of each worker", ("m",)),
    "harakiri-verbose": UwsgiOption(_U, "the master logs a request over its time"),
    "offload-threads": UwsgiOption(_U, "the kernel sends files; slow clients keep no worker busy"),
    "plugins": UwsgiOption(_U, _PLUGIN, ("plugin", "plugins-dir", "plugin-dir")),
    "ignore-sigpipe": UwsgiOption(
        _U,
        "a client that goes away is no error",
        ("ignore-write-errors", "disable-write-exception", "write-errors-tolerance"),
    ),
    "log-master": UwsgiOption(_U, "each process logs for itself", ("threaded-logger",)),
    "log-date": UwsgiOption(_U, "each line has its time"),
    "log-4xx": UwsgiOption(_U, "the access log has every request", ("log-5xx", "log-zero")),
    "log-x-forwarded-for": UwsgiOption(
        _U, "the access log has the client that a trusted proxy names"
    ),
    "close-on-exec": UwsgiOption(_U, "sockets are never inherited by other programs"),
    "honour-stdin": UwsgiOption(_L, "stdin is not read by workers"),
    # What is lost.
    "cron": UwsgiOption(_L, _TIMERS, ("cron2", "unique-cron", "legion-cron", "legion-cron2")),
    "spooler": UwsgiOption(
        _L,
        _QUEUE,
        ("spooler-processes", "spooler-frequency", "spooler-max-tasks", "spooler-external", "Q"),
    ),
    "mule": UwsgiOption(_L, f"{_QUEUE}, or {_UNITS}", ("mules", "farm")),
    "attach-daemon": UwsgiOption(
        _L,
        _UNITS,
        ("attach-daemon2", "smart-attach-daemon", "smart-attach-daemon2", "legion-attach-daemon"),
    ),
    "mount": UwsgiOption(
        _L,
        "one application for each file; dispatch in it (werkzeug's DispatcherMiddleware), or let"
        " the proxy send X-Forwarded-Prefix, and name it in http.trusted_headers",
        ("app",),
    ),
    "manage-script-name": UwsgiOption(
        _L, "let the proxy send X-Forwarded-Prefix, and name it in http.trusted_headers"
    ),
    "route": UwsgiOption(
        _L,
        _PROXY,
        ("route-host", "route-uri", "route-if", "route-run", "route-label", "response-route"),
    ),
    "add-header": UwsgiOption(
        _L, f"{_PROXY}, or use WSGI middleware", ("del-header", "rem-header")
    ),
    "emperor": UwsgiOption(_L, _EMPEROR, ("vassals-dir", "vassal-set", "vassals-inherit")),
    "subscribe-to": UwsgiOption(
        _L, _PROXY, ("subscribe2", "fastrouter", "http-subscription-server")
    ),
    "cache": UwsgiOption(_L, _CACHE, ("cache2", "queue", "sharedarea")),
    "static-file": UwsgiOption(
        _L, "static.mounts serves directories by their prefix", ("check-static", "static-map2")
    ),
    "static-expires": UwsgiOption(_L, _PROXY, ("static-expires-uri", "static-gzip-all")),
    "http-websockets": UwsgiOption(
        _L,
        "WebSockets need flask-sock or simple-websocket, with workers.threads, or ASGI:"
        " uWSGI's own functions for them are not there",
        ("websockets",),
    ),
    "exec-asap": UwsgiOption(
        _L,
        _HOOKS,
        (
            *(
                "exec-pre-app",
                "exec-post-app",
                "exec-as-root",
                "exec-as-user",
                "exec-as-user-atexit",
            ),
            *("hook-pre-app", "hook-post-app", "hook-asap", "hook-as-root", "hook-as-user"),
            *("hook-master-start", "hook-accepting1-once", "exec-pre-jail", "exec-post-jail"),
        ),
    ),
    "import": UwsgiOption(
        _L,
        "import it in the application's module, or name a function in workers.hooks",
        ("shared-import", "python-import", "py-import", "pyimport", "spooler-import"),
    ),
    "chroot": UwsgiOption(_L, "use systemd's RootDirectory=", ("cgroup", "ns", "jail")),
    "log-maxsize": UwsgiOption(_L, _ROTATE, ("log-backupname", "log-reopen", "touch-logrotate")),
    "log-encoder": UwsgiOption(_L, 'log.format = "json"', ("log-req-encoder", "log-route")),
    "paste": UwsgiOption(
        _L,
        "write a module with `application = loadapp(...)` and name it as server.app",
        ("ini-paste", "paste-logger", "ini-paste-logged"),
    ),
    "legion": UwsgiOption(_L, "use keepalived, or the cluster's own means", ("legion-node",)),
    "snmp": UwsgiOption(
        _L, "Prometheus reads [metrics]", ("carbon", "statsd", "metrics", "stats-push")
    ),
}

NAMES: dict[str, str] = {
    name: main for main, option in OPTIONS.items() for name in (main, *option.names)
}
"""The entry in OPTIONS for every name of an option."""

FLAGS = frozenset(
    {
        *("enable-proxy-protocol", "lazy-apps", "lazy", "ugreen", "disable-logging", "L"),
        *("stats-http", "auto-procname", "reuse-port", "so-keepalive", "master", "M"),
        *("enable-threads", "T", "single-interpreter", "i", "vacuum", "die-on-term"),
        *("gevent-monkey-patch", "gevent-early-monkey-patch", "gevent-wait-for-hub", "strict"),
        *("no-orphans", "thunder-lock", "memory-report", "m", "harakiri-verbose"),
        *("ignore-sigpipe", "ignore-write-errors", "disable-write-exception", "log-master"),
        *("threaded-logger", "log-4xx", "log-5xx", "log-zero", "log-x-forwarded-for"),
        *("close-on-exec", "honour-stdin", "manage-script-name", "static-gzip-all"),
        *("http-websockets", "log-reopen", "paste-logger"),
    }
)
"""The options that take no value on the command line (uWSGI's core/uwsgi.c and its plugins)."""

OPTIONAL = frozenset(
    {
        *("chmod-socket", "chmod", "C", "http-keepalive", "http-enable-proxy-protocol"),
        *("log-syslog", "need-app", "log-date", "mule", "snmp"),
    }
)
"""The options whose value can only stand in the same word: --chmod-socket=660, -C660."""
