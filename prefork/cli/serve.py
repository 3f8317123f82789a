"""`prefork serve`: run a server in the foreground."""

import os
import re
import sys
from typing import Any

import click

from prefork.cli.file_completion import files
from prefork.cli.serving import VARIABLE, Arguments, run, words_of

_OTHERS = {
    "--factory": "write the factory with its parentheses: module:factory()",
    "--uds": "use --bind unix:PATH",
    "--fd": "use --bind fd:N",
    **dict.fromkeys(("--http", "--http-socket", "--socket"), "use --bind ADDRESS"),
    **dict.fromkeys(("--module", "--wsgi-file"), "the application is TARGET, as module:callable"),
    "-k": "an ASGI application is recognized; a WSGI application that waits a lot has --threads N",
    "-c": "the configuration file is TARGET; `prefork migrate gunicorn FILE` makes one",
    "-D": "use --set process.daemon=true",
}
"""Options of other servers that have another counterpart than the tables of migrate name."""


class _Command(click.Command):
    """`serve`. For an option of gunicorn, uvicorn or uWSGI the error names its counterpart."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:
            hint = _hint(error.option_name)
            if hint is None:
                raise
            raise click.UsageError(
                f"No such option: {error.option_name}. Here: {hint}.", ctx
            ) from None


def _hint(option: str) -> str | None:
    """The counterpart of an option of another server; None if the option is unknown."""
    from prefork.config import KEYS
    from prefork.migrate.asgi_options import UVICORN, strings
    from prefork.migrate.gunicorn_settings import SETTINGS, options
    from prefork.migrate.uwsgi_options import NAMES, OPTIONS

    def counterpart(here: str) -> str:
        key = re.split("[;,:]", here)[0]
        return f"--set {key}=VALUE" if key in KEYS else here

    for name, setting in SETTINGS.items():
        if option in options(name):
            if option in _OTHERS or name == "worker_class":
                return _OTHERS.get(option, _OTHERS["-k"])
            return counterpart(setting.here)
    for name, other in UVICORN.items():
        if option in strings(name, other) and option not in _OTHERS:
            return counterpart(other.here)
    if option in _OTHERS:
        return _OTHERS[option]
    main = NAMES.get(option.removeprefix("--")) if option.startswith("--") else None
    return None if main is None else counterpart(OPTIONS[main].here.format(value="DIRECTORY"))


@click.command(
    "serve",
    cls=_Command,
    short_help="Serve an application, a directory or a TCP handler.",
    # click caches the help option of a command at its first use, which may be without the group.
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.argument("target", required=False, shell_complete=files)
@click.option("--tcp", is_flag=True, help="TARGET is module:function, called with (sock, address).")
@click.option(
    "--bind",
    "-b",
    multiple=True,
    metavar="ADDR",
    help="host:port, :port, unix:/path, fd:N, systemd.",
)
@click.option("--host", metavar="HOST", help="The host of --port, in place of --bind.")
@click.option("--port", metavar="PORT", help="The port of --host: 8000 if it is not given.")
@click.option("--workers", "-w", metavar="N", help="Number of worker processes, or auto.")
@click.option(
    "--threads", metavar="N", help="Requests that a WSGI worker answers at the same time."
)
@click.option("--timeout", "-t", metavar="SECONDS", help="The time limit of a request.")
@click.option("--reload", "watch", is_flag=True, help="Reload when the application's files change.")
@click.option(
    "--set", "settings", multiple=True, metavar="SECTION.KEY=VALUE", help="Set any other key."
)
@click.pass_context
def command(context: click.Context, /, **given: Any) -> None:
    """Serve TARGET: a .toml file, a directory, module:callable, module:factory() or module.

    If only a module is given, the application in it is `application`, or else `app`. Arguments are
    also read from the environment variable PREFORK_CMD_ARGS; the command line takes precedence.

    It runs in the foreground until it is stopped: by TERM gracefully, by INT (Ctrl-C) at once. With
    [process] daemon it returns when the first workers are ready.
    """
    arguments = Arguments(**given)
    try:
        from_environment = _from_environment(context)
        arguments = arguments.over(from_environment) if from_environment else arguments
        source = arguments.source()
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    sys.exit(run(source, watch=arguments.watch))


def _from_environment(context: click.Context) -> Arguments | None:
    """The arguments in PREFORK_CMD_ARGS. Raises ValueError."""
    words = words_of(os.environ)
    if not words:
        return None
    try:
        return Arguments(**command.make_context("serve", words, parent=context.parent).params)
    except click.UsageError as error:
        raise ValueError(f"{VARIABLE}: {error.message}") from None
