"""Whether a configuration agrees with itself and with the machine that it is to run on.

Each value is of its kind by then. `_coherent` is pure, `_possible` asks the system; each yields
(key, reason, hint).
"""

import grp
import importlib.util
import os
import pwd
import resource
from collections.abc import Callable, Collection, Iterator, Mapping

from prefork import accounts
from prefork.config import config_files
from prefork.config.problems import Problem
from prefork.config.resource_values import LIMITS, UNLIMITED
from prefork.config.schema import KEYS, Config, Process, Tls, Workers
from prefork.config.values import Invalid, toml

Finding = tuple[str, str, str]

MISSING = "missing"

_SIZES = {f"workers.{key}" for key in ("count", "min", "max", "spare", "max_requests")}
"""Keys that others are compared with."""


def every(
    config: Config, given: Mapping[str, str], where: str, wrong: Collection[str]
) -> list[Problem]:
    """All that is wrong; `given` has the origin of each key that was given, `where` stands for the
    others. `wrong` has the keys that have a problem already: they are not judged again, and nothing
    is called missing where one of them, or one that the schema does not have, may be meant."""
    unclear = not KEYS.keys() - {"server.app", "static.root"} >= set(wrong)
    findings: list[Finding] = []
    if "server.protocol" not in wrong:
        findings += _coherent(config)
    if _SIZES.isdisjoint(wrong):
        findings += _sized(config.workers)
    findings += _possible(config)
    return [
        Problem(given.get(key, where), key, reason, hint)
        for key, reason, hint in findings
        if key not in wrong and not (unclear and reason == MISSING)
    ]


def _coherent(config: Config) -> Iterator[Finding]:
    yield from _answerable(config)
    yield from _secured(config)
    if config.http.proxy_protocol and not config.http.trusted_proxies:
        reason = "is taken from trusted proxies alone"
        yield "http.proxy_protocol", reason, "name them as http.trusted_proxies"
    yield from _heard(config)
    if "before_fork" in config.workers.hooks and not config.workers.preload:
        # The master would have to call it, and that never runs an application's code.
        reason = "the hook before_fork is called where the application was preloaded"
        yield "workers.preload", reason, "set it to true, or use after_fork"


def _answerable(config: Config) -> Iterator[Finding]:
    app, protocol, root = config.server.app, config.server.protocol, config.static.root
    if protocol == "static":
        if root is None:
            yield "static.root", MISSING, 'protocol "static" needs the directory to serve'
        if app is not None:
            yield "server.app", 'not used with protocol "static"', "remove one of them"
        return
    if app is None:
        yield "server.app", MISSING, 'give it as "module:callable", or a directory as static.root'
    elif protocol == "tcp" and app.endswith("()"):
        yield "server.app", f'expected "module:function" for tcp, got {toml(app)}', ""
    if root is not None:
        hint = "" if protocol == "tcp" else "to serve it beside the application, use static.mounts"
        yield "static.root", f'not used with protocol "{protocol}"', hint
    if protocol == "tcp" and config.static.mounts:
        yield "static.mounts", 'not used with protocol "tcp"', ""


def _secured(config: Config) -> Iterator[Finding]:
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
            yield "tls.bind", reason, "it names those of them that speak TLS"
    if tls.client_auth != "none" and tls.client_ca is None:
        yield "tls.client_ca", MISSING, "client certificates are judged by it"
    elif tls.client_auth == "none" and tls.client_ca is not None:
        reason = "has no effect without tls.client_auth"
        yield "tls.client_ca", reason, 'make that "required" or "optional"'


def _heard(config: Config) -> Iterator[Finding]:
    if config.process.daemon:
        for key, target in (("log.error", config.log.error), ("log.access", config.log.access)):
            if target in ("stderr", "stdout"):
                yield key, f"{toml(target)} leads nowhere in a daemon", 'name a file, or "syslog"'


def _sized(workers: Workers) -> Iterator[Finding]:
    """Of two keys that disagree, the one that was given more likely by mistake is named."""
    if workers.spare:
        if workers.min > workers.max:
            yield "workers.min", f"{workers.min} is more than workers.max, {workers.max}", ""
        if workers.spare > workers.max:
            yield "workers.spare", f"{workers.spare} is more than workers.max, {workers.max}", ""
    else:
        hint = "give it, or workers.count alone for a pool of fixed size"
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
        yield "http.compress", '"zstd" needs a package', "pip install 'prefork[zstd]'"
    yield from _metrics(config)
    if config.tls.certificate is not None:
        yield from _certified(config.tls)
    if log.config is not None:
        try:
            config_files.read_table(log.config)
        except Invalid as problem:
            yield from (("log.config", f"{log.config}: {reason}", "") for reason in problem.reasons)
    yield from _process(config.process)


def _process(process: Process) -> Iterator[Finding]:
    yield from _account(process)
    if process.pidfile is not None:
        yield from _directory("process.pidfile", os.path.dirname(process.pidfile))
    usable = os.sched_getaffinity(0)
    strange = sorted({cpu for cpus in process.cpu_affinity for cpu in cpus} - usable)
    if strange:
        may = ", ".join(map(str, sorted(usable)))
        what = f"CPU {', '.join(map(str, strange))} cannot be used here"
        yield "process.cpu_affinity", what, f"this process may use {may}"
    if os.geteuid() != 0:
        for name, value in process.limits.items():
            hard = resource.getrlimit(LIMITS[name])[1]
            if hard != UNLIMITED and (value == UNLIMITED or value > hard):
                yield (
                    "process.limits",
                    f"{name}: only root may go beyond the hard limit, {hard}",
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
        yield key, "only root can become somebody else", "start the server as root, or remove it"


def _metrics(config: Config) -> Iterator[Finding]:
    bind = config.metrics.bind
    if bind is None:
        return
    if importlib.util.find_spec("prometheus_client") is None:
        yield "metrics.bind", "needs prometheus-client", "pip install 'prefork[metrics]'"
    if bind in config.server.bind:
        yield "metrics.bind", f"{bind} is in server.bind, too", "give it an address of its own"
    elif bind == "systemd":
        yield "metrics.bind", "expected one address", "give the socket's name: systemd:NAME"


def _certified(settings: Tls) -> Iterator[Finding]:
    # Imported here: OpenSSL costs each process megabytes that few servers have a use for.
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
