"""`prefork completion`: the script with which a shell completes commands and options."""

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Print a script for completion in a shell.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print the script with which SHELL completes the commands and options of prefork.

    \b
      bash: eval "$(prefork completion bash)"          in ~/.bashrc
      zsh:  eval "$(prefork completion zsh)"           in ~/.zshrc
      fish: prefork completion fish > ~/.config/fish/completions/prefork.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = context.find_root()
    click.echo(found(root.command, {}, "prefork", "_PREFORK_COMPLETE").source())
