"""An application that tells what it was called with: two servers that serve it must agree."""

import hashlib
import json
import os
from collections.abc import Iterable
from time import sleep
from wsgiref.types import StartResponse, WSGIEnvironment

_KEPT = ("REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "SERVER_PROTOCOL")
_PIECE = 1 << 20


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """With ?sleep=SECONDS it takes its time first."""
    name, _, seconds = environ["QUERY_STRING"].partition("=")
    if name == "sleep":
        sleep(float(seconds))
    digest, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(_PIECE):
        digest.update(piece)
        size += len(piece)
    seen = {key: environ.get(key) for key in _KEPT}
    seen |= {key: value for key, value in environ.items() if key.startswith("HTTP_X_")}
    seen |= {"scheme": environ["wsgi.url_scheme"], "size": size, "digest": digest.hexdigest()}
    seen |= {"directory": os.path.basename(os.getcwd()), "variable": os.environ.get("MIRRORED")}
    body = json.dumps(seen, sort_keys=True).encode()
    start_response(
        "200 OK", [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    )
    return [body]
