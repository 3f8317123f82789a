"""The conditions of a request for a file (RFC 9110 section 13)."""

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

_ETAG = re.compile(r'(W/)?("[\x21\x23-\x7e\x80-\xff]*")')  # section 8.8.3


def is_plain_get(environ: Mapping[str, Any]) -> bool:
    """Whether a GET asks for the whole file, whatever the client has of it."""
    return not (
        "HTTP_IF_NONE_MATCH" in environ
        or "HTTP_IF_MODIFIED_SINCE" in environ
        or "HTTP_RANGE" in environ
        or "HTTP_IF_MATCH" in environ
        or "HTTP_IF_UNMODIFIED_SINCE" in environ
        or "HTTP_IF_RANGE" in environ
    )


def outcome(environ: Mapping[str, Any], etag: str, modified: int) -> HTTPStatus:
    """OK, NOT_MODIFIED or PRECONDITION_FAILED, in the order of section 13.2.2.

    etag: the file's, a strong one.  modified: seconds since 1970.
    """
    tags = environ.get("HTTP_IF_MATCH")
    if tags is not None:
        if not _matches(tags, etag, weak=False):
            return HTTPStatus.PRECONDITION_FAILED
    else:
        since = date(environ.get("HTTP_IF_UNMODIFIED_SINCE", ""))
        if since is not None and modified > since:
            return HTTPStatus.PRECONDITION_FAILED
    tags = environ.get("HTTP_IF_NONE_MATCH")
    if tags is not None:
        # And If-Modified-Since, if any, is not looked at.
        current = _matches(tags, etag, weak=True)
    else:
        since = date(environ.get("HTTP_IF_MODIFIED_SINCE", ""))
        current = since is not None and modified <= since
    return HTTPStatus.NOT_MODIFIED if current else HTTPStatus.OK


def _matches(tags: str, etag: str, *, weak: bool) -> bool:
    """Whether the tag is in the list; a weak one counts only in a weak comparison."""
    if tags.strip() == "*":
        return True
    if etag not in tags:
        return False  # nearly always, and a list may be as long as a head
    return any(tag == etag and (weak or not mark) for mark, tag in _ETAG.findall(tags))


def may_be_partial(environ: Mapping[str, Any], etag: str, modified: int) -> bool:
    """If-Range (section 13.1.5): a part is of use only to a client that has the rest of this file.

    The tag is compared strongly, the date exactly.
    """
    condition = environ.get("HTTP_IF_RANGE")
    return condition is None or condition.strip() == etag or date(condition) == modified


def date(text: str) -> int | None:
    """An HTTP date in any of its three forms (section 5.6.7), None if it is none."""
    try:
        when = parsedate_to_datetime(text)
    except (IndexError, OverflowError, TypeError, ValueError):
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)  # the form of asctime(3) has no zone, and means GMT
    return int(when.timestamp())
