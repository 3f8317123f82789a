"""It logs by request, and empties what log files it can reach."""

import os
import stat
import sys
from collections.abc import Iterable
from urllib.parse import parse_qsl
from wsgiref.types import StartResponse, WSGIEnvironment


def empty_files() -> int:
    """Truncates each regular file that is open for writing; returns their number."""
    emptied = 0
    for name in os.listdir("/proc/self/fd"):
        try:
            if stat.S_ISREG(os.fstat(int(name)).st_mode):
                os.ftruncate(int(name), 0)
                emptied += "memfd:" not in os.readlink(f"/proc/self/fd/{name}")
        except OSError:
            continue
    return emptied


IMPORTED = empty_files()


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    query = dict(parse_qsl(environ["QUERY_STRING"]))
    if "say" in query:
        print(query["say"], file=sys.stderr, flush=True)
    if "fail" in query:
        raise RuntimeError(query["fail"] * 1000)
    answer = f"{IMPORTED} {empty_files() if 'empty' in query else ''}"
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [answer.encode()]
