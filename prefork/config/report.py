"""A configuration as text: every value with its origin, and the changes between two of them."""

from prefork.config.load import LoadedConfig
from prefork.config.schema import KEYS, Config, Key
from prefork.config.values import show


def describe(loaded: LoadedConfig) -> list[str]:
    """A line for each key, `workers.count = 2  # default, "auto"`, aligned.

    Here and in `changes`, only the names of environment variables are shown: the values may be
    secrets, and the lines are written to logs.
    """
    lines = [f"{key.name} = {_shown(loaded.config, key)}" for key in KEYS.values()]
    width = min(60, max(map(len, lines)))
    return [
        f"{line:{width}}  # {loaded.origins[name]}" for name, line in zip(KEYS, lines, strict=True)
    ]


def changes(old: Config, new: Config) -> list[str]:
    """The differences, such as `workers.count: 2 -> 4`, in the order of the schema."""
    lines = []
    for key in KEYS.values():
        if _value(old, key) != _value(new, key):
            before, after = _shown(old, key), _shown(new, key)
            same = "" if before != after else " (other values)"
            lines.append(f"{key.name}: {before} -> {after}{same}")
    return lines


def _value(config: Config, key: Key) -> object:
    return getattr(getattr(config, key.section), key.key)


def _shown(config: Config, key: Key) -> str:
    return show(key.kind, _value(config, key))
