"""The application's own `logging`, configured by the file that `log.config` names.

Without such a file nothing is configured.  The application then logs as in a plain script: its
warnings and errors go to stderr (`logging.lastResort`), and its output goes to the stdout and
stderr that the server was started with, also if `log.error` is a file.
"""

import json
import os
from pathlib import Path
from typing import Any

from prefork import regular_file
from prefork.logs.sink import LogError


def configure_application(path: str | None) -> None:
    """Applies a dictConfig (PEP 391) from a .json or .toml file, if one is given.

    To be called before the application is imported: dictConfig disables the loggers that exist.
    Raises LogError: one line with the file and the reason.
    """
    if path is None:
        return
    import logging.config  # it loads a socket server: 0.7 MB in each process

    try:
        logging.config.dictConfig(_read(Path(path)))
    except Exception as problem:  # a class that the file names may raise anything
        reason = str(problem) or type(problem).__name__
        if isinstance(problem, OSError) and problem.strerror and problem.filename == path:
            reason = problem.strerror
        if problem.__cause__ is not None:  # dictConfig: "Unable to configure handler 'file'"
            reason += f": {problem.__cause__}"
        raise LogError(f"log.config: {path}: {' '.join(reason.split())}") from None


def _read(path: Path) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    data = regular_file.read(os.fspath(path))
    if path.suffix == ".toml":
        import tomllib

        return tomllib.loads(data.decode())
    if path.suffix != ".json":
        raise ValueError("its name must end in .json or .toml")
    config = json.loads(data)
    if not isinstance(config, dict):
        raise ValueError(f"must be an object, not {type(config).__name__}")
    return config
