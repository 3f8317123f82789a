"""`prefork init`: a configuration file to begin with."""

import os

import click

from prefork.cli.file_completion import files
from prefork.config import reference


@click.command("init", short_help="Write a commented configuration file.")
@click.argument("file", default="prefork.toml", shell_complete=files)
def command(file: str) -> None:
    """Write FILE (prefork.toml), with every key, its default and its meaning in comments.

    A file that exists is not changed. "-" is the standard output.
    """
    if file == "-":
        click.echo(reference.starter("prefork.toml"), nl=False)
        return
    if not file.endswith(".toml"):
        raise click.ClickException(f"{file}: the name of a configuration file ends with .toml")
    try:
        with open(file, "x", encoding="utf-8") as opened:
            opened.write(reference.starter(os.path.basename(file)))
    except FileExistsError:
        raise click.ClickException(f"{file} exists: remove it, or name another file") from None
    except OSError as error:
        raise click.ClickException(f"{file} cannot be written: {error.strerror}") from None
    click.echo(f"{file}: set server.app or static.root in it, then run `prefork serve {file}`")
