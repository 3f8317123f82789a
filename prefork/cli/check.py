"""`prefork check`: the problems of a configuration, and its effective values."""

import sys

import click

from prefork.cli.file_completion import files
from prefork.config import (
    Config,
    ConfigError,
    Source,
    describe,
    interpreter,
    load,
    parse_set,
    sandbox,
)


@click.command("check")
@click.argument("config", metavar="CONFIG", shell_complete=files)
@click.option("--show", is_flag=True, help="Print every effective value and its origin.")
@click.option("--import", "imported", is_flag=True, help="Import the application, too.")
@click.option("--tcp", is_flag=True, help="CONFIG is a TCP handler, module:function.")
@click.option(
    "--set",
    "settings",
    multiple=True,
    metavar="SECTION.KEY=VALUE",
    help="Set a key, as with `prefork serve --set`.",
)
def command(config: str, show: bool, imported: bool, tcp: bool, settings: tuple[str, ...]) -> None:
    """Check CONFIG: a .toml file, a directory, or module:callable.

    Prints "ok", or prints every problem, one a line, and exits with 1. The application is imported
    with --import only, in its directory and environment, but as the user who runs the command, and
    no warm-up request is made.
    """
    try:
        overrides = tuple(map(parse_set, settings))
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        loaded = load(Source(config, overrides, tcp))
    except ConfigError as error:
        click.echo(str(error))
        sys.exit(1)
    missing = sandbox.missing(loaded.config.process)
    incomplete = [f"{key}: {reason}" for key, reason in missing.items()]
    for warning in (*interpreter.warnings(), *incomplete):
        click.echo(f"warning: {warning}", err=True)
    for line in describe(loaded) if show else ():
        click.echo(line)
    if imported and (problem := _import(loaded.config)):
        click.echo(problem)
        sys.exit(1)
    click.echo("ok")


def _import(config: Config) -> str:
    """Loads the application and its hooks as a worker does; returns the problem, or ""."""
    from prefork.worker.boot.application_setup import set_environment
    from prefork.worker.boot.boot_failure import describe
    from prefork.worker.boot.hooks import Hooks
    from prefork.worker.boot.service_factory import load_service

    try:
        set_environment(config, {})
        Hooks(config.workers.hooks)
        load_service(config)
    except KeyboardInterrupt:
        raise
    except BaseException as problem:  # an application may call sys.exit when it is imported
        return describe(problem)
    return ""
