"""All commands, for click: each is imported when it is asked for."""

import importlib
from typing import Any

import click

# Looked up when asked for: `prefork get` need not load a server, nor `serve` a client.
_COMMANDS = {
    "serve": "prefork.cli.serve:command",
    "check": "prefork.cli.check:command",
    "reload": "prefork.cli.control:reload",
    "upgrade": "prefork.cli.control:upgrade",
    "stop": "prefork.cli.control:stop",
    "reopen": "prefork.cli.control:reopen",
    "scale": "prefork.cli.control:scale",
    "status": "prefork.cli.control:status",
    "top": "prefork.cli.top:command",
    "get": "prefork.cli.get:command",
    "talk": "prefork.cli.talk:command",
    "wire": "prefork.cli.wire:command",
    "migrate": "prefork.cli.migrate:command",
    "completion": "prefork.cli.completion:command",
}


class _Commands(click.Group):
    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        place = _COMMANDS.get(name)
        if place is None:
            return None
        module, _, attribute = place.partition(":")
        found: Any = getattr(importlib.import_module(module), attribute)
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
    """A pre-fork server with a supervisor: WSGI applications, static sites, TCP handlers."""
