"""A connection made at import, bound to the thread that made it (check_same_thread is true).

sqlite3 raises ProgrammingError in any other thread; so each 200 proves that the application is
called from the thread which imported it.  The database is in memory: a worker counts for itself.
"""

import json
import os
import sqlite3
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

db = sqlite3.connect(":memory:", isolation_level=None)
db.execute("CREATE TABLE visit (path TEXT NOT NULL)")


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Inserts a row and tells how many there are in this worker."""
    db.execute("INSERT INTO visit VALUES (?)", (environ["PATH_INFO"],))
    (visits,) = db.execute("SELECT count(*) FROM visit").fetchone()
    body = json.dumps({"pid": os.getpid(), "visits": visits}).encode()
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]
