"""What gunicorn was told: the names that a gunicorn.conf.py sets, and its command line."""

import argparse
import runpy
from typing import Any, NoReturn

from prefork.migrate import gunicorn

KNOWN = {
    *gunicorn.SAME,
    *gunicorn.TRANSLATED,
    *gunicorn.NOT_NEEDED,
    *gunicorn.NO_EQUIVALENT,
}
"""All names of settings."""

# Option strings, where they are not the name with hyphens; the type follows.
_SHORT = {
    "bind": ("-b", "--bind"),
    "workers": ("-w", "--workers"),
    "worker_class": ("-k", "--worker-class"),
    "timeout": ("-t", "--timeout"),
    "keepalive": ("--keep-alive",),
    "limit_request_field_size": ("--limit-request-field_size", "--limit-request-field-size"),
    "reload_extra_files": ("--reload-extra-file",),
    "preload_app": ("--preload",),
    "daemon": ("-D", "--daemon"),
    "raw_env": ("-e", "--env"),
    "pidfile": ("-p", "--pid"),
    "user": ("-u", "--user"),
    "group": ("-g", "--group"),
    "umask": ("-m", "--umask"),
    "accesslog": ("--access-logfile",),
    "access_log_format": ("--access-logformat",),
    "errorlog": ("--error-logfile", "--log-file"),
    "loglevel": ("--log-level",),
    "logconfig": ("--log-config",),
    "logconfig_json": ("--log-config-json",),
    "syslog_addr": ("--log-syslog-to",),
    "syslog": ("--log-syslog",),
    "syslog_prefix": ("--log-syslog-prefix",),
    "syslog_facility": ("--log-syslog-facility",),
    "enable_stdio_inheritance": ("-R", "--enable-stdio-inheritance"),
    "proc_name": ("-n", "--name"),
    "paste": ("--paste", "--paster"),
    "raw_paste_global_conf": ("--paste-global",),
    "proxy_allow_ips": ("--proxy-allow-from",),
    "uwsgi_allow_ips": ("--uwsgi-allow-from",),
    "sendfile": ("--no-sendfile",),
    "control_socket_disable": ("--no-control-socket",),
    "dirty_apps": ("--dirty-app",),
}
_NUMBERS = {
    *("workers", "threads", "backlog", "worker_connections", "max_requests"),
    *("max_requests_jitter", "timeout", "graceful_timeout", "keepalive", "limit_request_line"),
    *("limit_request_fields", "limit_request_field_size"),
}
_FLAGS = {
    *("reload", "spew", "check_config", "print_config", "preload_app", "sendfile", "reuse_port"),
    *("daemon", "initgroups", "disable_redirect_access_to_syslog", "capture_output", "syslog"),
    *("enable_stdio_inheritance", "enable_backlog_metric", "suppress_ragged_eofs"),
    *("do_handshake_on_connect", "permit_obsolete_folding", "strip_header_spaces"),
    *("permit_unconventional_http_method", "permit_unconventional_http_version"),
    *("casefold_http_method", "control_socket_disable"),
}
_LISTS = {"bind", "raw_env", "reload_extra_files", "raw_paste_global_conf", "dirty_apps"}
_OPTIONAL = {"proxy_protocol": "auto"}  # value where it stands alone


class SourceError(Exception):
    """It cannot be read; one line."""


def read_file(path: str) -> dict[str, Any]:
    """Runs a gunicorn.conf.py, as gunicorn does, and returns what it sets.  Raises SourceError."""
    try:
        names = runpy.run_path(path)
    except OSError as error:
        raise SourceError(f"{path}: cannot be read: {error.strerror}") from None
    except BaseException as error:  # it is a program, and may do anything
        where = _line(error, path)
        raise SourceError(f"{path}:{where} it cannot be run: {error!r}") from None
    return {name: value for name, value in names.items() if name in KNOWN}


def read_command(arguments: list[str]) -> dict[str, Any]:
    """Takes gunicorn's command line apart, and reads the file that it names; the options win.

    Raises SourceError.
    """
    options = vars(_parser().parse_args(arguments))
    file = options.pop("config", None)
    given = {name: value for name, value in options.items() if value is not None}
    found = read_file(file.removeprefix("file:")) if file else {}
    return {**found, **given}


def _line(error: BaseException, path: str) -> str:
    line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else None
    trace = error.__traceback__
    while trace is not None:
        if trace.tb_frame.f_code.co_filename == path:
            line = trace.tb_lineno
        trace = trace.tb_next
    return f"{line}:" if line else ""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise SourceError(f"this is no command line of gunicorn: {message}")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="gunicorn", add_help=False, allow_abbrev=False)
    parser.add_argument("-c", "--config", dest="config")
    for name in sorted(KNOWN - {"config", "wsgi_app"}):
        flags = _SHORT.get(name, (f"--{name.replace('_', '-')}",))
        options: dict[str, Any] = {"dest": name, "default": None}
        if name in _FLAGS:
            options |= {"action": "store_const", "const": True}
        elif name in _LISTS:
            options |= {"action": "append"}
        elif name in _OPTIONAL:
            options |= {"nargs": "?", "const": _OPTIONAL[name]}
        elif name in _NUMBERS:
            options |= {"type": int}
        parser.add_argument(*flags, **options)
    parser.add_argument("wsgi_app", nargs="?")
    return parser
