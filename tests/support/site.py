"""A site that changes while it is served: an application and a configuration in a directory."""

import json
from pathlib import Path
from typing import Any

from tests.support.changing_app import copy_app, rewrite, set_version
from tests.support.load import Gate
from tests.support.server import Server, Start

# Python compiles a module anew if the second or the size of its source has changed (PEP 3147);
# tests change it more often.
FRESH = {"PYTHONDONTWRITEBYTECODE": "1"}


class Site:
    """`tests.apps.version_app` in a directory of its own, with a configuration of three workers.

    The application answers "one", until it is told another word.
    """

    def __init__(self, place: Path, **workers: Any) -> None:
        self.place = place
        self.app = copy_app(place)
        self.config = place / "site.toml"
        self.server: dict[str, Any] = {"app": "changing:app", "bind": ["127.0.0.1:0"]}
        self.workers: dict[str, Any] = {"count": 3, **workers}
        self.configure()

    def start(self, start: Start, **options: Any) -> Server:
        """Its server, once all workers are ready."""
        options["env"] = {**FRESH, **options.get("env", {})}
        server = start(str(self.config), bind=(), **options)
        return server.wait_ready(self.workers["count"])

    def say(self, word: str, first: str = "", last: str = "") -> None:
        """The application answers another word; `first` and `last`: code around its own."""
        set_version(self.app, word, f"{first}\n", f"\n{last}")

    def configure(self, **tables: dict[str, Any]) -> None:
        """Writes the configuration, with other keys or other values in its tables."""
        base = {"server": self.server, "workers": self.workers}
        lines = []
        for name in {**base, **tables}:
            lines.append(f"[{name}]")
            table = {**base.get(name, {}), **tables.get(name, {})}
            # JSON is TOML as far as strings, numbers, truth values and lists of them go.
            lines += [f"{key} = {json.dumps(value)}" for key, value in table.items()]
        rewrite(self.config, "\n".join(lines))


def gated(gate: Gate) -> str:
    """Code that makes an import wait until the gate is opened."""
    path = gate.target.partition("=")[2]
    return f"open({path!r}).read()"


SERVING = ("idle", "reading", "busy", "writing")
"""States of a worker that accepts connections."""


def pids(server: Server) -> dict[int, int]:
    """The workers that serve: pid by slot."""
    return {
        worker["slot"]: worker["pid"]
        for worker in server.status()["workers"]
        if worker["state"] in SERVING
    }
