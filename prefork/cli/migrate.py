"""`prefork migrate`: translates the configuration of another server."""

import os
from collections.abc import Callable, Iterable

import click

from prefork.cli.file_completion import files
from prefork.migrate.asgi import migrate as migrate_start_line
from prefork.migrate.asgi_command import gather as gather_asgi
from prefork.migrate.document import Document, check
from prefork.migrate.gunicorn import migrate as migrate_gunicorn
from prefork.migrate.gunicorn_command import gather, gather_file
from prefork.migrate.migration_report import itemized, printable
from prefork.migrate.python_file import SourceError
from prefork.migrate.start_line import shown_words
from prefork.migrate.uwsgi import migrate as migrate_uwsgi
from prefork.migrate.uwsgi_command import gather as gather_uwsgi


def _command_line(metavar: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds the parameter `arguments`: words that are another server's, also if they begin with a
    hyphen."""
    return click.argument(
        "arguments",
        metavar=metavar,
        nargs=-1,
        required=True,
        type=click.UNPROCESSED,
        shell_complete=files,
    )


_OTHERS_OPTIONS = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@click.group("migrate", short_help="Translate the configuration of another server.")
def command() -> None:
    """Translate the configuration of another server into a file for prefork.

    The TOML goes to stdout. Three lists go to stderr: what is lost, what is changed, and what is
    not needed. The exit status is 0 only if `prefork check` takes the result, except for paths and
    accounts that this machine does not have.
    """


@command.command("gunicorn", context_settings=_OTHERS_OPTIONS)
@_command_line("FILE [APP] | ARGUMENTS... | -- COMMAND...")
def gunicorn(arguments: tuple[str, ...]) -> None:
    """Print the TOML for FILE, a gunicorn.conf.py, or for a gunicorn command line.

    FILE is run, as gunicorn does, in a process of its own. Run this command where gunicorn is
    started: in its directory, with its Python and its environment.

    \b
      prefork migrate gunicorn gunicorn.conf.py shop.wsgi > site.toml
      prefork migrate gunicorn -w 4 -b :8000 -c python:conf shop.wsgi > site.toml
      prefork migrate gunicorn -- gunicorn --bind ':$PORT' shop.wsgi > site.toml
    """
    words = list(arguments)
    try:
        plain = len(words) <= 2 and not any(word.startswith("-") for word in words)
        if plain and _is_file(words[0]):
            gathered = gather_file(words[0], words[1] if words[1:] else None, os.environ)
        else:
            gathered = gather(words, os.environ)
        document = migrate_gunicorn(
            gathered.settings,
            gathered.shown,
            gathered.ran,
            environ=gathered.environ,
            origins=gathered.origins,
            before=gathered.before,
        )
        if not document.holds("server.app"):
            raise SourceError(
                f"{gathered.shown}: "
                + _no_application(f"gunicorn {shown_words(words)} shop.wsgi:application")
            )
    except SourceError as error:
        raise click.ClickException(printable(str(error), keep="\n")) from None
    _finish(document)


@command.command("uwsgi", context_settings=_OTHERS_OPTIONS)
@_command_line("FILE | ARGUMENTS... | -- COMMAND...")
def uwsgi(arguments: tuple[str, ...]) -> None:
    """Print the TOML for FILE, a uWSGI configuration, or for a uWSGI command line.

    FILE is an .ini, .yaml, .xml or .json file, or FILE:SECTION. Run this command where uWSGI is
    started: in its directory and its environment.

    \b
      prefork migrate uwsgi uwsgi.ini > site.toml
      prefork migrate uwsgi --http :8000 --wsgi-file app.py -p 4 > site.toml
      prefork migrate uwsgi -- uwsgi --ini uwsgi.ini --http ':$PORT' > site.toml
    """
    shown = shown_words(arguments)
    try:
        line = gather_uwsgi(arguments, os.environ)
        shown = line.shown
        document = migrate_uwsgi(line)
        if not document.holds("server.app"):
            raise SourceError(
                "no application is named; add module = shop.wsgi:application to the file, or"
                " --module shop.wsgi:application to the command line"
            )
    except SourceError as error:
        text = str(error) if shown in str(error) else f"{shown}: {error}"
        raise click.ClickException(printable(text, keep="\n")) from None
    _finish(document)


def _add_asgi(server: str, example: str) -> None:
    """`prefork migrate SERVER` for a server whose configuration is its command line."""

    @command.command(
        server,
        context_settings=_OTHERS_OPTIONS,
        short_help=f"Print the TOML for a command line of {server}.",
        help=f"""Print the TOML for ARGUMENTS of {server}, or for COMMAND, a start line of it.

        Run this command where {server} is started: in its directory and its environment.

        \b
          prefork migrate {server} {example} > site.toml
          prefork migrate {server} -- {server} {example} > site.toml
        """,
    )
    @_command_line("ARGUMENTS... | -- COMMAND...")
    def migrate_asgi(arguments: tuple[str, ...]) -> None:
        try:
            document = migrate_start_line(gather_asgi(server, arguments, os.environ))
            if not document.holds("server.app"):
                raise SourceError(
                    _no_application(f"{server} {shown_words(arguments)} shop.asgi:application")
                )
        except SourceError as error:
            raise click.ClickException(printable(str(error), keep="\n")) from None
        _finish(document)


_add_asgi("uvicorn", "shop.main:app --port 8000 --workers 4")
_add_asgi("hypercorn", "shop.main:app --bind :8000 --workers 4")
_add_asgi("daphne", "-b 0.0.0.0 -p 8000 shop.asgi:application")


def _no_application(better: str) -> str:
    return f"no application is named; add it, as in prefork migrate {better}"


def _is_file(word: str) -> bool:
    """Whether a word is a file, or can only be meant as one."""
    return (
        os.path.isfile(word)
        or word.endswith((".py", ".conf", ".cfg", ".ini", ".txt"))
        or "/" in word
        or word.startswith(("python:", "file:"))
    )


def _finish(document: Document) -> None:
    """Prints the document, if `prefork check` accepts it, and the report."""
    text = document.render()
    if problems := check(text, machine=False):
        raise click.ClickException(
            printable(
                "nothing is written, because prefork cannot serve the result:\n"
                + "\n".join(problems),
                keep="\n",
            )
        )
    click.echo(text, nl=False)
    _print_lines(document.report.lines())
    if problems := check(text, machine=True):
        _print_lines(["Not found on this machine (`prefork check`):"])
        _print_lines(itemized(problems))


def _print_lines(lines: Iterable[str]) -> None:
    for line in lines:
        click.echo(line, err=True)
