"""What the shell completes where a file may stand."""

import click
from click.shell_completion import CompletionItem


def files(
    context: click.Context, parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Leaves it to the shell, which knows files best."""
    return [CompletionItem(incomplete, type="file")]
