"""`prefork serve`, without the library that reads command lines: see `prefork.cli.main`."""

import contextlib
import os
import signal
import sys
from collections.abc import Mapping

from msgspec import Struct

from prefork import StartError, __version__
from prefork.config import Config, Override, Source, parse_set
from prefork.listeners import Listener
from prefork.logs import printable
from prefork.master.processes.generation import Generation
from prefork.master.signals import HANDLED_SIGNALS
from prefork.master.start import serve

_FLAGS = {"--tcp": "tcp", "--reload": "watch"}
_ONE = {
    "--workers": "workers",
    "-w": "workers",
    "--threads": "threads",
    "--timeout": "timeout",
    "-t": "timeout",
    "--host": "host",
    "--port": "port",
}
_MANY = {"--bind": "bind", "-b": "bind", "--set": "settings"}

VARIABLE = "PREFORK_CMD_ARGS"
"""The environment variable with arguments; the command line takes precedence over it."""


class Arguments(Struct, frozen=True):
    """The arguments; they are explained in `prefork.cli.serve`."""

    target: str | None = None
    tcp: bool = False
    bind: tuple[str, ...] = ()
    workers: str | None = None
    threads: str | None = None
    watch: bool = False
    settings: tuple[str, ...] = ()
    timeout: str | None = None
    host: str | None = None
    port: str | None = None

    def over(self, other: "Arguments") -> "Arguments":
        """These arguments, completed by those of `other` that are not given here."""
        address = bool(self.bind or self.host or self.port)
        return Arguments(
            self.target if self.target is not None else other.target,
            self.tcp or other.tcp,
            self.bind if address else other.bind,
            self.workers if self.workers is not None else other.workers,
            self.threads if self.threads is not None else other.threads,
            self.watch or other.watch,
            (*other.settings, *self.settings),
            self.timeout if self.timeout is not None else other.timeout,
            self.host if address else other.host,
            self.port if address else other.port,
        )

    def source(self) -> Source:
        """Raises ValueError for a malformed --set, and for --bind with --host or --port."""
        overrides = []
        if self.host is not None or self.port is not None:
            if self.bind:
                raise ValueError("--bind cannot be combined with --host or --port: use one of them")
            host = self.host if self.host is not None else "127.0.0.1"
            host = f"[{host}]" if ":" in host and not host.startswith("[") else host
            origin = "--host" if self.host is not None else "--port"
            bind = f"{host}:{self.port if self.port is not None else 8000}"
            overrides.append(Override("server", "bind", [bind], origin))
        if self.bind:
            overrides.append(Override("server", "bind", list(self.bind), "--bind"))
        for key, value, option in (
            ("count", self.workers, "--workers"),
            ("threads", self.threads, "--threads"),
            ("request_timeout", self.timeout, "--timeout"),
        ):
            if value is not None:
                number = int(value) if value.isdecimal() else value
                overrides.append(Override("workers", key, number, option))
        overrides += [parse_set(setting) for setting in self.settings]
        return Source(self.target, tuple(overrides), self.tcp)


def read(args: list[str]) -> Arguments | None:
    """Reads plain arguments; None for others: a mistake, `--help`, a value that begins with "-"."""
    found: dict[str, str | bool] = {}
    many: dict[str, list[str]] = {name: [] for name in _MANY.values()}
    rest = iter(args)
    for word in rest:
        option, equals, value = word.partition("=")
        if not word.startswith("-"):
            if "target" in found:
                return None
            found["target"] = word
        elif option in _FLAGS and not equals:
            found[_FLAGS[option]] = True
        elif option in _ONE or option in _MANY:
            if not equals:
                value = next(rest, "-")
            # click reads "-w=2" as the value "=2"
            if value.startswith("-") or (equals and not option.startswith("--")):
                return None
            if option in _ONE:
                found[_ONE[option]] = value
            else:
                many[_MANY[option]].append(value)
        else:
            return None
    return Arguments(**found, **{name: tuple(values) for name, values in many.items()})  # type: ignore[arg-type]


def words_of(environ: Mapping[str, str]) -> list[str]:
    """The arguments in PREFORK_CMD_ARGS, split as a shell does it. Raises ValueError."""
    text = environ.get(VARIABLE, "")
    if not text:
        return []
    import shlex

    try:
        return shlex.split(text)
    except ValueError as reason:
        raise ValueError(f"{VARIABLE}: {reason}") from None


def run(source: Source, *, watch: bool) -> int:
    """Serves until the server is stopped; returns the exit status of the command."""
    try:
        return serve(source, watch=watch, announce=_announce, detached=_report_started)
    except StartError as error:
        for line in str(error).splitlines():
            print(f"prefork: {printable(line)}", file=sys.stderr)
        return error.status
    finally:
        # An interpreter that ends gives each handled signal its default action before it clears
        # the modules, but leaves ignored ones: a second TERM must not become the exit status.
        for number in HANDLED_SIGNALS:
            signal.signal(number, signal.SIG_IGN)


def _report_started(pid: int) -> None:
    with contextlib.suppress(OSError):  # without a reader the daemon runs all the same
        os.write(1, f"started: pid {pid}\n".encode())


def _announce(generation: Generation) -> None:
    """Prints, on a terminal, the application, its URLs, the workers and how to stop."""
    if not sys.stderr.isatty():
        return
    config = generation.config
    what = config.static.root if config.server.protocol == "static" else config.server.app
    workers = config.workers
    count = f"{workers.min} to {workers.max}" if workers.spare else str(workers.count)
    lines = [
        f"prefork {__version__} serves {what}",
        *(f"  at    {listen_url(config, listener)}" for listener in generation.listeners),
        f"  with  {count} worker{'' if count == '1' else 's'}"
        + (f" of {workers.threads} threads" if workers.threads > 1 else "")
        + (f" on {_loop(workers.loop)}" if config.server.protocol == "asgi" else ""),
        "  stop  Ctrl-C: at once; prefork stop, or TERM: gracefully",
    ]
    print("\n".join(lines), file=sys.stderr)


def _loop(name: str) -> str:
    # With this protocol asyncio is imported before the first fork in any case.
    from prefork.worker.schedule.event_loop import loop_name

    return loop_name(name)


def listen_url(config: Config, listener: Listener) -> str:
    """The URL of a listener."""
    if config.server.protocol == "tcp" or not listener.is_tcp:
        return listener.name
    secured = config.tls.is_spoken_at(str(listener.address))
    return f"{'https' if secured else 'http'}://{listener.name}"
