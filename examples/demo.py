"""A small application that shows the server at work; plain WSGI, standard library only.

    prefork serve examples.demo:app --workers 4

Each page says which worker made it.  It runs under any WSGI server; the slot and the generation
are known where the server puts them into the environ, as prefork does.
"""

import hashlib
import html
import os
import platform
import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from string import Template
from urllib.parse import parse_qs
from wsgiref.types import StartResponse, WSGIEnvironment

LONGEST = 60.0
"""Seconds that a visitor may keep a worker busy."""

PIECE = 64 * 1024

born = time.monotonic()
counting = threading.Lock()
answered = 0


class Refusal(Exception):
    """An answer that is not a page: its status line, why, and headers of its own."""

    def __init__(self, status: str, why: str, *headers: tuple[str, str]) -> None:
        super().__init__(why)
        self.status, self.why, self.headers = status, why, headers


PAGE = Template("""<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<style>
  :root { color-scheme: light dark;
          --ink: light-dark(#1d2430, #e4e8ee); --soft: light-dark(#5d6878, #98a3b3);
          --paper: light-dark(#f6f4ef, #14181f); --card: light-dark(#fff, #1d232d);
          --line: light-dark(#e2ddd2, #2e3744); --accent: light-dark(#a5402d, #f0937d) }
  body { margin: 0 auto; max-width: 44rem; padding: 2.5rem 1.25rem; color: var(--ink);
         background: var(--paper); font: 1rem/1.6 system-ui, sans-serif }
  a { color: var(--accent) }
  h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 1rem }
  h2 { font-size: 1.05rem; margin: 2rem 0 .5rem }
  dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(9rem, 1fr)); gap: .6rem }
  dl div { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
           padding: .55rem .8rem }
  dt { color: var(--soft); font-size: .8rem }
  dd { margin: 0; font-size: 1.15rem; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
  code { font-family: ui-monospace, monospace; font-size: .9em }
  pre { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
        padding: .8rem 1rem; overflow-x: auto }
  button { font: inherit; color: var(--paper); background: var(--accent); border: 0;
           border-radius: .5rem; padding: .45rem 1.1rem; cursor: pointer }
  li { margin: .3rem 0 }
  footer { margin-top: 2.5rem; color: var(--soft); font-size: .85rem }
</style>
<h1>$title</h1>
$content
<footer>$footer</footer>
</html>
""")

INDEX = """
<dl>{facts}</dl>
<p>Load the page a few times: another worker may answer, and each counts for itself.</p>
<h2>Watch it work</h2>
<ul>
  <li><a href="/slow?seconds=3">A slow page</a>: keeps this worker busy for three seconds;
      open this page in another tab meanwhile, and another worker answers.</li>
  <li><a href="/crash">A crash</a>: kill the worker that answers, and see it replaced.</li>
  <li><a href="/error">An exception</a>: a plain 500, the traceback is in the server's log.</li>
  <li><a href="/stream">A stream</a>: a line every half second.</li>
  <li><a href="/upload">An upload</a>: answered with its size and SHA-256.</li>
  <li><a href="/echo?a=1">The environ</a> of the request, as text.</li>
  <li><a href="/nowhere">A page that is not there.</a></li>
</ul>
"""

CRASH = """
<p>The button makes the worker that gets it send <code>SIGKILL</code> to itself. The browser will
say that the connection was reset: what a killed worker held is lost, and nothing else.</p>
<p>Then <a href="/">go back</a>: the slot has a worker again, with another pid, and its count of
requests begins anew. The log on the terminal tells of the death and of the birth.</p>
<form method="post" action="/crash"><button>Kill a worker</button></form>
"""

UPLOAD = """
<p>Choose a file. The browser sends it as a form, so the size and the digest are those of the
form's body; to get the file's own:</p>
<pre>curl -T FILE {url}</pre>
<form method="post" action="/upload" enctype="multipart/form-data">
<input type="file" name="file" required> <button>Send</button></form>
"""


def who(environ: WSGIEnvironment) -> dict[str, object]:
    """Which worker this is; what the server does not tell is shown as a dash."""
    return {
        "slot": environ.get("prefork.slot", "–"),
        "pid": os.getpid(),
        "generation": environ.get("prefork.generation", "–"),
        "requests answered": answered,
        "thread": threading.current_thread().name,
        "uptime": f"{time.monotonic() - born:.1f} s",
        "Python": platform.python_version(),
    }


def page(environ: WSGIEnvironment, title: str, content: str) -> bytes:
    footer = " · ".join(f"{name} {value}" for name, value in who(environ).items())
    return PAGE.substitute(
        title=html.escape(title), content=content, footer=html.escape(footer)
    ).encode()


def answer(start_response: StartResponse, body: bytes, kind: str = "text/html") -> list[bytes]:
    headers = [("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response("200 OK", headers)
    return [body]


def seconds(environ: WSGIEnvironment, default: float) -> float:
    """The `seconds` of the query, 0 to LONGEST."""
    text = parse_qs(environ.get("QUERY_STRING", "")).get("seconds", [str(default)])[0]
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= LONGEST:  # also refuses NaN
        raise Refusal("400 Bad Request", f"seconds is a number from 0 to {LONGEST:.0f}.")
    return value


def index(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    facts = "".join(
        f"<div><dt>{html.escape(name)}</dt><dd>{html.escape(str(value))}</dd></div>"
        for name, value in who(environ).items()
    )
    return answer(start_response, page(environ, "A worker answers", INDEX.format(facts=facts)))


def slow(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    length = seconds(environ, 3)
    time.sleep(length)
    content = f'<p>This took {length:g} seconds. <a href="/">Back</a></p>'
    return answer(start_response, page(environ, "A slow page", content))


def crash(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] == "POST":  # not on GET: browsers and crawlers follow links
        os.kill(os.getpid(), signal.SIGKILL)
    return answer(start_response, page(environ, "Kill a worker", CRASH))


def error(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    raise RuntimeError("the exception that /error is there to raise")


def stream(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    length = seconds(environ, 5)
    start_response("200 OK", [("Content-Type", "text/plain; charset=utf-8")])
    return ticks(length)


def ticks(length: float) -> Iterator[bytes]:
    started = time.monotonic()
    yield f"worker {os.getpid()} counts for {length:g} seconds\n".encode()
    while (left := length - (time.monotonic() - started)) > 0:
        time.sleep(min(0.5, left))
        yield f"{time.monotonic() - started:.1f}\n".encode()
    yield b"done\n"


def upload(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    if environ["REQUEST_METHOD"] not in ("POST", "PUT"):
        host = environ.get("HTTP_HOST", "127.0.0.1:8000")
        url = html.escape(f"{environ['wsgi.url_scheme']}://{host}/upload")
        return answer(start_response, page(environ, "An upload", UPLOAD.format(url=url)))
    digest, size = hashlib.sha256(), 0
    while piece := environ["wsgi.input"].read(PIECE):
        digest.update(piece)
        size += len(piece)
    text = f"{size} bytes\nsha256 {digest.hexdigest()}\n"
    return answer(start_response, text.encode(), "text/plain")


def echo(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    text = "".join(f"{name} = {value!r}\n" for name, value in sorted(environ.items()))
    return answer(start_response, text.encode(errors="backslashreplace"), "text/plain")


Page = Callable[[WSGIEnvironment, StartResponse], Iterable[bytes]]

PAGES: dict[str, tuple[Page, str]] = {
    "/": (index, "GET, HEAD"),
    "/slow": (slow, "GET, HEAD"),
    "/crash": (crash, "GET, HEAD, POST"),
    "/error": (error, "GET, HEAD"),
    "/stream": (stream, "GET, HEAD"),
    "/upload": (upload, "GET, HEAD, POST, PUT"),
    "/echo": (echo, "GET, HEAD, POST, PUT"),
}


def find(environ: WSGIEnvironment) -> Page:
    if environ["PATH_INFO"] not in PAGES:
        raise Refusal("404 Not Found", "There is nothing at this address.")
    found, methods = PAGES[environ["PATH_INFO"]]
    if environ["REQUEST_METHOD"] not in methods.split(", "):
        raise Refusal("405 Method Not Allowed", f"This page takes {methods}.", ("Allow", methods))
    return found


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """The application."""
    global answered
    with counting:
        answered += 1
    try:
        return find(environ)(environ, start_response)
    except Refusal as refusal:
        content = f'<p>{html.escape(refusal.why)} <a href="/">Back</a></p>'
        body = page(environ, refusal.status, content)
        headers = [("Content-Type", "text/html; charset=utf-8"), *refusal.headers]
        start_response(refusal.status, [*headers, ("Content-Length", str(len(body)))])
        return [body]
