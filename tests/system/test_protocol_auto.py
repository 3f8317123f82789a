"""An application is recognized as one of WSGI or of ASGI if the file does not say which it is."""

import signal
from pathlib import Path

import pytest

from tests.support.commands import run_prefork
from tests.support.server import Start

WSGI = (
    "def app(environ, start_response):\n"
    "    start_response('200 OK', [('Content-Length', '4')])\n"
    "    return [b'wsgi']\n"
)
ASGI = (
    "async def app(scope, receive, send):\n"
    "    if scope['type'] == 'lifespan':\n"
    "        raise NotImplementedError\n"
    "    headers = [(b'content-length', b'4')]\n"
    "    await send({'type': 'http.response.start', 'status': 200, 'headers': headers})\n"
    "    await send({'type': 'http.response.body', 'body': b'asgi'})\n"
)
FACTORY = (
    "calls = []\n"
    "def make():\n"
    "    calls.append(1)\n"
    "    assert len(calls) == 1\n"
    "    return app\n"
    f"{ASGI}"
)
STARLETTE = (
    "from starlette.applications import Starlette\n"
    "from starlette.responses import PlainTextResponse\n"
    "from starlette.routing import Route\n"
    "app = Starlette(routes=[Route('/', lambda request: PlainTextResponse('asgi'))])\n"
)


def site(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "kinds.py").write_text(text)
    return {"PYTHONPATH": str(tmp_path), "PYTHONDONTWRITEBYTECODE": "1"}


@pytest.mark.parametrize("preload", ["true", "false"])
@pytest.mark.parametrize(
    ("text", "target", "body"),
    [
        (WSGI, "kinds", b"wsgi"),
        (ASGI, "kinds", b"asgi"),
        (FACTORY, "kinds:make()", b"asgi"),
    ],
)
def test_it_is_served(
    start: Start, tmp_path: Path, preload: str, text: str, target: str, body: bytes
) -> None:
    server = start(
        *(target, "--workers", "2", "--set", f"workers.preload={preload}"),
        env=site(tmp_path, text),
    ).wait_ready(2)
    assert server.get("/")[1] == body
    server.signal(signal.SIGTTIN)  # a worker that is forked when the protocol is known
    server.wait_ready(3)
    assert server.get("/")[1] == body


@pytest.mark.parametrize("preload", ["true", "false"])
def test_a_reload_may_bring_the_other_kind(start: Start, tmp_path: Path, preload: str) -> None:
    options = ("--workers", "1", "--set", f"workers.preload={preload}")
    server = start("kinds:app", *options, env=site(tmp_path, WSGI)).wait_ready(1)
    assert server.get("/")[1] == b"wsgi"
    for generation, (text, body) in enumerate(
        ((ASGI, b"asgi"), (WSGI, b"wsgi"), (STARLETTE, b"asgi")), 2
    ):
        site(tmp_path, text)
        server.ask("reload")
        assert (generation, server.get("/")[1]) == (generation, body)
        server.signal(signal.SIGTTIN)
        server.wait("worker ready", 2, generation=generation)
        assert (generation, server.get("/")[1]) == (generation, body)


@pytest.mark.parametrize(
    ("text", "settings", "problem"),
    [
        (ASGI, "workers.threads=4", "this is an ASGI application: workers.threads: not used"),
        (ASGI, "http.stream_body=true", "this is an ASGI application: http.stream_body: not used"),
        (WSGI, "workers.max_concurrency=4", "this is a WSGI application: workers.max_concurrency"),
        (WSGI, "server.lifespan=on", "this is a WSGI application: server.lifespan: not used"),
        ("def app(scope): ...\n", "", "neither a WSGI application, which is called with"),
        ("def app(): ...\n", "", "this is a factory, which takes (): write kinds:app() to call it"),
    ],
)
def test_what_does_not_fit_is_said(
    start: Start, tmp_path: Path, text: str, settings: str, problem: str
) -> None:
    more = ("--set", settings) if settings else ()
    environ = site(tmp_path, text)
    server = start("kinds:app", "--workers", "1", *more, env=environ)
    server.expected_errors |= {"first boot failed", "worker failed to boot"}
    assert server.wait_exit() == 3
    assert problem in server.log()


def test_check_imports_both_kinds(tmp_path: Path) -> None:
    for text in (WSGI, ASGI):
        done = run_prefork("check", "--import", "kinds:app", env=site(tmp_path, text))
        assert done.stdout == "ok\n"
    done = run_prefork("check", "--show", "kinds:app", env=site(tmp_path, ASGI))
    assert 'protocol = "auto"' in done.stdout
