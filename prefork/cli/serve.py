"""`prefork serve`: run a server in the foreground."""

import sys

import click

from prefork import StartError, __version__
from prefork.cli._files import files
from prefork.config import Config, Override, Source, parse_set
from prefork.listeners import Listener
from prefork.master.generation import Generation
from prefork.master.start import serve


@click.command("serve", short_help="Serve an application, a directory or a TCP handler.")
@click.argument("target", required=False, shell_complete=files)
@click.option("--tcp", is_flag=True, help="TARGET is module:function, called with (sock, address).")
@click.option(
    "--bind", multiple=True, metavar="ADDR", help="host:port, :port, unix:/path, fd:N, systemd."
)
@click.option("--workers", metavar="N", help="Worker processes, or auto.")
@click.option("--threads", metavar="N", help="Application calls at once in each worker.")
@click.option("--reload", "watch", is_flag=True, help="Reload when the application's files change.")
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Any other key."
)
def command(
    target: str | None,
    tcp: bool,
    bind: tuple[str, ...],
    workers: str | None,
    threads: str | None,
    watch: bool,
    settings: tuple[str, ...],
) -> None:
    """Serve TARGET: a .toml file, a directory, module:callable or module:factory().

    It runs in the foreground until it is stopped: by TERM after what is in flight is answered,
    by INT (Ctrl-C) at once. With [process] daemon it returns when the first workers are ready.
    """
    overrides = []
    if bind:
        overrides.append(Override("server", "bind", list(bind), "--bind"))
    for key, value in (("count", workers), ("threads", threads)):
        if value is not None:
            option = "--workers" if key == "count" else "--threads"
            number = int(value) if value.isdecimal() else value
            overrides.append(Override("workers", key, number, option))
    try:
        overrides += [parse_set(setting) for setting in settings]
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    source = Source(target, tuple(overrides), tcp)
    try:
        sys.exit(serve(source, watch=watch, announce=_announce, detached=_tell))
    except StartError as error:
        for line in str(error).splitlines():
            click.echo(f"prefork: {line}", err=True)
        sys.exit(error.status)


def _tell(pid: int) -> None:
    click.echo(f"started: pid {pid}")


def _announce(generation: Generation) -> None:
    """On a terminal: what is served, where, by how many, and how to stop it."""
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
        + (f" of {workers.threads} threads" if workers.threads > 1 else ""),
        "  stop  Ctrl-C at once; prefork stop, or TERM, when all is answered",
    ]
    click.echo("\n".join(lines), err=True)


def listen_url(config: Config, listener: Listener) -> str:
    """What a user types to get there."""
    if config.server.protocol == "tcp" or not listener.is_tcp:
        return listener.name
    secured = config.tls.is_spoken_at(str(listener.address))
    return f"{'https' if secured else 'http'}://{listener.name}"
