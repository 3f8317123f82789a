"""uWSGI's options, as data: what becomes of each.

`prefork.migrate.uwsgi` reads this table, and so does the test that writes the table of
docs/coming-from.md.
"""

from typing import NamedTuple

from prefork.migrate.report import Fate


class Option(NamedTuple):
    """One option: its fate, the key or what there is instead, and its other names."""

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

OPTIONS: dict[str, Option] = {
    # What is served.
    "module": Option(_T, "server.app", ("wsgi", "w")),
    "wsgi-file": Option(_T, "server.app, as a module", ("file",)),
    "callable": Option(_T, "server.app, behind the colon"),
    "chdir": Option(_T, "server.chdir", ("cd",)),
    "pythonpath": Option(_T, "server.pythonpath", ("python-path", "pp")),
    "env": Option(_T, "server.env; secrets belong in server.env_file", ("environment",)),
    "home": Option(
        _C,
        "use the prefork of that environment, as in {value}/bin/prefork",
        ("virtualenv", "venv", "pyhome", "H"),
    ),
    "static-map": Option(_T, "static.mounts"),
    "static-index": Option(_T, "static.index"),
    # Addresses.
    "socket": Option(
        _T, "server.bind; nginx needs proxy_pass in place of uwsgi_pass", ("uwsgi-socket", "s")
    ),
    "http-socket": Option(_T, "server.bind", ("http11-socket",)),
    "http": Option(_T, "server.bind", ("http-router",)),
    "https": Option(_T, "server.bind, tls.certificate and tls.key", ("https-socket",)),
    "protocol": Option(_T, "HTTP only", ("socket-protocol",)),
    "chmod-socket": Option(_T, "server.unix_mode", ("chmod",)),
    "chown-socket": Option(_T, "server.unix_owner", ("chown",)),
    "listen": Option(_T, "server.backlog", ("l",)),
    "http-keepalive": Option(_T, "http.keepalive"),
    "enable-proxy-protocol": Option(
        _T, "http.proxy_protocol", ("http-enable-proxy-protocol", "proxy-protocol")
    ),
    # Workers.
    "processes": Option(_T, "workers.count; uWSGI starts 1 by default", ("workers", "p")),
    "threads": Option(_T, "workers.threads"),
    "cheaper": Option(_T, "workers.min, with workers.spare and workers.max"),
    "cheaper-step": Option(_T, "workers.spare"),
    "cheaper-initial": Option(_C, "the pool starts with workers.min"),
    "cheaper-algo": Option(_C, "the pool grows as long as connections wait (workers.spare)"),
    "harakiri": Option(_T, "workers.request_timeout; without harakiri 0, no limit", ("t",)),
    "max-requests": Option(_T, "workers.max_requests"),
    "max-requests-delta": Option(_T, "workers.max_requests_jitter"),
    "max-worker-lifetime": Option(_T, "workers.max_age"),
    "reload-on-rss": Option(_T, "workers.max_memory", ("evil-reload-on-rss",)),
    "reload-on-as": Option(_L, "workers.max_memory counts resident memory", ("evil-reload-on-as",)),
    "worker-reload-mercy": Option(_T, "workers.graceful_timeout; 60 by default"),
    "reload-mercy": Option(_T, "workers.graceful_timeout", ("mercy",)),
    "lazy-apps": Option(_T, "the default; without it workers.preload = true", ("lazy",)),
    "gevent": Option(_T, "workers.threads", ("async", "asyncio", "ugreen")),
    # Requests.
    "buffer-size": Option(_T, "http.max_header_size", ("b",)),
    "limit-post": Option(_T, "http.max_body; without it 0, no limit"),
    "post-buffering": Option(_T, "http.body_memory"),
    # Logs.
    "logto": Option(_T, "log.error and log.access", ("logto2", "log-to")),
    "daemonize": Option(_T, "process.daemon, log.error and log.access", ("daemonize2", "d")),
    "disable-logging": Option(_T, "no log.access; without it there is one", ("L",)),
    "logger": Option(_T, "log.error; syslog and files only", ("log-syslog",)),
    "req-logger": Option(_T, "log.access; syslog and files only"),
    "log-format": Option(_L, 'log.access_format: "common", "combined" or "json"', ("logformat",)),
    # The process.
    "uid": Option(_T, "process.user"),
    "gid": Option(_T, "process.group"),
    "umask": Option(_T, "process.umask"),
    "pidfile": Option(_T, "process.pidfile", ("pidfile2", "safe-pidfile")),
    "procname": Option(
        _T, "server.name", ("procname-master", "procname-prefix", "procname-prefix-spaced")
    ),
    "cpu-affinity": Option(_T, 'process.cpu_affinity; 1 is "auto"'),
    "max-fd": Option(_T, "process.limits, nofile"),
    "limit-as": Option(_T, "process.limits, as", ("rlimit-as",)),
    "limit-nproc": Option(_T, "process.limits, nproc"),
    # What works in another way.
    "touch-reload": Option(
        _C,
        "`prefork reload`, or a systemd path unit that calls it",
        ("touch-chain-reload", "touch-workers-reload", "fs-reload"),
    ),
    "py-autoreload": Option(
        _C, "`prefork serve FILE --reload`", ("python-autoreload", "py-auto-reload")
    ),
    "stats": Option(
        _C, "`prefork status --json`, `prefork top`, and [metrics]", ("stats-server", "stats-http")
    ),
    "master-fifo": Option(_C, "`prefork reload`, `prefork scale N` and the other commands"),
    "auto-procname": Option(_U, "processes are named after server.name and their slot"),
    "socket-timeout": Option(
        _C, "http.header_timeout, body_timeout and write_timeout", ("http-timeout",)
    ),
    "reuse-port": Option(_C, "all workers accept from one socket, which balances them better"),
    "min-worker-lifetime": Option(_C, "a worker that fails again and again is started more slowly"),
    "so-keepalive": Option(_C, "idle connections are closed after http.keepalive"),
    "log-slow": Option(_C, "workers.slow_request, with the stacks of the worker"),
    "py-tracebacker": Option(_C, "`prefork status --stack SLOT`", ("python-tracebacker",)),
    # What has no use.
    "master": Option(_U, "there is always a master", ("M",)),
    "enable-threads": Option(_U, "threads of the application always run", ("T",)),
    "single-interpreter": Option(_U, "there is one interpreter in each process", ("i",)),
    "vacuum": Option(_U, "socket and pid files are removed at the end"),
    "die-on-term": Option(_U, "TERM stops the server gracefully"),
    "need-app": Option(_U, "a first start that fails ends the server, with status 3"),
    "strict": Option(_U, "an unknown key is always an error"),
    "no-orphans": Option(_U, "workers end with the master"),
    "thunder-lock": Option(_U, "the kernel wakes one worker for each connection"),
    "memory-report": Option(_U, "`prefork status` shows the memory of each worker", ("m",)),
    "harakiri-verbose": Option(_U, "the master logs a request over its time"),
    "offload-threads": Option(_U, "the kernel sends files; slow clients keep no worker busy"),
    "plugins": Option(_U, _PLUGIN, ("plugin", "plugins-dir", "plugin-dir")),
    "ignore-sigpipe": Option(
        _U,
        "a client that goes away is no error",
        ("ignore-write-errors", "disable-write-exception", "write-errors-tolerance"),
    ),
    "log-master": Option(_U, "each process logs for itself", ("threaded-logger",)),
    "log-date": Option(_U, "each line has its time"),
    "log-4xx": Option(_U, "the access log has every request", ("log-5xx", "log-zero")),
    "log-x-forwarded-for": Option(_U, "the access log has the client that a trusted proxy names"),
    "close-on-exec": Option(_U, "sockets are never inherited by other programs"),
    "honour-stdin": Option(_L, "stdin is not read by workers"),
    # What is lost.
    "cron": Option(_L, _TIMERS, ("cron2", "unique-cron", "legion-cron", "legion-cron2")),
    "spooler": Option(
        _L,
        _QUEUE,
        ("spooler-processes", "spooler-frequency", "spooler-max-tasks", "spooler-external", "Q"),
    ),
    "mule": Option(_L, f"{_QUEUE}, or {_UNITS}", ("mules", "farm")),
    "attach-daemon": Option(
        _L,
        _UNITS,
        ("attach-daemon2", "smart-attach-daemon", "smart-attach-daemon2", "legion-attach-daemon"),
    ),
    "mount": Option(
        _L,
        "one application for each file; dispatch in it (werkzeug's DispatcherMiddleware), or let"
        " the proxy send X-Forwarded-Prefix",
        ("app",),
    ),
    "manage-script-name": Option(_L, "let the proxy send X-Forwarded-Prefix"),
    "route": Option(
        _L,
        _PROXY,
        ("route-host", "route-uri", "route-if", "route-run", "route-label", "response-route"),
    ),
    "add-header": Option(_L, f"{_PROXY}, or use WSGI middleware", ("del-header", "rem-header")),
    "emperor": Option(_L, _EMPEROR, ("vassals-dir", "vassal-set", "vassals-inherit")),
    "subscribe-to": Option(_L, _PROXY, ("subscribe2", "fastrouter", "http-subscription-server")),
    "cache": Option(_L, _CACHE, ("cache2", "queue", "sharedarea")),
    "static-file": Option(
        _L, "static.mounts serves directories by their prefix", ("check-static", "static-map2")
    ),
    "static-expires": Option(_L, _PROXY, ("static-expires-uri", "static-gzip-all")),
    "http-websockets": Option(_L, "WebSockets need a server for ASGI", ("websockets",)),
    "exec-asap": Option(
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
    "import": Option(
        _L,
        "import it in the application's module, or name a function in workers.hooks",
        ("shared-import", "python-import", "py-import", "pyimport", "spooler-import"),
    ),
    "chroot": Option(_L, "use systemd's RootDirectory=", ("cgroup", "ns", "jail")),
    "log-maxsize": Option(_L, _ROTATE, ("log-backupname", "log-reopen", "touch-logrotate")),
    "log-encoder": Option(_L, 'log.format = "json"', ("log-req-encoder", "log-route")),
    "paste": Option(
        _L,
        "write a module with `application = loadapp(...)` and name it as server.app",
        ("ini-paste", "paste-logger", "ini-paste-logged"),
    ),
    "legion": Option(_L, "use keepalived, or the cluster's own means", ("legion-node",)),
    "snmp": Option(_L, "Prometheus reads [metrics]", ("carbon", "statsd", "metrics", "stats-push")),
}

NAMES: dict[str, str] = {
    name: main for main, option in OPTIONS.items() for name in (main, *option.names)
}
"""The entry in OPTIONS for every name of an option."""
