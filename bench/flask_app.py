"""The least that a Flask application answers."""

from flask import Flask, Response

from bench.hello import BODY

app = Flask(__name__)


@app.get("/hello")
def hello() -> Response:
    return Response(BODY, mimetype="text/plain")
