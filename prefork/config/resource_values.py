"""Readers of the values for resources: limits, CPUs, a share of the memory."""

import os
import re
import resource
from typing import Any

from prefork.config import memory
from prefork.config.values import Invalid, Mismatch, nearest, read_size, toml

LIMITS = {
    name.removeprefix("RLIMIT_").lower(): number
    for name, number in vars(resource).items()
    if name.startswith("RLIMIT_") and name != "RLIMIT_OFILE"  # BSD's name for NOFILE
}
"""The resources that setrlimit(2) knows, by their names in limits.conf(5)."""

UNLIMITED = resource.RLIM_INFINITY

_CPU_RANGE = re.compile(r"(\d{1,5})(?:-(\d{1,5}))?", re.ASCII)
_SHARE = re.compile(r"(\d{1,3}) ?%", re.ASCII)


def read_limits(raw: Any, base: str) -> dict[str, int]:
    """A table of numbers or "unlimited"; each is both the soft and the hard limit."""
    if not isinstance(raw, dict):
        raise Mismatch
    limits: dict[str, int] = {}
    reasons: list[str] = []
    for name, value in raw.items():
        if name not in LIMITS:
            near = nearest(name, LIMITS)
            hint = (
                f"did you mean {near[0]}?"
                if near
                else f"the limits are {', '.join(sorted(LIMITS))}"
            )
            reasons.append(f"unknown limit {toml(name)}; {hint}")
        elif value == "unlimited":
            limits[name] = UNLIMITED
        elif type(value) is int and 0 <= value < 2**63:
            limits[name] = value
        else:
            reasons.append(f'{name}: expected an integer of at least 0 or "unlimited"')
    if reasons:
        raise Invalid(*reasons)
    return limits


def show_limits(value: dict[str, int]) -> str:
    return toml({name: "unlimited" if n == UNLIMITED else n for name, n in value.items()})


def read_affinity(raw: Any, base: str) -> tuple[tuple[int, ...], ...]:
    """A list of CPU sets; "auto" gives one set for each CPU that this process may use."""
    if raw == "auto":
        return tuple((cpu,) for cpu in sorted(os.sched_getaffinity(0)))
    if not isinstance(raw, list | tuple):
        raise Mismatch
    return tuple(_cpu_set(item) for item in raw)


def _cpu_set(raw: Any) -> tuple[int, ...]:
    """The numbers of 3, "3", "0-3" or "0-3,8"."""
    cpus: set[int] = set()
    for part in str(raw).split(",") if type(raw) in (int, str) else [""]:
        found = _CPU_RANGE.fullmatch(part.strip())
        if found is None:
            raise Invalid(f'{toml(raw)}: expected the number of a CPU, or ranges such as "0-3,8"')
        first, last = int(found[1]), int(found[2] or found[1])
        if last < first:
            raise Invalid(
                f"{toml(raw)}: the range ends before it begins ({last} is less than {first})"
            )
        cpus.update(range(first, last + 1))
    return tuple(sorted(cpus))


def show_affinity(value: tuple[tuple[int, ...], ...]) -> str:
    return toml([cpus[0] if len(cpus) == 1 else ",".join(map(str, cpus)) for cpus in value])


def read_memory(raw: Any, base: str) -> Any:
    """A size, or a share ("25%") of the memory of the control group, or of the machine."""
    if isinstance(raw, str) and (match := _SHARE.fullmatch(raw)):
        if not 1 <= int(match[1]) <= 100:
            raise Invalid(f"expected a share from 1% to 100%, got {toml(raw)}")
        return memory.available() * int(match[1]) // 100
    return read_size(raw, base)
