"""A directory as a page of HTML, for `static.listing`.

To make one takes two system calls for each entry, so a request of forty bytes could cost seconds.
A listing has a limit of entries and is kept for a while, and HEAD makes none of a large directory.
"""

import html
import os
import stat
import time
from collections.abc import Callable
from heapq import nsmallest
from http import HTTPStatus
from itertools import islice
from time import monotonic
from typing import NamedTuple
from urllib.parse import quote

from prefork.apps.file_response import FileResponse, described, modified_at
from prefork.http.request import Environ

_KEPT, _LARGEST = 16, 1 << 20
"""How many listings are kept, and the bytes of one."""

_MANY = 100
"""Entries of a directory above which HEAD is not worth a listing."""

_FRESH = 2.0
"""Seconds for which one is kept: a file may grow and its directory stay the same."""

_TICK = 0.05
"""Seconds within which a second change of a directory may leave its time as it is, at least."""

_PAGE = """\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 2em }}
th, td {{ padding: 0.2em 1.5em 0.2em 0; text-align: left }}
td:nth-child(n + 2) {{ text-align: right; font-variant-numeric: tabular-nums }}
</style>
</head>
<body>
<h1>{title}</h1>
<table>
<tr><th>Name</th><th>Bytes</th><th>Modified (UTC)</th></tr>
{rows}
</table>
</body>
</html>
"""
_ROW = '<tr><td><a href="{href}">{name}</a></td><td>{size}</td><td>{date}</td></tr>'
_MORE = "<tr><td>and {count:,} more</td><td></td><td></td></tr>"

Entry = tuple[bytes, os.stat_result]

Look = Callable[[bytes], os.stat_result | None]
"""What the entry of that name is; None if no client could request it."""


class _Kept(NamedTuple):
    stamp: tuple[int, ...]
    """Of the directory."""
    until: float
    """Monotonic seconds."""
    body: bytes


class DirectoryListings:
    """The listings of one site."""

    def __init__(self, limit: int) -> None:
        """`limit`: entries of a listing, 0 for no limit."""
        self._limit = limit
        self._kept: dict[tuple[str, str], _Kept] = {}

    def answer(self, environ: Environ, directory: int, look: Look) -> FileResponse:
        """The response with a listing of the directory at this place.

        directory: a descriptor, opened for reading.  Raises OSError.
        """
        if environ["REQUEST_METHOD"] == "HEAD" and _is_large(directory):
            # Without Content-Length (RFC 9110 section 8.6): it would have to be made for that.
            kind, _, *others = described(_KIND, 0)
            return FileResponse(HTTPStatus.OK, [kind, *others])
        status = os.fstat(directory)
        stamp = (status.st_mtime_ns, status.st_ctime_ns, status.st_ino, status.st_dev)
        place = environ.get("SCRIPT_NAME", ""), environ["PATH_INFO"]
        kept = self._kept.get(place)
        now = monotonic()
        if kept is None or kept.stamp != stamp or kept.until < now:
            body = _page(*place, *self._entries(directory, look))
            kept = _Kept(stamp, now + _FRESH, body)
            if len(body) <= _LARGEST and abs(time.time() - status.st_mtime) > _TICK:
                if len(self._kept) >= _KEPT:
                    self._kept.clear()
                self._kept[place] = kept
        return FileResponse(HTTPStatus.OK, described(_KIND, len(kept.body)), kept.body)

    def _entries(self, directory: int, look: Look) -> tuple[list[Entry], int]:
        """The entries that a client could request, directories first, and the number of others
        that are beyond the limit."""
        with os.scandir(directory) as found:
            names = [
                (not entry.is_dir(follow_symlinks=False), os.fsencode(entry.name))
                for entry in found
                if not entry.name.startswith(".")
            ]
        beyond = max(len(names) - self._limit, 0) if self._limit else 0
        first = nsmallest(self._limit, names) if beyond else names
        entries = []
        for _, name in first:
            status = look(name)
            if status is not None and (stat.S_ISREG(status.st_mode) or _is_directory(status)):
                entries.append((name, status))
        return sorted(entries, key=lambda entry: (not _is_directory(entry[1]), entry[0])), beyond


_KIND = "text/html; charset=utf-8"


def _page(prefix: str, path: str, entries: list[Entry], beyond: int) -> bytes:
    """`prefix` and `path`: SCRIPT_NAME and PATH_INFO, as PEP 3333 has them."""
    rows = [_row(name, status) for name, status in entries]
    if path != "/":
        rows.insert(0, _ROW.format(href="../", name="../", size="", date=""))
    if beyond:
        rows.append(_MORE.format(count=beyond))
    title = f"Index of {_shown((prefix + path).encode('latin-1'))}"
    return _PAGE.format(title=title, rows="\n".join(rows)).encode()


def _row(name: bytes, status: os.stat_result) -> str:
    slash = "/" if _is_directory(status) else ""
    return _ROW.format(
        href=quote(name) + slash,  # with its colons: "a:b" would be read as a scheme
        name=_shown(name) + slash,
        size="" if slash else f"{status.st_size:,}",
        date=time.strftime("%Y-%m-%d %H:%M", time.gmtime(modified_at(status))),
    )


def _is_large(directory: int) -> bool:
    with os.scandir(directory) as found:
        return next(islice(found, _MANY, None), None) is not None


def _is_directory(status: os.stat_result) -> bool:
    return stat.S_ISDIR(status.st_mode)


def _shown(name: bytes) -> str:
    return html.escape(name.decode("utf-8", "replace"))
