"""The command line of each server that is compared, all with what they log for a request off."""

import sys
from pathlib import Path

from bench.servers import BUILD, CERTIFICATE, KEY, PEERS, Server

BIND = ("--bind", "127.0.0.1:{port}")
MANY = "20000"
"""Connections that a server may hold where it wants to be told."""


def prefork(app: str, *more: str) -> tuple[str, ...]:
    """Ours, with its defaults; the one beside the interpreter that runs the bench."""
    return (str(Path(sys.executable).with_name("prefork")), "serve", app, *BIND, *more)


def gunicorn(app: str, *more: str) -> tuple[str, ...]:
    """gunicorn, without its control socket; `sync` where nothing else is said."""
    quiet = ("--log-level", "warning", "--no-control-socket")
    return (str(PEERS / "gunicorn"), app, *BIND, *quiet, *more)


def gthread(app: str, threads: int, *more: str) -> tuple[str, ...]:
    return gunicorn(app, "-k", "gthread", "--threads", str(threads), *more)


def granian(app: str, threads: int, *more: str) -> tuple[str, ...]:
    """granian; `threads` is how many call the application."""
    given = ("--interface", "wsgi", "--no-ws", "--log-level", "warning", "--host", "127.0.0.1")
    rest = ("--port", "{port}", "--blocking-threads", str(threads))
    return (str(PEERS / "granian"), *given, *rest, *more, app)


def bjoern(app: str) -> tuple[str, ...]:
    return (str(PEERS / "python"), "-m", "bench.bjoern_server", app, "{port}")


def uwsgi(app: str, *more: str, kept: bool = False) -> tuple[str, ...]:
    """uWSGI, speaking HTTP itself, without its HTTP router in between.

    `kept`: with keep-alive, in the way that does not close when a client asks for it.
    """
    socket = "--http11-socket" if kept else "--http-socket"
    given = (socket, "127.0.0.1:{port}", "--master", "--need-app", "--die-on-term")
    options = ("--disable-logging", "--listen", "1024", "--virtualenv", str(PEERS.parent))
    return (str(PEERS / "uwsgi"), *given, *options, "--module", app, *more)


def waitress(app: str, threads: int) -> tuple[str, ...]:
    given = ("--listen=127.0.0.1:{port}", f"--threads={threads}", f"--connection-limit={MANY}")
    return (str(PEERS / "waitress-serve"), *given, app)


def uvicorn(app: str) -> tuple[str, ...]:
    """uvicorn's WSGI mode, with uvloop and httptools."""
    given = ("--interface", "wsgi", "--no-access-log", "--log-level", "warning")
    return (str(PEERS / "uvicorn"), *given, "--port", "{port}", app)


def uvicorn_asgi(app: str) -> tuple[str, ...]:
    """uvicorn with uvloop and httptools; `app` is of bench.asgi_apps, with () for a factory."""
    given = ("--loop", "uvloop", "--http", "httptools", "--no-access-log", "--log-level", "warning")
    return (str(PEERS / "uvicorn"), *given, "--port", "{port}", *_asgi(app))


def granian_asgi(app: str) -> tuple[str, ...]:
    given = ("--interface", "asgi", "--log-level", "warning", "--host", "127.0.0.1")
    rest = ("--port", "{port}", "--workers", "1", "--loop", "uvloop")
    return (str(PEERS / "granian"), *given, *rest, *_asgi(app))


def gunicorn_asgi(app: str) -> tuple[str, ...]:
    """gunicorn's own worker for ASGI."""
    return gunicorn(f"bench.asgi_apps:{app}", "-k", "asgi", "--workers", "1")


def hypercorn(app: str) -> tuple[str, ...]:
    given = ("-k", "uvloop", "--error-logfile", "-", "--log-level", "WARNING", "--workers", "1")
    return (str(PEERS / "hypercorn"), *given, *BIND, f"bench.asgi_apps:{app}")


def _asgi(app: str) -> tuple[str, ...]:
    plain = f"bench.asgi_apps:{app.removesuffix('()')}"
    return ("--factory", plain) if app.endswith("()") else (plain,)


def c_loop(mode: str) -> tuple[str, ...]:
    """The limit: a loop in C that parses nothing; "keepalive" or "close"."""
    return (str(BUILD / "accept_loop"), mode, "{port}")


def nginx(
    name: str, location: str, probe: str = "/", more: str = "", *, tls: bool = False
) -> Server:
    """One worker of nginx that serves `location { ... }`; it keeps a connection for ever.

    `more`: what else is in its `server { ... }`.  A brace in the texts is written twice.
    """
    if tls:
        more += f"ssl_certificate {CERTIFICATE}; ssl_certificate_key {KEY};"
    config = f"""
        daemon off; worker_processes 1; pid {{directory}}/pid; error_log stderr error;
        worker_rlimit_nofile 20000;
        events {{{{ worker_connections 15000; }}}}
        http {{{{
            access_log off; keepalive_requests 1000000000; sendfile on; tcp_nopush on;
            client_body_temp_path {{directory}}/body; proxy_temp_path {{directory}}/proxy;
            fastcgi_temp_path {{directory}}/fastcgi; uwsgi_temp_path {{directory}}/uwsgi;
            scgi_temp_path {{directory}}/scgi; default_type text/plain;
            server {{{{
                listen 127.0.0.1:{{port}} backlog=4096{" ssl" * tls}; {more}
                location / {{{{ {location} }}}}
            }}}}
        }}}}
    """
    return Server(name, ("nginx", "-e", "stderr", "-c", "{config}"), probe, config, tls=tls)
