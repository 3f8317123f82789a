"""A Flask application: pages, a form, a session, an upload, a stream, a file.

prefork serve examples.flask_app:app --workers 4
"""

import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path

from flask import (
    Flask,
    Response,
    make_response,
    redirect,
    render_template_string,
    request,
    send_file,
    session,
    url_for,
)
from werkzeug.wrappers import Response as Answer

HERE = Path(__file__).resolve().parent
PIECE = 64 * 1024

app = Flask(__name__)
# Every worker has to know the same key: a session that one has signed, another reads.
app.secret_key = os.environ.get("SECRET_KEY", "for this example only")

PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>Flask on prefork</title>
<h1>Hello, {{ name }}</h1>
<p>Worker {{ pid }} answers; you were here {{ visits }} times.</p>
<form method="post" action="{{ url_for('name') }}">
<label>Your name <input name="name" required></label> <button>Save</button></form>
<form method="post" action="{{ url_for('upload') }}" enctype="multipart/form-data">
<label>A file <input type="file" name="file" required></label> <button>Send</button></form>
<p><a href="{{ url_for('stream') }}">A stream</a>, <a href="{{ url_for('file') }}">a file</a>,
<a href="{{ url_for('cookie') }}">a cookie</a></p></html>
"""


@app.get("/")
def index() -> str:
    session["visits"] = session.get("visits", 0) + 1
    name = session.get("name", "you")
    return render_template_string(PAGE, name=name, pid=os.getpid(), visits=session["visits"])


@app.post("/name")
def name() -> Answer:
    """The form; a missing name is Flask's own 400."""
    session["name"] = request.form["name"]
    return redirect(url_for("index"), 303)


@app.post("/upload")
def upload() -> dict[str, object]:
    """Name, size and SHA-256 of the uploaded file."""
    sent = request.files["file"]
    digest, size = hashlib.sha256(), 0
    while piece := sent.stream.read(PIECE):
        digest.update(piece)
        size += len(piece)
    return {"name": sent.filename, "size": size, "sha256": digest.hexdigest()}


@app.get("/stream")
def stream() -> Response:
    """?n= lines (at most 1,000) with ?delay= seconds (at most 1) between them."""
    n = min(request.args.get("n", 5, type=int), 1000)
    delay = min(max(request.args.get("delay", 0.5, type=float), 0.0), 1.0)

    def lines() -> Iterator[str]:
        for number in range(n):
            if number:
                time.sleep(delay)
            yield f"line {number}\n"

    return Response(lines(), mimetype="text/plain")


@app.get("/file")
def file() -> Response:
    """The README beside this file; conditional requests and ranges are Flask's."""
    return send_file(HERE / "README.md", mimetype="text/plain", conditional=True)


@app.get("/cookie")
def cookie() -> Response:
    """Counts in a plain cookie."""
    count = request.cookies.get("count", 0, type=int) + 1
    response = make_response(f"{count}\n")
    response.mimetype = "text/plain"
    response.set_cookie("count", str(count), httponly=True, samesite="Lax")
    return response
