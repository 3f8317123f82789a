"""`migrate` translates the configuration of gunicorn.

`gunicorn_settings` is the table of all settings. The settings that need a translation of their own
have one in `gunicorn_server`, `gunicorn_workers` or `gunicorn_proxies`.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from prefork.config import KEYS
from prefork.config.load import variable
from prefork.config.values import nearest, toml
from prefork.migrate import gunicorn_proxies, gunicorn_server, gunicorn_workers
from prefork.migrate.data_flow import ALL, CPUS, FILE
from prefork.migrate.document import Document
from prefork.migrate.gunicorn_move import GunicornMove
from prefork.migrate.gunicorn_settings import SETTINGS
from prefork.migrate.gunicorn_values import excerpt, read
from prefork.migrate.migration_report import Fate
from prefork.migrate.python_file import Opaque, Ran, SourceError

TRANSLATIONS: dict[str, Callable[[GunicornMove, Any], None]] = {
    **gunicorn_server.TRANSLATIONS,
    **gunicorn_workers.TRANSLATIONS,
    **gunicorn_proxies.TRANSLATIONS,
}
"""By setting; each is called with the value, or with None for a setting that is not set."""

_AUTO = ', or count = "auto" for as many workers as CPUs'

_TITLE = (
    "From {source}, by `prefork migrate gunicorn`. Keep this file in the directory that gunicorn"
    " was started in: relative paths are relative to this file."
)


def migrate(
    settings: Mapping[str, Any],
    source: str,
    ran: Ran | None = None,
    *,
    environ: Mapping[str, str] | None = None,
    origins: Mapping[str, tuple[str, ...]] | None = None,
    before: Sequence[str] = (),
) -> Document:
    """The equivalent of the settings, and of gunicorn's defaults for those that are not set.

    source: for the title. ran: the file that the settings come from. environ: the environment that
    gunicorn would have (FORWARDED_ALLOW_IPS). origins: the environment variables in a setting of
    the command line. before: the words before gunicorn in the command line.

    Raises SourceError for a value with which gunicorn would not start, and for an application that
    prefork cannot serve.
    """
    ran = ran or Ran(source)
    document = Document(_TITLE.format(source=source))
    values, problems = {}, []
    for name, raw in settings.items():
        if raw is None or name not in SETTINGS:
            continue
        try:
            values[name] = read(name, raw)
        except ValueError as reason:
            problems.append(f"{source}: {name}: {reason}")
    if problems:
        raise SourceError("\n".join(problems))
    move = GunicornMove(document, values, ran, environ or {}, origins or {})
    for name, translation in TRANSLATIONS.items():
        had = set(document.settings)
        translation(move, values.get(name))
        _mark(move, name, set(document.settings) - had)
    gunicorn_proxies.keep_bodies(move)
    for name, value in values.items():
        if name not in TRANSLATIONS:
            _take(move, name, value)
    for word in before:
        document.changed(
            word, "it comes before gunicorn in the command line; put it before prefork, too"
        )
    _rest(move)
    return document


def _take(move: GunicornMove, name: str, value: Any) -> None:
    """A setting without a translation of its own."""
    setting = SETTINGS[name]
    document = move.document
    if value in (None, False, "", [], {}) or value == setting.default:
        if value is True:
            document.set(setting.here, True)
        return
    if setting.fate is Fate.SAME:
        document.set(setting.here, value)
        _mark(move, name, {setting.here})
        return
    what = name if isinstance(value, Opaque | dict) or value is True else f"{name} = {value!r}"
    if setting.kind == "function" and name in move.ran.flow.idle:
        document.unneeded(name, "it does nothing, or only logs")
    elif name == "child_exit" and "mark_process_dead" in move.ran.flow.calls:
        document.lost(
            name,
            "prometheus_client's mark_process_dead() is not called for workers that are killed;"
            " call it in before_exit (workers.hooks) for those that leave, and remove the files of"
            " PROMETHEUS_MULTIPROC_DIR before each start (ExecStartPre=). [metrics] has the"
            " server's own numbers",
        )
    elif setting.fate is Fate.LOST:
        document.lost(what, setting.here)
    elif setting.fate is Fate.CHANGED:
        document.changed(what, setting.here)
    else:
        document.unneeded(what, setting.here)


def _mark(move: GunicornMove, name: str, keys: set[str]) -> None:
    """Marks keys whose values come from the environment, the CPUs, or the path of the file."""
    document = move.document
    sources = set(move.sources(name))
    if not sources:
        return
    said = _expression(move, name)
    variables = sorted(sources - {CPUS, FILE, ALL})
    for key in sorted(keys):
        entry = document.settings[key]
        ours = variable(key)
        others = [each for each in variables if each not in ("PORT", "WEB_CONCURRENCY")]
        if entry.left_out and others:
            document.changed(
                name,
                f"it also depends on {' and '.join(others)}{said}; here {ours} sets {key}",
            )
        if key == "server.env" or entry.left_out or entry.fixed:
            continue
        shown = toml(entry.value)
        if variables:
            named = " and ".join(variables)
            document.remark(
                key, f"It came from {named}{said}; {ours} takes precedence over this line."
            )
            document.changed(
                name,
                f"it came from the environment, {named}{said}: {key} is {shown}, its value here;"
                f" set {ours} on a server that needs another value",
            )
        elif CPUS in sources and entry.value != "auto":
            document.remark(key, f"It was computed from the number of CPUs here{said}.")
            document.changed(
                name,
                f"it was computed from the CPUs of this machine{said}: {key} is {shown}; write the"
                f" number that suits the server{_AUTO if key == 'workers.count' else ''}",
            )
        elif FILE in sources and not key.startswith(("server.chdir", "server.pythonpath")):
            document.remark(key, f"It was derived from the path of the configuration file{said}.")
    reported = any(entry.startswith(f"{name} ") for entry in document.report.lost)
    if name == "raw_env":  # its values may be secrets
        return
    if variables and not keys and name in move.values and not reported:
        document.changed(
            name,
            f"it came from the environment, {' and '.join(variables)}{said}: the new file is for"
            f" {excerpt(move.values[name])}, its value here{_remedy(name)}",
        )


def _remedy(name: str) -> str:
    """The variable of the key that a setting becomes, if it becomes one."""
    key = re.split("[;,: ]", SETTINGS[name].here)[0]
    return f"; set {variable(key)} on a server that needs another value" if key in KEYS else ""


def _expression(move: GunicornMove, name: str) -> str:
    """The expression that a file assigned to a name, in parentheses, if it is not just a value."""
    text = move.ran.flow.expressions.get(name, "")
    return f" ({text})" if "(" in text and len(text) <= 90 else ""


def _rest(move: GunicornMove) -> None:
    """Reports everything about a file that is not a setting."""
    document, ran = move.document, move.ran
    for effect in ran.effects:
        document.lost(
            f"{ran.shown}, {effect}",
            "it has happened now, and prefork does not run this file; use systemd's ExecStartPre=,"
            " RuntimeDirectory= or tmpfiles.d",
        )
    if "GUNICORN_CMD_ARGS" in move.environ:
        document.changed(
            "GUNICORN_CMD_ARGS",
            "its arguments are in the new file; prefork reads PREFORK_CMD_ARGS",
        )
    if ran.stood_in:
        document.unneeded(
            ", ".join(ran.stood_in), "not installed here, but no setting that is migrated needs it"
        )
    for name, line in ran.flow.bound.items():
        known = name in SETTINGS or name in ran.flow.used or name.startswith("_")
        if known or isinstance(ran.names.get(name), Opaque):
            continue
        if near := nearest(name, SETTINGS, cutoff=0.85):
            document.unneeded(
                f"{name} = {excerpt(ran.names.get(name))}, line {line}",
                f"gunicorn has no such setting and ignores it; did you mean {near[0]}?",
            )
    if ALL in ran.variables:
        unseen = [name for name in ran.names if name in SETTINGS and name not in ran.flow.bound]
        found = [name for name in unseen if not isinstance(ran.names[name], Opaque)]
        document.changed(
            ran.shown,
            "it reads the whole environment, so its settings may differ from one machine to"
            f" another; here it has set {', '.join(found) or 'nothing'}",
        )
