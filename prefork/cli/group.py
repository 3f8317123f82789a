"""The group of all commands, for click; a command is imported when it is used."""

import importlib
from typing import Any

import click

_COMMANDS = (
    *("serve", "check", "reload", "upgrade", "stop", "reopen", "scale", "status", "top"),
    *("get", "talk", "wire", "init", "explain", "migrate", "completion"),
)
"""`prefork NAME` is `command` in `prefork/cli/NAME.py`, in the order of the list of commands."""


def _meant(name: str) -> str:
    """What may have been meant by a word that is no command."""
    from prefork.config.values import nearest

    if near := nearest(name, _COMMANDS):
        return f"did you mean {near[0]}?"
    return f"to serve it: `prefork serve {name}`" if set(name) & set(".:/") else ""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        try:
            return super().parse_args(ctx, args)
        except click.NoSuchOption as error:  # as in a start line of gunicorn
            name = error.option_name
            raise click.UsageError(
                f"No such option: {name}. Options follow a command, as in `prefork serve {name}`.",
                ctx,
            ) from None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0]
        if name not in _COMMANDS and (hint := _meant(name)):
            raise click.UsageError(f"No such command {name!r}; {hint}", ctx)
        return super().resolve_command(ctx, args)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in _COMMANDS:
            return None
        # Imported only now: `prefork get` does not load a server, nor `serve` a client.
        found: Any = importlib.import_module(f"prefork.cli.{name}").command
        assert isinstance(found, click.Command)
        return found


def _show_version(context: click.Context, _: click.Parameter, wanted: bool) -> None:
    if wanted:
        from prefork.cli.version import lines

        click.echo("\n".join(lines()))
        context.exit()


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_show_version,
    help="Show the versions of prefork, Python, the kernel and the libraries.",
)
def group() -> None:
    """A pre-fork server with a supervisor: WSGI and ASGI applications, static files, TCP."""
