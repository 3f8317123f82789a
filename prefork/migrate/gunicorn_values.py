"""Converts values as the validators of gunicorn do.

`read` raises ValueError for a value with which gunicorn does not start. Its text can follow the
name of the setting and a colon.
"""

import re
from collections.abc import Callable
from ipaddress import ip_network
from typing import Any

from prefork.migrate.gunicorn_settings import SETTINGS
from prefork.migrate.python_file import Opaque

_OCTAL = re.compile(r"0[0-7]+")


def read(name: str, raw: Any) -> Any:
    """The value of a setting. raw: a value of JSON, or an Opaque."""
    kind = SETTINGS[name].kind
    if isinstance(raw, Opaque) and raw.kind == "stand-in" and kind not in ("class", "function"):
        raise ValueError(
            f"it comes from {raw.text}, which is not installed here; install it, or write the value"
            " into the file"
        )
    return READERS[kind](raw)


def excerpt(raw: Any) -> str:
    text = repr(raw)
    return text if len(text) <= 60 else f"{text[:60]}..."


def _integer(raw: Any) -> int:
    if isinstance(raw, int):
        number = int(raw)
    elif isinstance(raw, str):
        text = raw.strip()
        # Umasks are written as in a shell: "027".
        number = int(text, 8) if _OCTAL.fullmatch(text) else _parsed(text)
    else:
        raise ValueError(f"expected an integer, got {excerpt(raw)}")
    if number < 0:
        raise ValueError(f"expected an integer of at least 0, got {number}")
    return number


def _parsed(text: str) -> int:
    try:
        return int(text, 0)
    except ValueError:
        raise ValueError(f"expected an integer, got {excerpt(text)}") from None


def _boolean(raw: Any) -> bool | None:
    if raw is None or isinstance(raw, bool):
        return raw
    words = {"true": True, "false": False}
    if isinstance(raw, str) and raw.strip().lower() in words:
        return words[raw.strip().lower()]
    raise ValueError(f"expected True or False, got {excerpt(raw)}")


def _string(raw: Any) -> str | None:
    if raw is None:
        return None
    if not isinstance(raw, str):
        raise ValueError(f"expected a string, got {excerpt(raw)}")
    return raw.strip()


def _strings(raw: Any) -> list[str]:
    if not raw:
        return []
    items = [raw] if isinstance(raw, str) else raw
    if not isinstance(items, list):
        raise ValueError(f"expected a list of strings, got {excerpt(raw)}")
    return [text for item in items if (text := _string(item)) is not None]


def _addresses(raw: Any) -> list[str]:
    """Host names are refused, as gunicorn does."""
    texts = [text.strip() for text in (_string(raw) or "").split(",") if text.strip()]
    for text in texts:
        if text != "*":
            try:
                ip_network(text)
            except ValueError as reason:
                raise ValueError(f"{reason}; name IP addresses or networks") from None
    return texts


def _table(raw: Any) -> dict[str, Any]:
    if not isinstance(raw, dict):
        raise ValueError(f"expected a dictionary, got {excerpt(raw)}")
    return raw


def _class(raw: Any) -> str:
    if isinstance(raw, Opaque):
        return raw.text
    return _string(raw) or ""


def _account(raw: Any) -> str | None:
    if raw is None or (isinstance(raw, int) and not isinstance(raw, bool) and raw >= 0):
        return None if raw is None else str(raw)
    return _string(raw)


def _any(raw: Any) -> Any:
    return raw


def _word(raw: Any) -> str:
    """A mode such as "off"; True and False are words for "auto" and "off"."""
    if raw is None or isinstance(raw, bool):
        return "auto" if raw else "off"
    return (_string(raw) or "off").lower()


READERS: dict[str, Callable[[Any], Any]] = {
    "integer": _integer,
    "boolean": _boolean,
    "string": _string,
    "path": _string,
    "strings": _strings,
    "addresses": _addresses,
    "table": _table,
    "class": _class,
    "account": _account,
    "function": _any,
    "any": _any,
    "word": _word,
}
