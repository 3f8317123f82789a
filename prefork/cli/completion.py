"""`prefork completion`: what a shell has to know to complete our command line."""

import click
from click.shell_completion import get_completion_class

_SHELLS = ("bash", "zsh", "fish")


@click.command("completion", short_help="Print the script that makes a shell complete commands.")
@click.argument("shell", type=click.Choice(_SHELLS))
@click.pass_context
def command(context: click.Context, shell: str) -> None:
    """Print what makes SHELL complete prefork's commands and options.

    \b
      bash: eval "$(prefork completion bash)"          in ~/.bashrc
      zsh:  eval "$(prefork completion zsh)"           in ~/.zshrc
      fish: prefork completion fish > ~/.config/fish/completions/prefork.fish
    """
    found = get_completion_class(shell)
    assert found is not None
    root = context.find_root()
    click.echo(found(root.command, {}, "prefork", "_PREFORK_COMPLETE").source())
