"""`prefork explain`: what a key of the configuration means."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import click

from prefork.config import KEYS, reference

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem


def _names(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> "list[CompletionItem]":
    from click.shell_completion import CompletionItem

    return [CompletionItem(name) for name in KEYS if name.startswith(incomplete)]


@click.command("explain", short_help="Print what a key of the configuration means.")
@click.argument("key", required=False, shell_complete=_names)
def command(key: str | None) -> None:
    """Print what KEY means, which values it takes, and its default.

    KEY is a key such as workers.threads, a section such as workers, or the name of a key in any
    section, such as bind. Without it, all keys are listed.
    """
    if key is None:
        for name, entry in KEYS.items():
            click.echo(f"{name}: {entry.kind.expected}")
        return
    try:
        found = reference.find(key)
    except KeyError as error:
        raise click.ClickException(error.args[0]) from None
    click.echo("\n\n".join("\n".join(_explained(each)) for each in found))


def _explained(explanation: reference.Explanation) -> Iterator[str]:
    for line in explanation.lines:
        yield f"{line.key.name}: {line.key.kind.expected}"
        yield f"{'default' if line.is_default else 'example'}: {line.line}"
    yield ""
    yield from explanation.comment
