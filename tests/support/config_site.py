"""A site.toml for tests of the configuration, and how they load it."""

from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from prefork.config import ConfigError, LoadedConfig, Override, Source, load

Write = Callable[..., str]

APP = '[server]\napp = "a:app"\n'


def site_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    """Changes to the test's directory; returns a function that writes site.toml there."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PWD", str(tmp_path))
    for variable in ("PORT", "WEB_CONCURRENCY"):
        monkeypatch.delenv(variable, raising=False)

    def write(text: str, name: str = "site.toml") -> str:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return name

    return write


def loaded(
    target: str | None,
    *overrides: Override,
    tcp: bool = False,
    environ: Mapping[str, str] | None = None,
) -> LoadedConfig:
    return load(Source(target, overrides, tcp), environ or {})


def problems(target: str | None, *overrides: Override, tcp: bool = False) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(Source(target, overrides, tcp), {})
    lines = [str(problem) for problem in caught.value.problems]
    assert str(caught.value).split("\n") == lines
    return lines
