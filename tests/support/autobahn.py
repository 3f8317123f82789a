"""The cases of the Autobahn test suite, run by kosoku against a server."""

import json
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.server import Server


class Verdicts(NamedTuple):
    """What kosoku has found; "NON-STRICT" is allowed by the RFC, and counts as passed."""

    cases: dict[str, Any]

    @property
    def failed(self) -> list[str]:
        passed = {"OK", "NON-STRICT", "INFORMATIONAL"}
        return [
            name
            for name, found in self.cases.items()
            if found["behavior"] not in passed or found["behaviorClose"] not in passed
        ]

    def __str__(self) -> str:
        counts = Counter(found["behavior"] for found in self.cases.values())
        return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def run_cases(server: Server, path: str, place: Path, *cases: str, seconds: float) -> Verdicts:
    """Runs cases such as "1.*"; the reports are written below `place`."""
    program = Path(sys.executable).with_name("kosoku")
    command = [str(program), "-o", str(place), "-p", "2"]
    command += [part for case in cases for part in ("-i", case)]
    subprocess.run(
        [*command, f"ws://127.0.0.1:{server.port}{path}"],
        check=False,
        capture_output=True,
        timeout=seconds,
    )
    (agent,) = json.loads((place / "index.json").read_text()).values()
    return Verdicts(agent)
