"""Readers of foreign bytes, beside that of requests: inputs that grow where they reach new code.

    python -m tests.fuzz.guided --seconds 60 --seed 1 [--keep] [TARGET ...]

What each has to hold is in tests/fuzz/readers.py.  An input that reaches a line that no other has
reached is changed further; with --keep it is written to tests/fuzz/corpus/TARGET, from which later
runs begin.  What fails is printed, and kept; the exit status is 1 then.
"""

import argparse
import hashlib
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from time import monotonic
from types import FrameType
from typing import Any

from tests.fuzz.readers import TARGETS, Target

CORPUS = Path(__file__).with_name("corpus")
_LONGEST = 4096
"""Bytes of an input: longer ones take long, and reach nothing else."""

_SIGNS = b'\0\t\n\r "%,-./0:;=@[\\]_az{}\x7f\x80\xff'
_MOST_FAILURES = 20
_PACKAGE = str(Path(__file__).resolve().parents[2] / "prefork")

Line = tuple[str, int, int]
"""File, and the lines before and after a step."""


@contextmanager
def steps_into(found: set[Line]) -> Iterator[None]:
    """Adds the steps from line to line that are taken in our package."""

    def enter(frame: FrameType, event: str, argument: Any) -> Callable[..., Any] | None:
        file = frame.f_code.co_filename
        if not file.startswith(_PACKAGE):
            return None
        last = 0

        def step(frame: FrameType, event: str, argument: Any) -> Callable[..., Any]:
            nonlocal last
            if event == "line":
                found.add((file, last, frame.f_lineno))
                last = frame.f_lineno
            return step

        return step

    before = sys.gettrace()
    sys.settrace(enter)
    try:
        yield
    finally:
        sys.settrace(before)


def changed(rng: Random, data: bytes, others: list[bytes]) -> bytes:
    """An input with one to four changes, by bytes or with pieces of others."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randint(0, len(out))
        kind = rng.random()
        if kind < 0.2:
            out[at : at + 1] = rng.randbytes(1)
        elif kind < 0.3 and at < len(out):
            out[at] ^= 1 << rng.randrange(8)
        elif kind < 0.45:
            del out[at : at + rng.choice((1, 1, 3, 9))]
        elif kind < 0.6:
            start = rng.randint(0, len(out))
            out[at:at] = out[start : start + rng.randint(1, 20)] * rng.choice((1, 1, 1, 40))
        elif kind < 0.75:
            out[at:at] = rng.choice(b'\0\t\n\r "%,-./0:;=@[\\]_az{}\x7f\x80\xff').to_bytes(1, "big")
        elif kind < 0.85:
            out[at:at] = rng.choice((b"0", b"-1", b"65536", b"4294967296", b"1e400", b"NaN"))
        else:
            other = rng.choice(others)
            start = rng.randint(0, len(other))
            out[at:] = other[start:]
    return bytes(out[:_LONGEST])


class Search:
    """The search of one target."""

    def __init__(self, name: str, target: Target, seed: int) -> None:
        self.name = name
        self._check = target.check
        self.rng = Random(f"{seed} {name}")
        self.inputs: list[bytes] = []
        """Those that reached something new."""
        self.tried = 0
        self.failures: list[str] = []
        self.lines: set[Line] = set()
        self.given = [*target.seeds, *(each.read_bytes() for each in kept(name))]
        for data in self.given:
            self.try_(data)
        if not self.inputs:
            self.inputs.append(b"")

    def try_(self, data: bytes) -> None:
        self.tried += 1
        reached: set[Line] = set()
        try:
            with steps_into(reached):
                self._check(data)
        except Exception:
            trace = traceback.format_exc(limit=-3)
            self.failures.append(f"{self.name}: {data!r}\n{trace}")
            self.keep(data)
        if not reached <= self.lines:
            self.lines |= reached
            self.inputs.append(data)

    def go_on(self, until: float) -> None:
        while monotonic() < until and len(self.failures) < _MOST_FAILURES:
            self.try_(changed(self.rng, self.rng.choice(self.inputs), self.inputs))

    def keep(self, data: bytes) -> None:
        place = CORPUS / self.name
        place.mkdir(parents=True, exist_ok=True)
        (place / hashlib.sha256(data).hexdigest()[:16]).write_bytes(data)


def kept(name: str) -> list[Path]:
    """The corpus of a target."""
    return sorted((CORPUS / name).glob("*"))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="for all targets together")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--keep", action="store_true", help="what reaches new lines")
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    given = parser.parse_args(arguments)
    names = given.targets or list(TARGETS)
    failures = []
    for name in names:
        search = Search(name, TARGETS[name], given.seed)
        search.go_on(monotonic() + given.seconds / len(names))
        print(f"{name}: {search.tried} inputs, {len(search.lines)} steps", flush=True)
        failures += search.failures
        if given.keep:
            for data in search.inputs:
                if data not in search.given:
                    search.keep(data)
    print("\n".join(failures) or "nothing failed")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
