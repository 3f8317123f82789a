"""`load` makes the configuration from the command line, a file and the environment.

It has three steps: collect the raw values with their origins; read each value by the kind of its
key; resolve the keys that were not given. Then `checks` finds values that contradict each other, or
the machine. Each step collects its problems and goes on, so that the user sees all of them at once.
"""

import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
from msgspec import Struct

from prefork.config import checks, config_files, cpus
from prefork.config.problems import ConfigError, Problem, full_name, unknown_key, unknown_section
from prefork.config.schema import KEYS, SECTIONS, Config
from prefork.config.source import Source, parse_value
from prefork.config.values import AUTO, Invalid, is_module, read, toml

COMMAND_LINE = "command line"


class LoadedConfig(Struct, frozen=True):
    """A configuration, and the origin of each of its values by "section.key"."""

    config: Config
    origins: dict[str, str]
    file: Path | None = None


class RawSetting(NamedTuple):
    """A raw value with its origin, and the directory for its relative paths."""

    section: str
    key: str
    raw: Any
    origin: str
    base: str


class Setting(NamedTuple):
    """A value that was read, and its origin."""

    value: Any
    origin: str


def load(
    source: Source, environ: Mapping[str, str] = os.environ, *, machine: bool = True
) -> LoadedConfig:
    """The configuration of a source; files and environment are read anew.

    Precedence: command line, environment (PREFORK_SECTION_KEY), file, environment (PORT,
    WEB_CONCURRENCY), defaults.
    machine: whether to check what only the machine that runs the server can tell, such as paths
        and accounts.
    Raises ConfigError with every problem that is found.
    """
    problems: list[Problem] = []
    given = [*_from_file(source, problems), *_from_target(source, problems)]
    given += _from_variables(environ, source)
    given += _from_options(source)
    given += _from_environment(environ, given, source)
    settings = _read(given, problems)
    if machine:
        _add_env_file(settings, problems)
    base = os.path.dirname(source.file) if source.file else source.directory
    settled = _resolve(settings, source.file, base, cpus.available())
    config = _build(settled)
    where = source.target if source.file and source.target else COMMAND_LINE
    origins = {name: setting.origin for name, setting in settings.items()}
    wrong = {problem.key for problem in problems}
    problems += checks.every(config, origins, where, wrong, machine=machine)
    if problems:
        raise ConfigError(problems)
    origins = {name: setting.origin for name, setting in settled.items()}
    return LoadedConfig(config, origins, Path(source.file) if source.file else None)


def _from_file(source: Source, problems: list[Problem]) -> Iterator[RawSetting]:
    if not source.file:
        return
    where = source.target or source.file
    try:
        document = config_files.read_toml(source.file)
    except Invalid as problem:
        problems += [Problem(where, "", reason) for reason in problem.reasons]
        return
    for section, table in document.items():
        if section not in SECTIONS:
            problems.append(unknown_section(where, section, table))
        elif not isinstance(table, dict):
            problems.append(
                Problem(where, section, f"expected a table, with the heading [{section}]")
            )
        else:
            base = os.path.dirname(source.file)
            yield from (RawSetting(section, key, raw, where, base) for key, raw in table.items())


def _from_target(source: Source, problems: list[Problem]) -> Iterator[RawSetting]:
    if source.tcp:
        yield RawSetting("server", "protocol", "tcp", "--tcp", source.directory)
    if source.target is None or source.file:
        return
    path = os.path.join(source.directory, source.target)
    # A package is imported, as by `python -m`: served as a directory, it would show its source.
    package = is_module(source.target) and os.path.isfile(os.path.join(path, "__init__.py"))
    if source.target and os.path.isdir(path) and not package:
        yield RawSetting("static", "root", source.target, COMMAND_LINE, source.directory)
    elif ":" in source.target:
        yield RawSetting("server", "app", source.target, COMMAND_LINE, source.directory)
    elif (app := _application_of(source.target, source.directory)) is not None:
        yield RawSetting("server", "app", app, COMMAND_LINE, source.directory)
    else:
        reason = "no such directory or module, and neither a .toml file nor module:callable"
        if meant := _meant(source.target, source.directory):
            reason += f"; did you mean {meant}?"
        problems.append(Problem(COMMAND_LINE, "", f"{toml(source.target)}: {reason}"))


def _meant(target: str, directory: str) -> str | None:
    """The target that was meant by the name of a Python file, or with a dot for the colon."""
    module, dot, rest = target.rpartition(".")
    if not dot or not rest.isidentifier():
        return None
    module = module.replace("/", ".").strip(".")
    app = _application_of(module, directory)
    return app if app is None or rest == "py" else f"{module}:{rest}"


def _application_of(module: str, directory: str) -> str | None:
    from prefork.config import modules  # imported only if it is needed: it costs start time

    return modules.application_of(module, directory)


def _from_options(source: Source) -> Iterator[RawSetting]:
    for section, key, value, origin in map(msgspec.structs.astuple, source.overrides):
        yield RawSetting(section, key, value, origin, source.directory)


def _from_variables(environ: Mapping[str, str], source: Source) -> Iterator[RawSetting]:
    """The variables PREFORK_SECTION_KEY, one for each key.

    Other names with this prefix are ignored: Kubernetes makes such variables for its services.
    """
    for key in KEYS.values():
        name = variable(key.name)
        if text := environ.get(name):
            yield RawSetting(key.section, key.key, parse_value(text), name, source.directory)


def variable(key: str) -> str:
    """The environment variable of a key: PREFORK_WORKERS_COUNT for "workers.count"."""
    return f"PREFORK_{key.replace('.', '_').upper()}"


def _from_environment(
    environ: Mapping[str, str], given: Iterable[RawSetting], source: Source
) -> Iterator[RawSetting]:
    """PORT and WEB_CONCURRENCY, which platforms set, for keys that are not given otherwise."""
    keys = {(one.section, one.key) for one in given}
    if ("server", "bind") not in keys and (port := environ.get("PORT")):
        yield RawSetting("server", "bind", f"0.0.0.0:{port}", "PORT", source.directory)
    if ("workers", "count") not in keys and (count := environ.get("WEB_CONCURRENCY")):
        raw = parse_value(count)
        yield RawSetting("workers", "count", raw, "WEB_CONCURRENCY", source.directory)


def _read(given: Iterable[RawSetting], problems: list[Problem]) -> dict[str, Setting]:
    """Reads every value. Of several for a key the last one counts, but all of them are checked."""
    settings: dict[str, Setting] = {}
    for section, key, raw, origin, base in given:
        name = full_name(section, key)
        if section not in SECTIONS:
            problems.append(unknown_section(origin, section))
        elif name not in KEYS:
            problems.append(unknown_key(origin, section, key))
        else:
            try:
                value = read(KEYS[name].kind, KEYS[name].hint, raw, base)
                settings[name] = Setting(value, origin)
            except Invalid as problem:
                problems += [Problem(origin, name, reason) for reason in problem.reasons]
    return settings


def _add_env_file(settings: dict[str, Setting], problems: list[Problem]) -> None:
    """Adds the variables of `server.env_file` to `server.env`, which takes precedence."""
    if "server.env_file" not in settings:
        return
    path, origin = settings["server.env_file"]
    try:
        variables = config_files.read_env_file(path)
    except Invalid as problem:
        reasons = (f"{path}: {reason}" for reason in problem.reasons)
        problems += [Problem(origin, "server.env_file", reason) for reason in reasons]
        return
    explicit = settings.get("server.env", Setting({}, f"{origin} (env_file)"))
    settings["server.env"] = Setting(variables | explicit.value, explicit.origin)


def _resolve(
    given: Mapping[str, Setting], file: str | None, base: str, cpu_count: int
) -> dict[str, Setting]:
    """The setting of every key: given, derived from others, or the default."""
    settled = {name: Setting(key.default, "default") for name, key in KEYS.items()}
    settled["server.chdir"] = Setting(base, "default")
    settled |= given
    only_root = "static.root" in given and "server.app" not in given
    if only_root and settled["server.protocol"].value == "auto":
        settled["server.protocol"] = Setting("static", "static.root")
    if settled["server.protocol"].value == "tcp" and "workers.request_timeout" not in given:
        settled["workers.request_timeout"] = Setting(0.0, "default for tcp")
    if settled["workers.count"].value == AUTO:
        settled["workers.count"] = Setting(cpu_count, f'{settled["workers.count"].origin}, "auto"')
    if settled["workers.spare"].value and not settled["workers.max"].value:
        settled["workers.max"] = Setting(settled["workers.count"].value, "workers.count")
    if "server.name" not in given:
        name = Path(file).stem if file else settled["server.bind"].value[0]
        settled["server.name"] = Setting(name, "default")
    return settled


def _build(settled: Mapping[str, Setting]) -> Config:
    sections = {
        section: struct(
            **{key: settled[f"{section}.{key}"].value for key in struct.__struct_fields__}
        )
        for section, struct in SECTIONS.items()
    }
    return Config(**sections)  # type: ignore[arg-type]  # each has the type of its own section
