"""The configuration, from a file, the command line and the environment.

`schema` has the keys. `load` makes a `Config` from a `Source` and raises all problems at once.
`report` describes a configuration as text. Other packages import from here:

    loaded = load(Source("site.toml", (Override("workers", "count", 4, "--workers"),)))
    loaded.config.workers.count     # 4
    loaded.origins["workers.count"] # "--workers"
"""

from prefork.config.load import LoadedConfig, load
from prefork.config.problems import ConfigError, Problem
from prefork.config.report import changes, describe
from prefork.config.schema import (
    KEYS,
    Config,
    Control,
    Http,
    Log,
    Process,
    Server,
    Static,
    Tls,
    Websocket,
    Workers,
)
from prefork.config.source import Override, Source, parse_set, parse_value, working_directory

__all__ = [
    "KEYS",
    "Config",
    "ConfigError",
    "Control",
    "Http",
    "LoadedConfig",
    "Log",
    "Override",
    "Problem",
    "Process",
    "Server",
    "Source",
    "Static",
    "Tls",
    "Websocket",
    "Workers",
    "changes",
    "describe",
    "load",
    "parse_set",
    "parse_value",
    "working_directory",
]
