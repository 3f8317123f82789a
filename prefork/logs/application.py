"""The application's own `logging`, configured by file where the user names one.

Without a file nothing is touched: an application logs as it would in a plain script, so that its
warnings and errors reach stderr (`logging.lastResort`) and what it prints goes where the server's
stdout and stderr were pointed at its start, also when `log.error` is a file.
"""

import json
from pathlib import Path
from typing import Any

from prefork.logs.sink import LogError


def configure_application(path: str | None) -> None:
    """Applies a dictConfig (PEP 391) from a .json or .toml file, where one is given.

    Call it before the application is imported: dictConfig disables the loggers that exist.
    Raises LogError: one line, which file and what is wrong with it.
    """
    if path is None:
        return
    import logging.config  # with its socket server: 0.7 MB in every process that has no use for it

    try:
        logging.config.dictConfig(_read(Path(path)))
    except Exception as problem:  # classes that the file names may raise anything
        reason = str(problem) or type(problem).__name__
        if isinstance(problem, OSError) and problem.strerror and problem.filename == path:
            reason = problem.strerror
        if problem.__cause__ is not None:  # dictConfig: "Unable to configure handler 'file'"
            reason += f": {problem.__cause__}"
        raise LogError(f"log.config: {path}: {' '.join(reason.split())}") from None


def _read(path: Path) -> dict[str, Any]:
    """Raises OSError, ValueError."""
    data = path.read_bytes()
    if path.suffix == ".toml":
        import tomllib

        return tomllib.loads(data.decode())
    if path.suffix != ".json":
        raise ValueError("its name must end in .json or .toml")
    config = json.loads(data)
    if not isinstance(config, dict):
        raise ValueError(f"must be an object, not {type(config).__name__}")
    return config
