"""The command line: a module for each group of commands; arguments in, exit status out."""

import importlib
from typing import Any

import click

from prefork import __version__

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
    "get": "prefork.cli.get:command",
    "talk": "prefork.cli.talk:command",
    "wire": "prefork.cli.wire:command",
    "migrate": "prefork.cli.migrate:command",
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


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="prefork")
def main() -> None:
    """A pre-fork server with a supervisor: WSGI applications, static sites, TCP handlers."""
