"""Static files as a WSGI application, so that one way of answering serves them and everything else.

Nothing outside the root is reachable, whatever is renamed while a request is under way: a path is
never looked at first and opened after, the kernel opens it beneath the root (`open_beneath`), and
all that is said of a file is read off its descriptor.

The root itself is opened by its path at each request: if it is a link to the current release, a
deployment that swaps the link is seen by the next request, and no request sees two releases.
"""

import errno
import stat
import string
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from typing import NamedTuple
from urllib.parse import quote

from msgspec import Struct

from prefork.apps.conditions import is_plain_get
from prefork.apps.file_response import (
    FileResponse,
    from_file,
    plain,
)
from prefork.apps.file_slice import BLOCK, FileSlice
from prefork.apps.listing import DirectoryListings
from prefork.apps.wsgi import Application, StartResponse
from prefork.http.negotiation import accepted
from prefork.http.request import Environ
from prefork.linux import open_beneath
from prefork.unpatched import os

_ALLOW = ("Allow", "GET, HEAD, OPTIONS")
# A FIFO without a writer would block the worker; a terminal would become its controlling one.
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY

_SUFFIXES = {"br": b".br", "zstd": b".zst", "gzip": b".gz"}
"""Codings that may lie beside a file, the smallest first."""

_REFUSALS = {
    # For a client, there is nothing of that name.
    errno.EILSEQ: HTTPStatus.NOT_FOUND,
    errno.EINVAL: HTTPStatus.NOT_FOUND,  # a name that the file system cannot hold
    errno.ELOOP: HTTPStatus.NOT_FOUND,
    errno.ENAMETOOLONG: HTTPStatus.NOT_FOUND,
    errno.ENODEV: HTTPStatus.NOT_FOUND,
    errno.ENOENT: HTTPStatus.NOT_FOUND,
    errno.ENOTDIR: HTTPStatus.NOT_FOUND,
    errno.ENXIO: HTTPStatus.NOT_FOUND,  # a socket
    errno.EXDEV: HTTPStatus.NOT_FOUND,  # it leads out of the root
    errno.EACCES: HTTPStatus.FORBIDDEN,
    errno.EPERM: HTTPStatus.FORBIDDEN,
    # It may well be there in a moment.
    errno.EAGAIN: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.EMFILE: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.ENFILE: HTTPStatus.SERVICE_UNAVAILABLE,
    errno.ENOMEM: HTTPStatus.SERVICE_UNAVAILABLE,
}


_ROOT = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

_SMALL = 16 * 1024
"""Bytes up to which a file is read, and sent with its head."""

_KEPT, _LONGEST = 1024, 256
"""How many heads of small files are kept, and characters of a path that one is kept for."""

_Stamp = tuple[int, tuple[int, ...]]


_CONTENTS = 1024 * 1024
"""Bytes of small files whose content is kept, for each site and worker."""

_SETTLED = 2.0
"""Seconds without a change after which a file's content is kept.  Two changes within a tick of the
file system's clock (4 ms; 2 s for FAT) may leave the same times behind."""

_FRESH = 1.0
"""Seconds after which the content of a file is read again, whatever its times say: a writer with a
shared mapping (mmap(2)) changes them once in a while, and NFS keeps them for some seconds."""


class _Content(NamedTuple):
    """All bytes of a small file."""

    data: bytes
    inode: int
    device: int
    changed: int
    """Nanoseconds since 1970, by the clock of its file system (st_ctime): whatever changes the file
    changes this."""
    until: float
    """Monotonic seconds at which they are to be read again."""


class _Known(Struct, eq=False):
    """A small file as it was when it was last served as a whole."""

    name: bytes
    """Beneath the root."""
    path: bytes
    """The same, with the root's."""
    in_root: bool
    """In the root itself, not in a directory beneath."""
    stamp: _Stamp
    size: int
    headers: list[tuple[str, str]]
    content: _Content | None = None


class Site:
    """A directory as a WSGI application.

    root: the directory, absolute; it need not be there before the first request.
    listing: a directory without an index shows what is in it; otherwise it is 404, not 403: there
        is nothing at that address, and asking with other rights would not change it.
    listing_max: entries in a listing, 0 for no limit.
    index: name of the file that answers for its directory; "" for none.
    follow_symlinks: a symbolic link may lead out of the root.  One that stays inside is always
        followed, but by its own name: a link in the open to a hidden file shows it.

    precompressed: beside `app.js` may lie `app.js.br`, `app.js.zst` or `app.js.gz`, which is sent
        in its place to a client that takes it, unless it is older.

    Names that begin with "." are hidden: 404, and so is every dot segment.
    """

    def __init__(
        self,
        root: str,
        *,
        listing: bool = False,
        listing_max: int = 0,
        index: str = "index.html",
        follow_symlinks: bool = False,
        precompressed: bool = False,
    ) -> None:
        self._root = os.fsencode(root)
        self._listings = DirectoryListings(listing_max) if listing else None
        self._index = os.fsencode(index)
        self._follow_symlinks = follow_symlinks
        self._precompressed = precompressed

        self._known: dict[str, _Known] = {}
        # Bytes in them. Racy: two threads that keep a content at once may count one of them.
        self._contents = 0

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        try:
            known = self._known.get(environ.get("PATH_INFO", ""))
            if known is not None and environ["REQUEST_METHOD"] == "GET" and is_plain_get(environ):
                data = self._small(known)
                if data is not None:
                    start_response("200 OK", known.headers.copy())
                    return [data]
            answer = self._answer(environ)
        except OSError as problem:
            answer = _refusal(problem)
        body = answer.body
        try:
            start_response(f"{answer.status.value} {answer.status.phrase}", answer.headers)
            if isinstance(body, bytes):
                return [body] if body and environ["REQUEST_METHOD"] != "HEAD" else []
            wrapper = environ.get("wsgi.file_wrapper")
            if wrapper is not None and isinstance(body, FileSlice):
                wrapped: Iterable[bytes] = wrapper(body, BLOCK)
                return wrapped
            return body
        except BaseException:
            if not isinstance(body, bytes):
                body.close()
            raise

    def _small(self, known: "_Known") -> bytes | None:
        """The bytes of a small file that has not changed, None if it has."""
        now = time.monotonic()
        content = known.content
        if content is not None and now < content.until:
            # The path leads to the same file, which was not written to: its bytes need no reading.
            try:
                status = os.stat(known.path, follow_symlinks=self._follow_symlinks)
            except OSError:
                return None
            if (
                status.st_ctime_ns == content.changed
                and status.st_ino == content.inode
                and status.st_dev == content.device
            ):
                return content.data
        return self._read(known, now)

    def _read(self, known: "_Known", now: float) -> bytes | None:
        """The same from the file itself; keeps its content if that is worth it."""
        try:
            if self._follow_symlinks:
                fd = os.open(known.path, _READ)
            elif known.in_root:
                # In the root itself, O_NOFOLLOW is enough to stay inside: no need of `_open`.
                fd = os.open(known.path, _READ | os.O_NOFOLLOW)
            else:
                with _opened(self._root, _ROOT) as root:
                    fd = self._open(root, known.name, _READ)
            try:
                status = os.fstat(fd)
                if _stamp(status) != known.stamp:
                    return None
                data = os.read(fd, known.size + 1)
            finally:
                os.close(fd)
        except OSError:
            return None
        if len(data) != known.size:
            return None
        # Beneath a directory, only the kernel can say that a path does not lead out of the root.
        if (known.in_root or self._follow_symlinks) and (
            time.time() - max(status.st_ctime, status.st_mtime) > _SETTLED
        ):
            found = (status.st_ino, status.st_dev, status.st_ctime_ns)
            self._keep_content(known, _Content(data, *found, now + _FRESH))
        return data

    def _keep_content(self, known: "_Known", content: _Content) -> None:
        if known.content is None:
            if self._contents + known.size > _CONTENTS:
                return
            self._contents += known.size
        known.content = content

    def _keep(
        self, environ: Environ, path: bytes, answer: FileResponse, status: os.stat_result
    ) -> None:
        """Remembers the response for a whole, small file."""
        place = environ["PATH_INFO"]
        # The date of one from the future is that of the answer.
        if status.st_mtime > time.time() or len(place) > _LONGEST:
            return
        if len(self._known) >= _KEPT:
            self._known.clear()
            self._contents = 0
        replaced = self._known.get(place)
        if replaced is not None and replaced.content is not None:
            self._contents -= replaced.size
        self._known[place] = _Known(
            *(path, os.path.join(self._root, path), b"/" not in path),
            *(_stamp(status), status.st_size, answer.headers.copy()),
        )

    def _answer(self, environ: Environ) -> FileResponse:
        method = environ["REQUEST_METHOD"]
        if method == "OPTIONS":
            return FileResponse(HTTPStatus.NO_CONTENT, [_ALLOW])
        if method not in ("GET", "HEAD"):
            return plain(HTTPStatus.METHOD_NOT_ALLOWED, _ALLOW)
        # PEP 3333: the bytes of the path, decoded as latin-1.
        path = environ.get("PATH_INFO", "").encode("latin-1")
        if not path:
            return _redirect(environ)
        if not _is_plain(path):
            return plain(HTTPStatus.NOT_FOUND)
        with _opened(self._root, _ROOT) as root:
            if path.endswith(b"/"):
                return self._directory(environ, root, path[1:])
            fd = self._open(root, path[1:], _READ)
            status = os.fstat(fd)
            if stat.S_ISDIR(status.st_mode):
                os.close(fd)
                return _redirect(environ)
            return self._file(environ, root, fd, status, path[1:])

    def _file(
        self, environ: Environ, root: int, fd: int, status: os.stat_result, path: bytes
    ) -> FileResponse:
        """The answer from a file that was opened, or from the compressed one beside it."""
        if not self._precompressed:
            answer = from_file(environ, fd, status, path)
            if answer.status is HTTPStatus.OK and 0 < status.st_size <= _SMALL:
                self._keep(environ, path, answer, status)
            return answer
        for coding in accepted(environ.get("HTTP_ACCEPT_ENCODING"), _SUFFIXES):
            try:
                other = self._open(root, path + _SUFFIXES[coding], _READ)
            except OSError:
                continue
            theirs = os.fstat(other)
            if stat.S_ISREG(theirs.st_mode) and theirs.st_mtime_ns >= status.st_mtime_ns:
                os.close(fd)
                return from_file(environ, other, theirs, path, coding)
            os.close(other)
        return from_file(environ, fd, status, path, "")

    def _open(self, root: int, path: bytes, flags: int) -> int:
        if self._follow_symlinks:
            return os.open(path, flags, dir_fd=root)
        return open_beneath(root, path, flags)

    def _directory(self, environ: Environ, root: int, path: bytes) -> FileResponse:
        if self._index:
            try:
                index = self._open(root, path + self._index, _READ)
            except FileNotFoundError:
                pass
            else:
                return self._file(environ, root, index, os.fstat(index), path + self._index)
        if self._listings is None:
            return plain(HTTPStatus.NOT_FOUND)
        fd = self._open(root, path or b".", _READ | os.O_DIRECTORY)
        try:
            return self._listings.answer(environ, fd, partial(self._entry, root, path))
        finally:
            os.close(fd)

    def _entry(self, root: int, path: bytes, name: bytes) -> os.stat_result | None:
        """What an entry of a directory is; None if no client could request it."""
        # Opened in the same way as the file itself: no size or date of files outside the root.
        try:
            entry = self._open(root, path + name, os.O_PATH)
        except OSError as problem:
            if _refusal(problem).status is HTTPStatus.SERVICE_UNAVAILABLE:
                raise
            return None
        try:
            return os.fstat(entry)
        finally:
            os.close(entry)


class Mounts:
    """Sites beside an application: a site answers the requests beneath its prefix.

    mounts: prefix, such as "/static/" -> site; the longest that fits wins.  The site finds the
    prefix in SCRIPT_NAME and the rest in PATH_INFO (PEP 3333), and so redirects "/static" itself.
    The application sees its environ as it came.
    """

    def __init__(self, app: Application, mounts: Mapping[str, Site]) -> None:
        self._app = app
        # As PATH_INFO has it: bytes of UTF-8, each one a character.
        latin = {
            prefix.rstrip("/").encode().decode("latin-1"): site for prefix, site in mounts.items()
        }
        self._mounts = sorted(latin.items(), key=lambda mount: len(mount[0]), reverse=True)

    def __call__(self, environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        path = environ.get("PATH_INFO", "")
        found = self.find(path)
        if found is None:
            return self._app(environ, start_response)
        prefix, site = found
        # A copy: the server logs its own, which keeps the path of the request.
        shifted = {
            **environ,
            "SCRIPT_NAME": environ.get("SCRIPT_NAME", "") + prefix,
            "PATH_INFO": path[len(prefix) :],
        }
        return site(shifted, start_response)

    def find(self, path: str) -> tuple[str, Site] | None:
        """The prefix and the site that answer for a path; None if the application does."""
        for prefix, site in self._mounts:
            if path.startswith(prefix) and path[len(prefix) :][:1] in ("", "/"):
                return prefix, site
        return None


def _stamp(status: os.stat_result) -> _Stamp:
    """The fields that change whenever its entity tag does, and the kind of the file.

    The slice: mode, inode, device, links, user, group, size.
    """
    return status.st_mtime_ns, status[:7]


@contextmanager
def _opened(path: bytes, flags: int) -> Iterator[int]:
    fd = os.open(path, flags)
    try:
        yield fd
    finally:
        os.close(fd)


def _is_plain(path: bytes) -> bool:
    """Whether it is absolute, hides nothing, has no dot segment and no empty one but the last."""
    first, *names = path.split(b"/")
    return not (
        first or b"\0" in path or any(name.startswith(b".") for name in names) or b"" in names[:-1]
    )


def _refusal(problem: OSError) -> FileResponse:
    """The response to a failed call; a fault of the server, such as EIO, is raised again."""
    status = _REFUSALS.get(problem.errno or 0)
    if status is None:
        raise problem
    if status is HTTPStatus.SERVICE_UNAVAILABLE:
        return plain(status, ("Retry-After", "1"))
    return plain(status)


def _redirect(environ: Environ) -> FileResponse:
    """To the same path with a slash at its end, so that the links of its index are right."""
    path = environ.get("SCRIPT_NAME", "") + environ.get("PATH_INFO", "") + "/"
    # Two slashes at the start would name another host (RFC 3986 section 4.2).
    location = "/" + quote(path.encode("latin-1").lstrip(b"/"), safe="/!$&'()*+,:;=@~")
    if query := environ.get("QUERY_STRING", ""):
        # As it came, except for characters that a header cannot hold.
        location += "?" + quote(query.encode("latin-1"), safe=string.punctuation)
    return plain(HTTPStatus.MOVED_PERMANENTLY, ("Location", location))
