"""The access log: one line a response, collected and written in batches.

Formats: the Common Log Format, "combined" (with referer and user agent), both as Apache httpd
writes them (mod_log_config), and JSON.  The values are taken from the environ, which holds bytes as
Latin-1 (PEP 3333).  If an application changes its environ (REMOTE_ADDR behind a proxy,
REMOTE_USER), its line changes, too.  The application may leave any object there, and to read one
may raise any exception (the user of a session whose database is away): the line then says so in its
place, and the worker goes on.
"""

import json
import re
from collections.abc import Callable, Mapping
from time import localtime
from typing import Any, Literal

from prefork.logs.sink import LogSink
from prefork.logs.syslog import Syslog
from prefork.unpatched import RLock

BATCH = 64 * 1024
"""Bytes at which a batch is written without waiting for `flush`."""

Environ = Mapping[str, Any]

_KEYS = (
    *("REMOTE_ADDR", "REMOTE_USER", "REQUEST_METHOD", "RAW_URI", "SERVER_PROTOCOL"),
    *("HTTP_REFERER", "HTTP_USER_AGENT", "prefork.request_id"),
)
_UNREADABLE = "(unreadable)"

# Not from strftime(3): an application may set a locale, and these names are English.
_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


class AccessLog:
    """The lines that are still to be written to a sink.

    `add` takes no lock.  list.append is atomic, all threads append to the same list, and the
    flushing thread removes a prefix, which appending does not move.  The size is an estimate: a
    race makes a batch longer or shorter, but no line is lost or doubled.
    """

    def __init__(
        self,
        sink: LogSink | Syslog,
        format: Literal["common", "combined", "json"],
        on_unreadable: Callable[[str, BaseException], None],
    ) -> None:
        """`on_unreadable`: called with the key of a value in an environ that could not be read, and
        with the exception."""
        self._sink = sink
        self._on_unreadable = on_unreadable
        self._line: Callable[[Environ, int, int, float, float], str] = {
            "common": self._common,
            "combined": self._combined,
            "json": self._json,
        }[format]
        self._lines: list[str] = []
        self._size = 0
        # An RLock: the handler of SIGQUIT may interrupt a flush, and flush.  A line can then be
        # doubled, but none is lost.
        self._flushing = RLock()
        self._clf_second = (-1, "")
        self._iso_second = (-1, "", "")

    def add(self, environ: Environ, status: int, size: int, started: float, elapsed: float) -> None:
        """Adds the line of a response.

        size: bytes of its body.
        started: when the request began, in seconds since the epoch.
        elapsed: the duration in seconds.
        """
        try:
            line = self._line(environ, status, size, started, elapsed)
        except BaseException:  # of the application's objects: it may be SystemExit, too
            line = self._line(self._texts(environ), status, size, started, elapsed)
        self._lines.append(line)
        self._size += len(line)
        # Not waiting for a thread that is writing a batch: the next line tries again.
        if self._size >= BATCH and self._flushing.acquire(blocking=False):
            try:
                self._write()
            finally:
                self._flushing.release()

    def _texts(self, environ: Environ) -> dict[str, str]:
        """The values for a line as texts, whatever objects the application has left."""
        texts = {}
        for key in _KEYS:
            value = environ.get(key)
            if value is None:
                continue
            try:
                texts[key] = str.__str__(str(value))  # the second may be of a subclass
            except BaseException as problem:
                texts[key] = _UNREADABLE
                self._on_unreadable(key, problem)
        return texts

    def flush(self) -> None:
        """Writes the collected lines, with one write(2) if it is a regular file."""
        if self._lines:
            with self._flushing:
                self._write()

    def _write(self) -> None:
        self._size = 0
        batch = self._lines[:]
        if batch:
            self._sink.write("".join(batch).encode("ascii"))
            del self._lines[: len(batch)]

    def _common(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> str:
        return f"{self._clf(environ, status, size, started)}{_id(environ)}\n"

    def _combined(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> str:
        referer = _escape(environ.get("HTTP_REFERER") or "-")
        agent = _escape(environ.get("HTTP_USER_AGENT") or "-")
        return f'{self._clf(environ, status, size, started)} "{referer}" "{agent}"{_id(environ)}\n'

    def _clf(self, environ: Environ, status: int, size: int, started: float) -> str:
        get = environ.get
        peer = _escape(get("REMOTE_ADDR") or "-")
        user = _escape(get("REMOTE_USER") or "-")
        method = get("REQUEST_METHOD")
        if method is None:  # of a refused request: its line is malformed, or not known
            request = _escape(get("RAW_URI") or "-")
        else:
            request = _escape(f"{method} {get('RAW_URI')} {get('SERVER_PROTOCOL')}")
        date = self._clf_date(int(started))
        return f'{peer} - {user} [{date}] "{request}" {status} {size or "-"}'

    def _clf_date(self, second: int) -> str:
        known, date = self._clf_second
        if second != known:
            t = localtime(second)
            date = (
                f"{t.tm_mday:02d}/{_MONTHS[t.tm_mon - 1]}/{t.tm_year}:"
                f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d} {_offset(t.tm_gmtoff)}"
            )
            self._clf_second = (second, date)
        return date

    def _json(
        self, environ: Environ, status: int, size: int, started: float, elapsed: float
    ) -> str:
        get = environ.get
        line = {
            "time": self._iso_date(started),
            "remote_addr": get("REMOTE_ADDR") or None,
            "remote_user": get("REMOTE_USER") or None,
            "method": get("REQUEST_METHOD"),
            "uri": get("RAW_URI"),
            "protocol": get("SERVER_PROTOCOL"),
            "status": status,
            "size": size,
            "referer": get("HTTP_REFERER"),
            "user_agent": get("HTTP_USER_AGENT"),
            "elapsed": round(elapsed, 6),
        }
        request_id = get("prefork.request_id")
        if request_id is not None:
            line["request_id"] = request_id
        return _encode(line) + "\n"

    def _iso_date(self, moment: float) -> str:
        """RFC 3339, local time, milliseconds."""
        second = int(moment)
        known, head, tail = self._iso_second
        if second != known:
            t = localtime(second)
            head = (
                f"{t.tm_year}-{t.tm_mon:02d}-{t.tm_mday:02d}T"
                f"{t.tm_hour:02d}:{t.tm_min:02d}:{t.tm_sec:02d}."
            )
            tail = _offset(t.tm_gmtoff, ":")
            self._iso_second = (second, head, tail)
        return f"{head}{int((moment - second) * 1000):03d}{tail}"


def _id(environ: Environ) -> str:
    """The last field of a line, if requests have ids."""
    found = environ.get("prefork.request_id")
    return "" if found is None else f" {_escape(found)}"


_encode = json.JSONEncoder(default=str, allow_nan=False).encode  # RFC 8259 has no NaN


def _offset(seconds: int, separator: str = "") -> str:
    """An offset from UTC: +0530, or +05:30."""
    sign = "-" if seconds < 0 else "+"
    minutes = abs(seconds) // 60
    return f"{sign}{minutes // 60:02d}{separator}{minutes % 60:02d}"


_UNSAFE = re.compile(r"[^ !#-\[\]-~]")
_NAMED = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\n": "\\n", "\r": "\\r", "\t": "\\t", "\v": "\\v"}


def _escape(value: object) -> str:
    """As Apache httpd does it (ap_escape_logitem): a backslash before quotes, \\n and its like by
    name, \\xNN for other bytes that are not printable ASCII.
    """
    text = value if type(value) is str else str(value)
    # A table: a call for each character would take fifty times as long as to read it took.
    return text if _UNSAFE.search(text) is None else text.translate(_ESCAPES)


class _Escapes(dict[int, str]):
    """What is written for a character, for str.translate()."""

    def __init__(self) -> None:
        for code in range(256):
            char = chr(code)
            safe = _UNSAFE.match(char) is None
            self[code] = char if safe else _NAMED.get(char, f"\\x{code:02x}")

    def __missing__(self, code: int) -> str:
        # Only from an application that changed its environ.
        data = chr(code).encode("utf-8", "surrogatepass")
        return "".join(f"\\x{byte:02x}" for byte in data)


_ESCAPES = _Escapes()
