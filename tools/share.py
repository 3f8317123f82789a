"""The files of share/, which an installation puts below its prefix: man pages and completion."""

from pathlib import Path

from click.shell_completion import BashComplete, FishComplete, ShellComplete, ZshComplete

from prefork.cli.group import group
from tools import man_pages

ROOT = Path(__file__).parents[1]


def files() -> dict[str, str]:
    """Each file's text, by its path below the repository."""
    return {
        "share/man/man1/prefork.1": man_pages.commands(),
        "share/man/man5/prefork.toml.5": man_pages.configuration(),
        "share/bash-completion/completions/prefork": _completion(BashComplete),
        "share/zsh/site-functions/_prefork": _completion(ZshComplete),
        "share/fish/vendor_completions.d/prefork.fish": _completion(FishComplete),
    }


def _completion(shell: type[ShellComplete]) -> str:
    """The script for this shell; the same as `prefork completion` prints."""
    script = shell(group, {}, "prefork", "_PREFORK_COMPLETE").source()
    return "\n".join(line.rstrip() for line in script.strip().splitlines()) + "\n"


def write() -> None:
    """Writes all files anew."""
    for name, text in files().items():
        path = ROOT / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    write()
