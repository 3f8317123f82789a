"""Recognizes environment variables that look like secrets."""

import re

_NAME = re.compile(
    r"(^|_)(SECRET|SECRETS|PASSWORD|PASSWD|PASS|PWD|TOKEN|KEY|APIKEY|CREDENTIALS?|DSN|SALT|PRIVATE)"
    r"($|_)",
    re.IGNORECASE,
)
_PLACE = re.compile(r"_(FILE|PATH|DIR|NAME|ID)$", re.IGNORECASE)
_URL = re.compile(r"[a-z][a-z0-9+.-]*://[^/@\s]*:[^/@\s]+@", re.IGNORECASE)


def is_secret(name: str, value: str) -> bool:
    """Whether the name (SECRET_KEY) or a password in a URL shows a secret; a path is none."""
    if _URL.match(value):
        return True
    return bool(value) and _NAME.search(name) is not None and _PLACE.search(name) is None
