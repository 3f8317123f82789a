"""Checks of a whole configuration: values that contradict each other, or the machine.

Each value has been checked for its kind before. `_coherent` is pure, `_possible` asks the system;
both yield (key, reason, hint).
"""

import grp
import importlib.util
import os
import pwd
import resource
from collections.abc import Callable, Collection, Iterator, Mapping

from prefork import accounts
from prefork.config import config_files, sandbox
from prefork.config.problems import Problem
from prefork.config.resource_values import LIMITS, UNLIMITED
from prefork.config.schema import KEYS, Config, Process, Tls, Workers
from prefork.config.values import Invalid, toml

Finding = tuple[str, str, str]

MISSING = "missing"

_SIZES = {f"workers.{key}" for key in ("count", "min", "max", "spare", "max_requests")}
"""The keys that `_pool_size` compares with each other."""


def every(
    config: Config,
    given: Mapping[str, str],
    where: str,
    wrong: Collection[str],
    *,
    machine: bool = True,
) -> list[Problem]:
    """All problems of the configuration.

    given: the origin of each key that was given.
    where: the origin for the other keys.
    wrong: the keys that have a problem already.  They are not checked again.  No key is reported as
        missing if one of them, or an unknown key, may have been meant as that key.
    machine: whether to check what only the machine that runs the server can tell, such as paths.
    """
    unclear = not KEYS.keys() - {"server.app", "static.root"} >= set(wrong)
    findings: list[Finding] = []
    if "server.protocol" not in wrong:
        findings += _coherent(config)
    if _SIZES.isdisjoint(wrong):
        findings += _pool_size(config.workers)
    if machine:
        findings += _possible(config)
    return [
        Problem(given.get(key, where), key, reason, hint)
        for key, reason, hint in findings
        if key not in wrong and not (unclear and reason == MISSING)
    ]


def _coherent(config: Config) -> Iterator[Finding]:
    yield from _application(config)
    yield from _tls(config)
    if config.http.proxy_protocol and not config.http.trusted_proxies:
        reason = "needs http.trusted_proxies: the PROXY header is accepted only from these"
        yield "http.proxy_protocol", reason, "add the addresses of your proxies"
    yield from _log_destinations(config)
    yield from _sandbox(config.process)
    if "before_fork" in config.workers.hooks and not config.workers.preload:
        # The master would have to call it, and the master never runs code of the application.
        reason = "the hook before_fork needs the process that preloads"
        yield "workers.preload", reason, "set workers.preload = true, or use the hook after_fork"


def _application(config: Config) -> Iterator[Finding]:
    app, protocol, root = config.server.app, config.server.protocol, config.static.root
    if protocol == "static":
        if root is None:
            yield "static.root", MISSING, 'set it to the directory to serve, for protocol "static"'
        if app is not None:
            yield "server.app", 'not used with protocol "static"', "remove app or protocol"
        return
    if app is None:
        yield (
            "server.app",
            MISSING,
            'set it to "module:callable", or set static.root to a directory',
        )
    elif protocol == "tcp" and app.endswith("()"):
        yield "server.app", f'expected "module:function" with protocol "tcp", got {toml(app)}', ""
    if root is not None:
        hint = "" if protocol == "tcp" else "to serve it beside the application, use static.mounts"
        yield "static.root", "not used with server.app", hint
    yield from protocol_keys(config)
    if protocol == "tcp" and config.static.mounts:
        yield "static.mounts", 'not used with protocol "tcp"', ""


def protocol_keys(config: Config) -> Iterator[Finding]:
    """Keys that the application's protocol does not use.

    With "auto" that is not known before the application is loaded.
    """
    protocol = config.server.protocol
    if protocol == "auto":
        return
    if protocol == "asgi":
        if config.workers.threads > 1:
            reason = 'not used with protocol "asgi": one event loop serves all calls of a worker'
            yield "workers.threads", reason, "set workers.count"
        if config.http.stream_body:
            reason = 'not used with protocol "asgi": it always reads a body as it is asked for'
            yield "http.stream_body", reason, "remove it"
    else:
        for section, key in (("server", "lifespan"), ("workers", "loop")):
            value = getattr(getattr(config, section), key)
            if value != "auto":
                yield f"{section}.{key}", f'not used with protocol "{protocol}"', "remove it"
        if config.workers.max_concurrency:
            hint = "set workers.threads"
            yield "workers.max_concurrency", f'not used with protocol "{protocol}"', hint


def _tls(config: Config) -> Iterator[Finding]:
    tls = config.tls
    if config.server.protocol == "tcp" and tls.certificate is not None:
        yield "tls.certificate", 'not used with protocol "tcp"', ""
    if tls.certificate is None:
        for key in ("key", "sni", "bind", "client_ca"):
            if getattr(tls, key):
                yield f"tls.{key}", "has no effect without tls.certificate", ""
    for address in tls.bind:
        if address not in config.server.bind:
            reason = f"{toml(address)} is not in server.bind"
            yield "tls.bind", reason, "list only addresses of server.bind"
    if tls.client_auth != "none" and tls.client_ca is None:
        yield (
            "tls.client_ca",
            MISSING,
            "set it to the file of the authorities that issue client certificates",
        )
    elif tls.client_auth == "none" and tls.client_ca is not None:
        reason = "has no effect without tls.client_auth"
        yield "tls.client_ca", reason, 'set tls.client_auth to "required" or "optional"'


def _log_destinations(config: Config) -> Iterator[Finding]:
    if config.process.daemon:
        for key, target in (("log.error", config.log.error), ("log.access", config.log.access)):
            if target in ("stderr", "stdout"):
                yield key, f"a daemon has no {target}", 'set it to a file, or to "syslog"'


def _sandbox(process: Process) -> Iterator[Finding]:
    for key in ("landlock", "seccomp"):
        if getattr(process, key) != "off" and not process.no_new_privs:
            yield f"process.{key}", "needs process.no_new_privs", "remove no_new_privs = false"
    if process.writable and process.landlock == "off":
        yield (
            "process.writable",
            "has no effect without process.landlock",
            'set process.landlock = "require", or "best-effort"',
        )
    if process.seccomp_allow and process.seccomp == "off":
        yield (
            "process.seccomp_allow",
            "has no effect without process.seccomp",
            'set process.seccomp = "require", or "best-effort"',
        )


def _pool_size(workers: Workers) -> Iterator[Finding]:
    """Of two keys that contradict each other, the more likely mistake is reported."""
    if workers.spare:
        if workers.min > workers.max:
            yield "workers.min", f"{workers.min} is more than workers.max ({workers.max})", ""
        if workers.spare > workers.max:
            yield "workers.spare", f"{workers.spare} is more than workers.max ({workers.max})", ""
    else:
        hint = "set workers.spare, or only workers.count for a pool of fixed size"
        for key in ("min", "max"):
            if getattr(workers, key) != KEYS[f"workers.{key}"].default:
                yield f"workers.{key}", "has no effect without workers.spare", hint
    if workers.max_requests_jitter and not workers.max_requests:
        yield "workers.max_requests_jitter", "has no effect without workers.max_requests", ""


def _possible(config: Config) -> Iterator[Finding]:
    server, static, log = config.server, config.static, config.log
    yield from _directory("server.chdir", server.chdir)
    for path in server.pythonpath:
        if not os.path.exists(path):
            yield "server.pythonpath", f"{toml(path)}: no such file or directory", ""
    if server.unix_owner is not None:
        yield from _owner(server.unix_owner)
    if static.root is not None:
        yield from _directory("static.root", static.root)
    for prefix, path in static.mounts.items():
        yield from _directory("static.mounts", path, f"{toml(prefix)}: ")
    for key, destination in (("log.error", log.error), ("log.access", log.access)):
        if destination is not None and os.path.isabs(destination):
            yield from _directory(key, os.path.dirname(destination))
    if "zstd" in config.http.compress and importlib.util.find_spec("zstandard") is None:
        yield "http.compress", '"zstd" needs the package zstandard', "pip install 'prefork[zstd]'"
    if config.workers.loop == "uvloop" and importlib.util.find_spec("uvloop") is None:
        yield "workers.loop", '"uvloop" needs the package uvloop', "pip install 'prefork[uvloop]'"
    yield from _metrics(config)
    if config.tls.certificate is not None:
        yield from _tls_files(config.tls)
    if log.config is not None:
        try:
            config_files.read_table(log.config)
        except Invalid as problem:
            yield from (("log.config", f"{log.config}: {reason}", "") for reason in problem.reasons)
    yield from _process(config.process)


def _process(process: Process) -> Iterator[Finding]:
    yield from _account(process)
    for path in process.writable:
        if not os.path.exists(path):
            yield "process.writable", f"{toml(path)}: no such file or directory", "make it first"
    for key, reason in sandbox.missing(process).items():
        if getattr(process, key.removeprefix("process.")) == "require":
            yield key, reason, 'set it to "best-effort" to serve without it'
    if process.pidfile is not None:
        yield from _directory("process.pidfile", os.path.dirname(process.pidfile))
    usable = os.sched_getaffinity(0)
    unusable = sorted({cpu for cpus in process.cpu_affinity for cpu in cpus} - usable)
    if unusable:
        may = ", ".join(map(str, sorted(usable)))
        what = f"this process may not use CPU {', '.join(map(str, unusable))}"
        yield "process.cpu_affinity", what, f"it may use {may}"
    if os.geteuid() != 0:
        for name, value in process.limits.items():
            hard = resource.getrlimit(LIMITS[name])[1]
            if hard != UNLIMITED and (value == UNLIMITED or value > hard):
                yield (
                    "process.limits",
                    f"{name}: only root can exceed the hard limit ({hard})",
                    "",
                )


def _account(process: Process) -> Iterator[Finding]:
    try:
        account = accounts.find(process.user, process.group)
    except accounts.AccountError as problem:
        yield f"process.{problem.key}", str(problem), ""
        return
    if account is not None and os.geteuid() != 0 and not account.is_current:
        key = "process.group" if process.user is None else "process.user"
        yield (
            key,
            "only root can change to another account",
            "start the server as root, or remove it",
        )


def _metrics(config: Config) -> Iterator[Finding]:
    bind = config.metrics.bind
    if bind is None:
        return
    if bind in config.server.bind:
        yield (
            "metrics.bind",
            f"{bind} is also in server.bind",
            "choose another address for the metrics",
        )
    elif bind == "systemd":
        yield "metrics.bind", "expected one address", "give the name of a socket: systemd:NAME"


def _tls_files(settings: Tls) -> Iterator[Finding]:
    # Imported here: OpenSSL takes megabytes of each process, and few servers need it.
    from prefork import certificates

    try:
        certificates.server_context(settings)
    except certificates.TlsError as problem:
        yield problem.key, str(problem), ""


def _directory(key: str, path: str, prefix: str = "") -> Iterator[Finding]:
    if not os.path.isdir(path):
        what = "is not a directory" if os.path.exists(path) else "no such directory"
        yield key, f"{prefix}{toml(path)}: {what}", ""


def _owner(owner: str) -> Iterator[Finding]:
    user, _, group = owner.partition(":")
    lookups: tuple[tuple[str, str, Callable[[str], object]], ...] = (
        ("user", user, pwd.getpwnam),
        ("group", group, grp.getgrnam),
    )
    for what, name, lookup in lookups:
        if name and not name.isdigit():
            try:
                lookup(name)
            except KeyError:
                yield "server.unix_owner", f"no such {what}: {toml(name)}", ""
