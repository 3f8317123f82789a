"""`prefork migrate`: the configuration of another server as one for prefork."""

import click

from prefork.cli.file_completion import files
from prefork.migrate import gunicorn as settings
from prefork.migrate.gunicorn_source import SourceError, read_command, read_file


@click.group("migrate", short_help="Translate the configuration of another server.")
def command() -> None:
    """Translate the configuration of another server into a file for prefork."""


@command.command(
    "gunicorn",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@click.argument(
    "arguments",
    metavar="FILE | ARGUMENTS...",
    nargs=-1,
    required=True,
    type=click.UNPROCESSED,
    shell_complete=files,
)
def gunicorn(arguments: tuple[str, ...]) -> None:
    """Print the TOML for FILE, a gunicorn.conf.py, or for the ARGUMENTS of a gunicorn command.

    The file is run, as gunicorn does. What has no equivalent stands at the end, with the reason.

    \b
      prefork migrate gunicorn gunicorn.conf.py > site.toml
      prefork migrate gunicorn -w 4 -b :8000 -c conf.py shop.wsgi > site.toml
    """
    words = list(arguments)
    try:
        if len(words) == 1 and words[0].endswith(".py"):
            document = settings.migrate(read_file(words[0]), words[0])
        else:
            document = settings.migrate(read_command(words), settings.shown(words))
    except SourceError as error:
        raise click.ClickException(str(error)) from None
    click.echo(document.render(), nl=False)
    if document.notes:
        count = len(document.notes)
        what = "1 setting was" if count == 1 else f"{count} settings were"
        click.echo(f"{what} not taken over; the end of the file says why", err=True)
