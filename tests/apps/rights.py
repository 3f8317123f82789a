"""What this process may do: as it was imported, and now."""

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from wsgiref.types import StartResponse, WSGIEnvironment


def rights() -> dict[str, Any]:
    lines = Path("/proc/thread-self/status").read_text().splitlines()
    status = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return {
        "users": os.getresuid(),
        "groups": (*os.getresgid(), *os.getgroups()),
        "capabilities": [int(status[name], 16) for name in ("CapPrm", "CapEff", "CapAmb")],
        "no_new_privs": status["NoNewPrivs"] == "1",
        "umask": int(status["Umask"], 8),
        "home": os.environ.get("HOME"),
        "name": os.environ.get("USER"),
    }


IMPORTED = rights()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    answer = {"imported": IMPORTED, "now": rights()}
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(answer).encode()]
