"""`prefork serve`: run a server in the foreground."""

import sys

import click

from prefork.cli.file_completion import files
from prefork.cli.serving import Arguments, run


@click.command("serve", short_help="Serve an application, a directory or a TCP handler.")
@click.argument("target", required=False, shell_complete=files)
@click.option("--tcp", is_flag=True, help="TARGET is module:function, called with (sock, address).")
@click.option(
    "--bind", multiple=True, metavar="ADDR", help="host:port, :port, unix:/path, fd:N, systemd."
)
@click.option("--workers", metavar="N", help="Number of worker processes, or auto.")
@click.option("--threads", metavar="N", help="Requests that a worker answers at the same time.")
@click.option("--reload", "watch", is_flag=True, help="Reload when the application's files change.")
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Set any other key."
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

    It runs in the foreground until it is stopped: by TERM gracefully, by INT (Ctrl-C) at once. With
    [process] daemon it returns when the first workers are ready.
    """
    given = Arguments(target, tcp, bind, workers, threads, watch, settings)
    try:
        source = given.source()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(run(source, watch=watch))
