"""Readers: each makes the value that the server uses from a value of a TOML file.

A reader takes the raw value and the directory that relative paths are relative to, and makes no
system call. It raises `Mismatch` if the value is not of the expected kind, and `Invalid` for any
other problem. A key without a reader is checked only by its type and bounds (see `read`).
"""

import json
import os
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import ip_address, ip_network
from typing import Any, NamedTuple

import msgspec

from prefork import address, seccomp
from prefork.capacity import WORKERS_MAX

KIB, MIB, GIB = 1 << 10, 1 << 20, 1 << 30

AUTO = 0
"""The value of `workers.count = "auto"` until `load` has counted the CPUs."""

HOOKS = ("before_fork", "after_fork", "ready", "before_exit")
"""The names in `workers.hooks`: the moments at which a function is called."""

FORWARDING_HEADERS = (
    "Forwarded",
    "X-Forwarded-For",
    "X-Forwarded-Proto",
    "X-Forwarded-Host",
    "X-Forwarded-Port",
    "X-Forwarded-Prefix",
)
"""The headers in which a trusted proxy describes its client; `http.trusted_headers` chooses some.
"""

USUAL_FORWARDING_HEADERS = ("X-Forwarded-For", "X-Forwarded-Proto")
"""Those that each proxy sets if it is told to forward anything. It lets the others through as a
client has sent them, unless its configuration names them."""

_UNITS = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": KIB, "MIB": MIB, "GIB": GIB}
_SIZE = re.compile(r"(\d{1,19}) ?([KMG]?i?B)", re.IGNORECASE | re.ASCII)
_MODE = re.compile(r"(0|0o)?[0-7]{3}")
_SHOWN = 60  # characters of a refused value in the text of its problem


class Mismatch(ValueError):
    """The value is not of the kind that `ValueKind.expected` describes."""


class Invalid(ValueError):
    """The value is refused; `reasons` has one line for each problem of it."""

    def __init__(self, *reasons: str) -> None:
        super().__init__("; ".join(reasons))
        self.reasons = reasons


class ValueKind(NamedTuple):
    """The values of a key: their description for problems, their reader, and how they are shown."""

    expected: str
    reader: Callable[[Any, str], Any] | None = None
    shower: Callable[[Any], str] | None = None


def read(kind: ValueKind, hint: Any, raw: Any, base: str) -> Any:
    """The value for a key of this kind and type; raises Invalid."""
    try:
        value = raw if kind.reader is None else kind.reader(raw, base)
        return msgspec.convert(value, hint)
    except (Mismatch, msgspec.ValidationError):
        raise Invalid(f"expected {kind.expected}, got {_excerpt(raw)}") from None


def nearest(word: str, known: Iterable[str], *, cutoff: float = 0.6) -> list[str]:
    """The most similar one, if its similarity is at least `cutoff` (1: equal)."""
    found = max(((_similarity(word, each), each) for each in known), default=(0.0, ""))
    return [found[1]] if found[0] >= cutoff else []


def _similarity(word: str, other: str) -> float:
    """The share of both words that is common to them, in the same order, from 0 to 1.

    The measure of difflib. That module is not imported, since a worker would then import it, and an
    application may have a module of this name.
    """
    common = [0] * (len(other) + 1)
    """The length of the longest common subsequence with each prefix of `other`."""
    for letter in word:
        before = 0
        for end, another in enumerate(other, 1):
            longest = before + 1 if letter == another else max(common[end], common[end - 1])
            before, common[end] = common[end], longest
    return 2 * common[-1] / ((len(word) + len(other)) or 1)


def _excerpt(raw: Any) -> str:
    text = toml(raw)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def show(kind: ValueKind, value: Any) -> str:
    """The value in TOML's notation, on one line; "none" if it is not set."""
    if value is None:
        return "none"
    return toml(value) if kind.shower is None else kind.shower(value)


def toml(value: Any) -> str:
    """Any value of a TOML file, close to TOML's notation, on one line."""
    if isinstance(value, Mapping):
        items = ", ".join(f"{toml(key)} = {toml(item)}" for key, item in value.items())
        return f"{{ {items} }}" if items else "{}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return f"[{', '.join(map(toml, value))}]"
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, int) and value.bit_length() > 2000:
        return hex(value)  # str() refuses thousands of digits
    # Strings are the same in JSON and TOML, except that TOML has no escapes of surrogates and no
    # plain DEL. A date or time, which only TOML has, is shown as text.
    text = json.dumps(value, ensure_ascii=False, default=str)
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(letter: str) -> str:
    if letter.isprintable():
        return letter
    number = ord(letter)
    return f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def _text(raw: Any) -> str:
    if not isinstance(raw, str) or not raw:
        raise Mismatch
    if not raw.isprintable():
        raise Invalid(f"contains a control or unprintable character: {_excerpt(raw)}")
    return raw


def read_name(raw: Any, base: str) -> str:
    return _text(raw)


def read_path(raw: Any, base: str) -> str:
    # Not realpath: a symlink to a release has to be resolved again at each reload.
    return os.path.normpath(os.path.join(base, _text(raw)))


def read_paths(raw: Any, base: str) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple):
        raise Mismatch
    return tuple(read_path(item, base) for item in raw)


def read_url_path(raw: Any, base: str) -> str:
    path = _text(raw)
    if not path.startswith("/") or not path.isascii() or " " in path:
        raise Mismatch
    return path


def read_warmup(raw: Any, base: str) -> tuple[str, ...]:
    """Paths, and URLs of http and https."""
    if not isinstance(raw, list | tuple):
        raise Mismatch
    return tuple(_read_url(item, base) for item in raw)


def _read_url(raw: Any, base: str) -> str:
    text = _text(raw)
    if not text.startswith(("http://", "https://")):
        return read_url_path(text, base)
    host, slash, path = text.partition("://")[2].partition("/")
    if not re.fullmatch(r"[A-Za-z0-9._~-]+(:\d+)?|\[[0-9A-Fa-f:.]+\](:\d+)?", host):
        raise Mismatch
    read_url_path(f"/{path}", base)
    return text if slash else f"{text}/"


def read_codings(raw: Any, base: str) -> tuple[str, ...]:
    """Codings in order of preference, without duplicates."""
    if not isinstance(raw, list | tuple) or not all(item in ("zstd", "gzip") for item in raw):
        raise Mismatch
    return tuple(dict.fromkeys(raw))


def read_system_calls(raw: Any, base: str) -> tuple[str, ...]:
    if not isinstance(raw, list | tuple) or not all(isinstance(name, str) for name in raw):
        raise Mismatch
    unknown = [name for name in raw if name not in seccomp.NAMES]
    if unknown:
        near = nearest(unknown[0], seccomp.NAMES)
        hint = (
            f"did you mean {near[0]}?" if near else f"those are {', '.join(sorted(seccomp.NAMES))}"
        )
        raise Invalid(f"{toml(unknown[0])} is not among the calls that are refused; {hint}")
    return tuple(raw)


def read_error_log(raw: Any, base: str) -> str:
    if raw in ("stderr", "syslog"):
        return _text(raw)
    if isinstance(raw, str) and raw.startswith("syslog:"):
        return f"syslog:{read_path(raw.removeprefix('syslog:'), base)}"
    return read_path(raw, base)


def read_access_log(raw: Any, base: str) -> str:
    return "stdout" if raw == "stdout" else read_error_log(raw, base)


def read_control_path(raw: Any, base: str) -> str:
    return _parse_address(f"unix:{read_path(raw, base)}").path


def read_index(raw: Any, base: str) -> str:
    name = _text(raw)
    if "/" in name or name.startswith("."):  # a hidden file is never served
        raise Mismatch
    return name


def read_app(raw: Any, base: str) -> str:
    """`module:callable` or `module:factory()`; both names may be dotted."""
    text = _text(raw)
    module, _, name = text.partition(":")
    if "/" in module or module.endswith(".py"):
        dotted = module.removesuffix(".py").strip("./").replace("/", ".")
        raise Invalid(f'names a file; name the module, as in "{dotted}:{name or "app"}"')
    names = name.removesuffix("()").split(".")
    if not is_module(module) or not all(part.isidentifier() for part in names):
        raise Mismatch
    return text


def is_module(name: str) -> bool:
    """Whether a dotted name may be that of a module. A hyphen may be in it: only a statement
    cannot import such a file."""
    return all(part.replace("-", "_").isidentifier() for part in name.split("."))


def read_loop(raw: Any, base: str) -> str:
    """The event loop: a known one, or `module:factory`."""
    text = _text(raw)
    if text in ("auto", "asyncio", "uvloop"):
        return text
    return read_app(text.removesuffix("()"), base)


_OTHER_MEANING = re.compile(
    r"(?i)host|cookie|connection|date|server|via|te|trailer|upgrade|range|expect|accept.*|content-.*"
    r"|transfer-.*|authorization|proxy-.*|forwarded|x-forwarded-.*|if-.*|set-cookie|keep-alive"
)


def read_id_header(raw: Any, base: str) -> str:
    """The name of a header that has no other meaning in HTTP."""
    if not isinstance(raw, str):
        raise Mismatch
    if not re.fullmatch(r"[A-Za-z0-9-]{1,64}", raw):
        raise Invalid(f"{toml(raw)}: expected 1 to 64 letters, digits and hyphens")
    if _OTHER_MEANING.fullmatch(raw):
        raise Invalid(f"{raw} has another meaning in HTTP; choose a header such as X-Request-ID")
    return raw


def read_one_address(raw: Any, base: str) -> str:
    """One canonical address; `systemd` may stand for several sockets."""
    return _read_address(raw, base)


def read_bind_or_none(raw: Any, base: str) -> tuple[str, ...]:
    """Addresses as in `read_bind`, or an empty list."""
    return () if raw in ([], ()) else read_bind(raw, base)


def read_bind(raw: Any, base: str) -> tuple[str, ...]:
    """Canonical addresses; a single one may be a string. Raises Invalid with every bad one."""
    texts = [raw] if isinstance(raw, str | int) else raw
    if not isinstance(texts, list | tuple) or not texts:
        raise Mismatch
    addresses: list[str] = []
    reasons: list[str] = []
    for text in texts:
        try:
            addresses.append(_read_address(text, base))
        except Invalid as problem:
            reasons += problem.reasons
    repeated = [item for item in dict.fromkeys(addresses) if addresses.count(item) > 1]
    reasons += [f"{item} is given more than once" for item in repeated]
    if reasons:
        raise Invalid(*reasons)
    return tuple(addresses)


def _read_address(raw: Any, base: str) -> str:
    if not isinstance(raw, str):
        raise Invalid(f'{_excerpt(raw)}: expected a string such as "127.0.0.1:8000"')
    found = _parse_address(raw)
    if found.kind == "unix":
        found = _parse_address(f"unix:{read_path(found.path, base)}")
    return str(found)


def _parse_address(text: str) -> address.Address:
    try:
        return address.parse(text)
    except ValueError as reason:
        raise Invalid(f"{toml(text)}: {reason}") from None


def read_count(raw: Any, base: str) -> int:
    if raw == "auto":
        return AUTO
    if type(raw) is not int or raw < 1:
        raise Mismatch
    if raw > WORKERS_MAX:
        raise Invalid(f"expected at most {WORKERS_MAX} workers, got {_excerpt(raw)}")
    return raw


def read_size(raw: Any, base: str) -> Any:
    """Bytes. KiB, MiB and GiB are powers of 1024; KB, MB and GB of 1000."""
    if isinstance(raw, str) and (match := _SIZE.fullmatch(raw)):
        return int(match[1]) * _UNITS[match[2].upper()]
    return raw


def show_size(value: int) -> str:
    for unit, name in ((GIB, "GiB"), (MIB, "MiB"), (KIB, "KiB")):
        if value and value % unit == 0:
            return f'"{value // unit}{name}"'
    return str(value)


def read_mode(raw: Any, base: str) -> Any:
    if isinstance(raw, str) and _MODE.fullmatch(raw):
        return int(raw, 8)
    return raw


def show_mode(value: int) -> str:
    return f'"{value:04o}"'


def read_account(raw: Any, base: str) -> str:
    if type(raw) is int and raw >= 0:
        raw = str(raw)
    text = _text(raw)
    if " " in text or ":" in text or "/" in text:
        raise Mismatch
    return text


def read_owner(raw: Any, base: str) -> str:
    text = _text(raw)
    _, colon, group = text.partition(":")
    if " " in text or ":" in group or (colon and not group):
        raise Mismatch
    return text


def read_env(raw: Any, base: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise Mismatch
    reasons = [reason for name, value in raw.items() if (reason := _env_problem(name, value))]
    if reasons:
        raise Invalid(*reasons)
    return raw


def _env_problem(name: str, value: Any) -> str | None:
    """Why putenv(3) would refuse it. The value is not in the text: it may be a secret."""
    if not name or "=" in name or "\0" in name:
        return f"{toml(name)} is not a name for an environment variable"
    if not isinstance(value, str):
        return f"{toml(name)}: expected a string; put the value in quotes"
    return f"{toml(name)}: the value contains a NUL character" if "\0" in value else None


def show_env(value: Mapping[str, str]) -> str:
    """The names without the values, which may be secrets."""
    return toml(dict.fromkeys(value, "***"))


def read_hooks(raw: Any, base: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise Mismatch
    reasons = [reason for name, target in raw.items() if (reason := _hook_problem(name, target))]
    if reasons:
        raise Invalid(*reasons)
    return raw


def _hook_problem(name: str, target: Any) -> str | None:
    if name not in HOOKS:
        near = nearest(name, HOOKS)
        hint = f"did you mean {near[0]}?" if near else f"the hooks are {', '.join(HOOKS)}"
        return f"unknown hook {toml(name)}; {hint}"
    if isinstance(target, str) and not target.endswith("()"):
        try:
            read_app(target, "")
            return None
        except Invalid as problem:
            return f"{name}: {problem}"
        except Mismatch:
            pass
    return f'{name}: expected "module:function", got {_excerpt(target)}'


def read_mounts(raw: Any, base: str) -> dict[str, str]:
    if not isinstance(raw, dict):
        raise Mismatch
    mounts: dict[str, str] = {}
    reasons: list[str] = []
    for prefix, path in raw.items():
        try:
            mounts[_mount_prefix(prefix)] = read_path(path, base)
        except Mismatch:
            reasons.append(f"{toml(prefix)}: expected a path, got {_excerpt(path)}")
        except Invalid as problem:
            reasons += [f"{toml(prefix)}: {reason}" for reason in problem.reasons]
    if reasons:
        raise Invalid(*reasons)
    return mounts


def _mount_prefix(prefix: str) -> str:
    if prefix == "/":
        raise Invalid("hides the whole application; to serve a directory as a site use static.root")
    if not (prefix.startswith("/") and prefix.endswith("/")):
        raise Invalid('must begin and end with "/"')
    return prefix


def read_tls_version(raw: Any, base: str) -> Any:
    return str(raw) if type(raw) is float else raw


def read_networks(raw: Any, base: str) -> tuple[str, ...]:
    """Canonical addresses and networks, and "unix". Raises Invalid with every bad one."""
    texts = [raw] if isinstance(raw, str) else raw
    if not isinstance(texts, list | tuple):
        raise Mismatch
    networks: list[str] = []
    reasons: list[str] = []
    for text in texts:
        try:
            networks.append(_read_network(text))
        except ValueError as reason:
            reasons.append(str(reason))
    if reasons:
        raise Invalid(*reasons)
    return tuple(networks)


def _read_network(raw: Any) -> str:
    if raw == "unix":
        return "unix"
    if not isinstance(raw, str):
        raise Invalid(f"{_excerpt(raw)}: expected a string")
    try:
        return str(ip_network(raw) if "/" in raw else ip_address(raw))
    except ValueError as reason:
        raise Invalid(f"{_excerpt(raw)}: {_network_problem(raw, reason)}") from None


def _network_problem(raw: str, reason: ValueError) -> str:
    if "host bits" in str(reason):
        return f'has bits beyond its mask; did you mean "{ip_network(raw, strict=False)}"?'
    if raw == "*":
        return (
            'write "0.0.0.0/0" and "::/0" for all addresses, of which each can then forge its own'
        )
    return 'expected an IP address, a network such as "10.0.0.0/8", or "unix"'


def read_forwarding_headers(raw: Any, base: str) -> tuple[str, ...]:
    """A subset of FORWARDING_HEADERS, in the order and spelling of that tuple."""
    if not isinstance(raw, list | tuple):
        raise Mismatch
    known = {name.lower(): name for name in FORWARDING_HEADERS}
    given = {str(name).lower() for name in raw}
    reasons = [
        f"{_excerpt(name)} is not a header in which a proxy describes its client; these headers are"
        f" {', '.join(FORWARDING_HEADERS)}"
        for name in raw
        if str(name).lower() not in known
    ]
    if reasons:
        raise Invalid(*reasons)
    return tuple(name for lower, name in known.items() if lower in given)


_SNI_NAME = re.compile(r"(\*\.)?([a-z0-9_]([a-z0-9_-]*[a-z0-9_])?\.)*[a-z0-9]([a-z0-9-]*[a-z0-9])?")


def read_sni(raw: Any, base: str) -> dict[str, dict[str, str]]:
    if not isinstance(raw, dict):
        raise Mismatch
    pairs: dict[str, dict[str, str]] = {}
    reasons: list[str] = []
    for name, pair in raw.items():
        try:
            if not _SNI_NAME.fullmatch(name.lower()):
                raise Invalid('expected a host name, or a wildcard such as "*.example.org"')
            pairs[name.lower()] = _read_pair(pair, base)
        except Invalid as problem:
            reasons += [f"{toml(name)}: {reason}" for reason in problem.reasons]
    if reasons:
        raise Invalid(*reasons)
    return pairs


def _read_pair(raw: Any, base: str) -> dict[str, str]:
    expected = 'expected { certificate = "PATH" }, with key = "PATH" if the key is in another file'
    if not isinstance(raw, dict) or "certificate" not in raw or raw.keys() - {"certificate", "key"}:
        raise Invalid(f"{expected}, got {_excerpt(raw)}")
    try:
        return {key: read_path(raw[key], base) for key in ("certificate", "key") if key in raw}
    except Mismatch:
        raise Invalid(f"{expected}, got {_excerpt(raw)}") from None
