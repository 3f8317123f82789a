"""`prefork check`: the problems of a configuration, and its effective values."""

import sys

import click

from prefork.cli.file_completion import files
from prefork.config import ConfigError, Source, describe, load


@click.command("check")
@click.argument("config", metavar="CONFIG", shell_complete=files)
@click.option("--show", is_flag=True, help="Print every effective value and its origin.")
def command(config: str, show: bool) -> None:
    """Check CONFIG: a .toml file, a directory, or module:callable.

    Prints "ok", or prints every problem, one a line, and exits with 1. The application is not
    imported.
    """
    try:
        loaded = load(Source(config))
    except ConfigError as error:
        click.echo(str(error))
        sys.exit(1)
    for line in describe(loaded) if show else ():
        click.echo(line)
    click.echo("ok")
