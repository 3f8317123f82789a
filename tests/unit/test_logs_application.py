"""The application's own logging: by file where one is given, and apart from the server's."""

import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from prefork.config import Log
from prefork.logs import LogError, configure, configure_application, event

Said = Callable[[], str]


@pytest.fixture
def said(tmp_path: Path) -> Iterator[Said]:
    """What the server said itself."""
    path = tmp_path / "error.log"
    configure(Log(error=str(path)))
    yield path.read_text
    configure(Log())


@pytest.fixture
def _clean_logging() -> Iterator[None]:
    """Logging as in a new interpreter, and afterwards as it was."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    loggers = [
        each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger)
    ]
    disabled = {logger: logger.disabled for logger in loggers}
    root.setLevel(logging.WARNING)
    yield
    for handler in set(root.handlers) - set(handlers):
        handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    for logger, was in disabled.items():
        logger.disabled = was
    logging.disable(logging.NOTSET)
    logging.setLogRecordFactory(logging.LogRecord)


def dict_config(target: Path) -> dict[str, Any]:
    file = {"class": "logging.FileHandler", "filename": str(target), "formatter": "bare"}
    return {
        "version": 1,
        "formatters": {"bare": {"format": "%(levelname)s %(message)s"}},
        "handlers": {"file": file},
        "root": {"level": "INFO", "handlers": ["file"]},
    }


TOML = """
version = 1
[formatters.bare]
format = "%(levelname)s %(message)s"
[handlers.file]
class = "logging.FileHandler"
filename = "FILE"
formatter = "bare"
[root]
level = "INFO"
handlers = ["file"]
"""


@pytest.mark.usefixtures("_clean_logging")
@pytest.mark.parametrize("suffix", [".json", ".toml"])
def test_a_file_configures_the_applications_logging(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"logging{suffix}"
    target = tmp_path / "application.log"
    text = TOML.replace("FILE", str(target))
    path.write_text(json.dumps(dict_config(target)) if suffix == ".json" else text)
    configure_application(str(path))
    logging.getLogger(f"shop{suffix}").info("sold")  # made after the dictConfig
    assert target.read_text() == "INFO sold\n"


@pytest.mark.usefixtures("_clean_logging")
def test_without_a_file_warnings_reach_stderr_as_in_a_plain_script(said: Said, capsys: Any) -> None:
    logging.getLogger().handlers.clear()  # those of pytest
    configure_application(None)
    logging.getLogger("tea").warning("low on tea")
    assert capsys.readouterr().err == "low on tea\n"
    assert said() == ""
    assert logging.getLogger().handlers == []


@pytest.mark.usefixtures("_clean_logging")
def test_no_logging_of_an_application_silences_or_redirects_the_server(
    said: Said, tmp_path: Path
) -> None:
    target = tmp_path / "application.log"
    config = dict_config(target) | {"loggers": {"prefork": {"level": "CRITICAL"}}}
    path = tmp_path / "logging.json"
    path.write_text(json.dumps(config | {"disable_existing_loggers": True}))
    configure_application(str(path))
    logging.disable(logging.CRITICAL)

    def broken(*args: object, **kwargs: object) -> logging.LogRecord:
        raise ZeroDivisionError

    logging.setLogRecordFactory(broken)
    event("info", "still here")
    assert "still here" in said()
    assert target.read_text() == ""


@pytest.mark.usefixtures("_clean_logging")
@pytest.mark.parametrize(
    ("name", "text", "reason"),
    [
        ("x.json", None, "No such file or directory"),
        ("x.json", "{", "Expecting property name"),
        ("x.json", "[]", "must be an object, not list"),
        ("x.json", "{}", "dictionary doesn't specify a version"),
        ("x.toml", "a = ", "Invalid value (at end of document)"),
        ("x.toml", b"\xff", "'utf-8' codec can't decode"),
        ("x.yaml", "", "its name must end in .json or .toml"),
        (
            "x.json",
            json.dumps(dict_config(Path("/nonexistent/log"))),
            "Unable to configure handler 'file': [Errno 2] No such file or directory",
        ),
        (
            "x.json",
            '{"version": 1, "handlers": {"h": {"class": "nowhere.Handler"}}}',
            "Unable to configure handler 'h': Cannot resolve 'nowhere.Handler'",
        ),
    ],
)
def test_a_file_that_is_wrong_is_explained_in_one_line(
    name: str, text: str | bytes | None, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    if text is not None:
        path.write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(LogError) as caught:
        configure_application(str(path))
    assert str(caught.value).startswith(f"log.config: {path}: {reason}")
    assert "\n" not in str(caught.value)
