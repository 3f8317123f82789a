"""Shows which modules were there before the application was imported, and its own metrics."""

import sys

PRESENT = sorted(sys.modules)

import json  # noqa: E402
import os  # noqa: E402
import tempfile  # noqa: E402
from collections.abc import Iterable  # noqa: E402
from wsgiref.types import StartResponse, WSGIEnvironment  # noqa: E402

os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.gettempdir()

from prometheus_client import values  # noqa: E402

MULTIPROCESS = "Multi" in values.ValueClass.__qualname__
"""Whether the metrics of prometheus_client are those of several processes."""


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Both, as JSON."""
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps([PRESENT, MULTIPROCESS]).encode()]
