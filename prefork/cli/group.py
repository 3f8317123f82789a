"""The group of all commands, for click; a command is imported when it is used."""

import importlib
from typing import Any

import click

_COMMANDS = (
    *("serve", "check", "reload", "upgrade", "stop", "reopen", "scale", "status", "top"),
    *("get", "talk", "wire", "init", "explain", "migrate", "completion"),
)
"""`prefork NAME` is `command` in `prefork/cli/NAME.py`, in the order of the list of commands."""


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

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
