"""All sections of the Autobahn test suite that take long: large messages and compression.

    python -m tests.faults.autobahn [SECTION ...]

Prints the verdicts by section; the exit status is 1 if a case has failed.
"""

import sys
import tempfile
from pathlib import Path
from time import monotonic

from tests.support.autobahn import run_cases
from tests.support.server import servers

SECTIONS = ("9", "12", "13")


def main() -> int:
    sections = sys.argv[1:] or list(SECTIONS)
    failed: list[str] = []
    with tempfile.TemporaryDirectory() as place:
        for start in servers(Path(place)):
            settings = ("--set", "server.protocol=asgi", "--set", "websocket.max_message=32MiB")
            server = start("tests.apps.asgi_websockets:app", *settings)
            server.wait("worker ready")
            for section in sections:
                began = monotonic()
                reports = Path(place) / section
                found = run_cases(server, "/echo", reports, f"{section}.*", seconds=7200)
                print(f"section {section}: {found} in {monotonic() - began:.0f} s", flush=True)
                failed += found.failed
    print(f"failed: {', '.join(failed)}" if failed else "none failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
