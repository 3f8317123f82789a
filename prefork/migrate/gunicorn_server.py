"""Translates gunicorn's settings for addresses, paths, logs, accounts and TLS."""

import re
from collections.abc import Callable
from typing import Any

from prefork import address
from prefork.migrate.data_flow import ALL, CPUS, FILE
from prefork.migrate.gunicorn_move import GunicornMove
from prefork.migrate.secrets import is_secret

_CALL = re.compile(r"([A-Za-z_][\w.]*)\((.*)\)", re.DOTALL)
_FORMATS = {
    '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s': "common",
    '%(h)s %(l)s %(u)s %(t)s "%(r)s" %(s)s %(b)s "%(f)s" "%(a)s"': "combined",
}
_STREAMS = {"/dev/stdout": "stdout", "/dev/stderr": "stderr", "-": "-"}


def _app(move: GunicornMove, value: str | None) -> None:
    if not value:
        return
    document = move.document
    module, colon, name = value.partition(":")
    call = _CALL.fullmatch(name)
    if call is not None and call[2].strip():
        document.lost(
            f"wsgi_app {value}", "a factory is called without arguments; write one that needs none"
        )
    name = f"{call[1]}()" if call is not None else name or "application"
    document.set(
        "server.app", f"{module}:{name}", "" if colon else "gunicorn's default name in a module."
    )


def _bind(move: GunicornMove, value: list[str] | None) -> None:
    if not value:
        return
    document = move.document
    found: list[str] = []
    texts = [text.strip() for item in value for text in item.split(",")]
    for text in texts:
        try:
            ours = _address(move, text)
        except ValueError as reason:
            # A variable that is not set leaves "None" or nothing behind.
            hint = ""
            if "None" in text or text.endswith(":"):
                named = sorted(move.sources("bind") - {ALL, CPUS, FILE}) or ["a shell variable"]
                hint = f"; is {' or '.join(named)} not set here? Set it and repeat"
            document.lost(f"bind {text!r}", f"{reason}{hint}")
            continue
        if ours not in found:
            found.append(ours)
    if not found:
        return
    if "PORT" in move.sources("bind") and len(found) == 1 and found[0].startswith("0.0.0.0:"):
        document.leave_out(
            "server.bind",
            found,
            "PORT sets it to 0.0.0.0:$PORT, but only as long as this line is a comment. Without"
            " PORT prefork listens on 127.0.0.1:8000.",
        )
        document.changed(
            "bind",
            "PORT still sets it, to 0.0.0.0:$PORT; on a server without that variable prefork"
            f' listens on 127.0.0.1:8000, so write bind = "{found[0]}" into [server] there',
        )
    else:
        document.set("server.bind", found)


def _address(move: GunicornMove, text: str) -> str:
    text = text.removeprefix("tcp://")
    if text.startswith("fd://"):
        text = "fd:" + text.removeprefix("fd://")
    elif text.startswith("unix:"):
        path = text.removeprefix("unix:").removeprefix("//")
        if path.startswith("\0"):
            text = f"unix:@{path[1:]}"
        else:
            path = move.path("bind", path)
            text = f"unix:./{path}" if path.startswith("@") else f"unix:{path}"
    elif not text:
        text = "0.0.0.0:8000"
    elif ":" not in text.rpartition("]")[2]:
        text = f"{text}:8000"
    return str(address.parse(text))


def _chdir(move: GunicornMove, value: str | None) -> None:
    if value:
        directory = move.directory
        if directory != ".":
            move.document.set("server.chdir", directory)


def _pythonpath(move: GunicornMove, value: str | None) -> None:
    if value:
        parts = [move.path("pythonpath", part) for part in value.split(",") if part]
        if parts:
            move.document.set("server.pythonpath", parts)


def _environment(move: GunicornMove, value: list[str] | None) -> None:
    """raw_env, and what the file puts into os.environ."""
    document = move.document
    variables = dict(move.ran.written)
    for item in value or ():
        name, equals, text = item.partition("=")
        if equals and name:
            variables[name] = text
        else:
            document.lost(
                f"raw_env {item!r}", "expected NAME=VALUE; gunicorn does not start with it"
            )
    if "SCRIPT_NAME" in variables:
        document.lost(
            "SCRIPT_NAME",
            "gunicorn takes the prefix of all paths from this variable; let the proxy send"
            f" X-Forwarded-Prefix: {variables.pop('SCRIPT_NAME')} and name that header in"
            " http.trusted_headers",
        )
    sources = move.sources("raw_env") - {ALL, CPUS, FILE}
    for name in [each for each in variables if each in sources]:
        document.unneeded(name, "the application inherits it from the environment")
        del variables[name]
        sources -= {name}
    secret = [name for name, text in variables.items() if is_secret(name, text)]
    plain = {name: text for name, text in variables.items() if name not in secret}
    if plain:
        document.set("server.env", plain)
        if sources:
            named = " and ".join(sorted(sources))
            document.remark(
                "server.env", f"Some of it came from {named}; these are the values here."
            )
            document.changed(
                "raw_env", f"some of it came from {named}; server.env has the values here"
            )
    for name in secret:
        document.lost(
            name,
            "it looks like a secret and is not written into the new file; put it into a file of"
            " mode 0600 and name that as server.env_file, if it is not in the environment already",
        )
    for path in move.ran.env_files[:1]:
        document.set(
            "server.env_file",
            move.path("raw_env", path),
            "load_dotenv() read it. Here it takes precedence over the environment.",
            fixed=True,
        )
    for path in move.ran.env_files[1:]:
        document.lost(
            f"load_dotenv({path!r})", "there is only one server.env_file; merge the files"
        )


def _set_path(name: str, key: str) -> Callable[[GunicornMove, Any], None]:
    def translate(move: GunicornMove, value: str | None) -> None:
        if value:
            move.document.set(key, move.path(name, value))

    return translate


def _daemon(move: GunicornMove, value: bool | None) -> None:
    if value:
        move.document.set("process.daemon", True)
        move.document.set("process.umask", "0022", "The umask of gunicorn's daemon.")


def _account(key: str) -> Callable[[GunicornMove, Any], None]:
    def translate(move: GunicornMove, value: str | None) -> None:
        if value:
            move.document.set(f"process.{key}", value)

    return translate


def _umask(move: GunicornMove, value: int | None) -> None:
    """gunicorn applies its umask to Unix sockets, and gives them to its user and group."""
    document = move.document
    bound = document.settings.get("server.bind")
    files = [text for text in (bound.value if bound else ()) if text.startswith("unix:")]
    if not files:
        if value:
            document.unneeded(
                f"umask = {value:#o}",
                "it is for Unix sockets, and there is none; gunicorn does not apply it to the"
                " application's files, for which there is process.umask",
            )
        return
    mode = 0o777 & ~(value or 0)
    document.set(
        "server.unix_mode",
        f"{mode:04o}",
        'Any local user may connect; "0660" with unix_owner keeps others out.'
        if mode & 0o002
        else f"From the umask {value or 0:04o}.",
    )
    if value:
        document.changed(
            f"umask = {value:#o}",
            f'it is for the Unix socket, server.unix_mode = "{mode:04o}"; the application\'s files'
            " have the umask that the server was started with, as in gunicorn",
        )
    user, group = move.get("user"), move.get("group")
    if user or group:
        document.set("server.unix_owner", f"{user or ''}{f':{group}' if group else ''}")


def _access(move: GunicornMove, value: str | None) -> None:
    if not value or value == "/dev/null":
        return
    target = _STREAMS.get(value, value)
    if target in ("-", "stdout", "stderr"):
        if move.get("daemon"):
            move.document.unneeded(f"accesslog = {value!r}", "a daemon has no stdout")
        else:
            move.document.set("log.access", "stdout" if target == "-" else target)
    else:
        move.document.set("log.access", move.path("accesslog", target))


def _error(move: GunicornMove, value: str | None) -> None:
    document = move.document
    target = _STREAMS.get(value or "-", value or "-")
    if move.get("syslog"):
        _syslog(move)
    elif target not in ("-", "stderr", "stdout"):
        document.set("log.error", move.path("errorlog", target))
    elif move.get("daemon"):
        document.set("log.error", "syslog", "gunicorn's daemon logs nowhere if no file is named.")
    elif value:
        document.set("log.error", "stderr")
        if target == "stdout":
            document.changed(f"errorlog = {value!r}", "the server's log goes to stderr")


def _syslog(move: GunicornMove) -> None:
    scheme, _, rest = str(move.get("syslog_addr")).partition("://")
    path = rest.partition("#")[0]
    if scheme == "unix" and path != "/dev/log":
        move.document.set("log.error", f"syslog:{path}")
        return
    move.document.set("log.error", "syslog")
    if scheme != "unix":
        move.document.lost(
            f"syslog_addr = {move.get('syslog_addr')!r}",
            "only the syslog socket of this machine is used; let its daemon forward the lines",
        )


def _access_format(move: GunicornMove, value: str | None) -> None:
    document = move.document
    if not value or "log.access" not in document.settings:
        if value and value not in _FORMATS:
            document.unneeded("access_log_format", "there is no access log")
        return
    if value in _FORMATS:
        document.set("log.access_format", _FORMATS[value])
    elif value.startswith("{"):
        document.set("log.access_format", "json", "Its fields have names of their own.")
        document.changed("access_log_format", "the fields of the JSON lines have other names")
    else:
        document.lost(
            "access_log_format",
            'there are "common", "combined" and "json" (log.access_format); combined is'
            " written, which has neither the time taken nor headers of your choice; json has both"
            if "%(D)" in value or "%(T)" in value or "%(L)" in value
            else 'there are "common", "combined" and "json" (log.access_format); combined is'
            " written",
        )


def _level(move: GunicornMove, value: str | None) -> None:
    if not value:
        return
    document, level = move.document, value.lower()
    if level == "critical":
        document.set("log.level", "error", "It was critical; error is the highest here.")
    elif level in ("debug", "info", "warning", "error"):
        document.set("log.level", level)
    else:
        document.set("log.level", "info", f"gunicorn does not know {value!r} and takes info.")
        hint = '; you may have meant "warning"' if level == "warn" else ""
        document.changed(
            f"loglevel = {value!r}", f"gunicorn takes it for info, so log.level is info{hint}"
        )


def _protocol(move: GunicornMove, value: str | None) -> None:
    if value not in (None, "", "http"):
        move.document.lost(
            f"protocol = {value!r}",
            "only HTTP is spoken; nginx needs proxy_pass in place of uwsgi_pass",
        )


def _http_protocols(move: GunicornMove, value: str | None) -> None:
    if value and {part.strip() for part in value.split(",")} - {"h1"}:
        move.document.lost(
            f"http_protocols = {value!r}",
            "HTTP/1.1 is spoken; let the proxy in front (nginx, HAProxy) speak HTTP/2",
        )


def _tls(move: GunicornMove, value: str | None) -> None:
    """The certificate, and all that depends on one."""
    document = move.document
    key, authorities, asked = (move.get(name) for name in ("keyfile", "ca_certs", "cert_reqs"))
    if not value:
        for name in ("keyfile", "ca_certs", "cert_reqs"):
            if move.values.get(name):
                document.unneeded(name, "there is no certfile, so no TLS")
        return
    document.set("tls.certificate", move.path("certfile", value))
    if key:
        document.set("tls.key", move.path("keyfile", key))
    if not asked:
        if authorities:
            document.unneeded("ca_certs", "without cert_reqs no client is asked for a certificate")
    elif not authorities:
        document.lost(
            f"cert_reqs = {asked}",
            "clients are not asked for certificates, because ca_certs is not set; set"
            " tls.client_ca and tls.client_auth",
        )
    else:
        document.set("tls.client_auth", "optional" if asked == 1 else "required")
        document.set("tls.client_ca", move.path("ca_certs", authorities))


def _nothing(move: GunicornMove, value: Any) -> None:
    """For settings that the translation of another one reads."""


TRANSLATIONS: dict[str, Callable[[GunicornMove, Any], None]] = {
    "wsgi_app": _app,
    "chdir": _chdir,
    "bind": _bind,
    "pythonpath": _pythonpath,
    "raw_env": _environment,
    "pidfile": _set_path("pidfile", "process.pidfile"),
    "user": _account("user"),
    "group": _account("group"),
    "daemon": _daemon,
    "umask": _umask,
    "accesslog": _access,
    "access_log_format": _access_format,
    "errorlog": _error,
    "syslog": _nothing,
    "syslog_addr": _nothing,
    "loglevel": _level,
    "logconfig_json": _set_path("logconfig_json", "log.config"),
    "control_socket": _set_path("control_socket", "control.path"),
    "certfile": _tls,
    "keyfile": _nothing,
    "ca_certs": _nothing,
    "cert_reqs": _nothing,
    "protocol": _protocol,
    "http_protocols": _http_protocols,
}
