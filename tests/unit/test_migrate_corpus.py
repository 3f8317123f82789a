"""Realistic files of other servers: what becomes of each, and that `check` takes the result."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from prefork.cli.migrate import command
from prefork.migrate.document import check

CORPUS = Path(__file__).parents[1] / "corpus"

GUNICORN = {
    "auto.py": ['count = "auto"', "preload = true"],
    "behind_nginx.py": ['unix_mode = "0770"', '"unix"]', "keepalive_requests = 1"],
    "combined.py": ["PREFORK_WORKERS_COUNT", "DEBUG and WORKERS", "request_timeout = 0"],
    "cores.py": ["it also depends on BIND and HOST", "# count = 2", "PREFORK_HTTP_KEEPALIVE"],
    "cpu.py": ["computed from the number of CPUs here (max_workers())", "request_timeout = 120"],
    "daemon.py": ['error = "syslog"', 'umask = "0022"'],
    "docker.py": ['# bind = ["0.0.0.0:8000"]', "# count = ", "proxy on another machine"],
    "env_file.py": ['env_file = ".env"', "DATABASE_URL: it looks like a secret"],
    "environment_loop.py": ["it reads the whole environment"],
    "eventlet_socketio.py": ["threads = 64", "WebSockets", "create_app()"],
    "example.py": ["post_fork: it does nothing, or only logs", 'env = { "SPAM" = "eggs" }'],
    "green.py": ["threads = 64", "request_timeout = 0", "WebSockets", "it is after_fork"],
    "gthread.py": ["graceful_timeout = 0.1", "request_timeout = 0", "keepalive_requests = 1"],
    "http2_proxy.py": ["proxy_protocol = true", "max_request_line = 0", "HTTP/2"],
    "many_threads.py": ["It was 300; 255 is the maximum here.", 'level = "info"', "count = 4"],
    "none_port.py": ["is APP_PORT not set here?"],
    "own_logger.py": ["logger_class", "logconfig_dict"],
    "paths.py": ['bind = ["unix:run/shop.sock"]', 'error = "logs/error.log"'],
    "prometheus.py": ["mark_process_dead()", "PROMETHEUS_MULTIPROC_DIR"],
    "relative_chdir.py": ['bind = ["unix:run/gunicorn.sock"]', 'error = "src/logs/error.log"'],
    "scheme_headers.py": ["let the proxy send that in place of X-FORWARDED-SSL, X-SCHEME"],
    "script_name.py": ["X-Forwarded-Prefix: /shop"],
    "side_effects.py": ["it made the directory", "starting up"],
    "syslog.py": ['error = "syslog"', "there is no statsd client"],
    "tls.py": ["tls.client_ca", "ciphers"],
    "trust_everybody.py": ['trusted_proxies = ["0.0.0.0/0", "::/0", "unix"]'],
    "uvicorn_class.py": ['protocol = "asgi"', "request_timeout = 0"],
    "uvicorn_worker.py": ['protocol = "asgi"', "max_message = 16777216"],
    "typos.py": ["did you mean workers?", "did you mean accesslog?", "count = 2"],
    "websocket.py": ["WebSockets", "threads = 64"],
    "zero.py": ["backlog = 1", "count = 1", "request_timeout = 0", "there is no max_requests"],
}
"""What stands in the result or in the report, whatever the line breaks."""

REFUSED = {
    "exits.py": "it calls os._exit(7)",
    "host_names.py": "forwarded_allow_ips: 'nginx'",
    "missing_variable.py": "set LISTEN_PORT",
}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".env").write_text("SECRET_KEY=1\n")
    for name in ("PORT", "WEB_CONCURRENCY", "FORWARDED_ALLOW_IPS", "GUNICORN_CMD_ARGS"):
        monkeypatch.delenv(name, raising=False)


def run(
    server: str, name: str, *more: str, capfd: pytest.CaptureFixture[str]
) -> tuple[int, str, str]:
    """Exit status, stdout, and all that was written, also with the line breaks undone."""
    shutil.copy(CORPUS / server / name, name)
    done = CliRunner().invoke(command, [server, name, *more])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    text = raw = "\n".join([done.stdout, done.stderr, capfd.readouterr().err])
    for continued in ("\n#   ", "\n# ", "\n  "):
        text = text.replace(continued, " ")
    return done.exit_code, done.stdout, raw + text


def test_each_file_is_tried() -> None:
    found = {path.name for path in (CORPUS / "gunicorn").iterdir() if path.is_file()}
    assert found == {*GUNICORN, *REFUSED}


@pytest.mark.parametrize("name", GUNICORN)
def test_gunicorn(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, result, said = run("gunicorn", name, "chat:create_app()", capfd=capfd)
    assert status == 0, said
    assert check(result, machine=False) == []
    for text in GUNICORN[name]:
        assert text in said


@pytest.mark.parametrize("name", REFUSED)
def test_gunicorn_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, result, said = run("gunicorn", name, "shop.wsgi", capfd=capfd)
    assert (status, result) == (1, "")
    assert REFUSED[name] in said


UWSGI = {
    "cheaper.ini": ["spare = 2", "min = 2", 'max_memory = "300MiB"', 'cpu_affinity = "auto"'],
    "comments.ini": ['app = "shop.wsgi:application"', "takes the comment behind a value"],
    "daemon.ini": ['app = "shop.wsgi:application"', '"/static/" = "/srv/shop/static"', "0755"],
    "django.ini": ['chdir = "/srv/shop"', 'unix_mode = "0660"', "proxy_pass http://unix:/run/"],
    "gevent.ini": ["threads = 64", "WebSockets need flask-sock"],
    "http.ini": ['app = "app.main:app"', "request_timeout = 60", "max_requests = 5000"],
    "https.ini": ['bind = ["0.0.0.0:8443"]', 'key = "/etc/ssl/shop.key"', "keepalive = 15"],
    "lost.ini": [
        *("systemd timers", "Celery", "did you mean processes?", "DispatcherMiddleware"),
        *("frobnicate = 3: it is not known here", "psgi: prefork serves Python only"),
    ],
    "sections.ini": ["count = 2", 'bind = ["127.0.0.1:8081"]'],
    "shop.xml": ['unix_mode = "0666"', "request_timeout = 30", "proxy_set_header"],
    "shop.yaml": ['env = { "A" = "1", "B" = "2" }', "threads = 4", 'bind = ["127.0.0.1:8084"]'],
    "vassal.ini": [
        *('pythonpath = ["src"]', "max_body = 10485760", 'error = "syslog"'),
        *("include = /etc/uwsgi/common.ini: /etc/uwsgi/common.ini: cannot be read",),
    ],
}

UWSGI_REFUSED = {
    "emperor.ini": "migrate each file in /etc/uwsgi/vassals",
    "environment.ini": "set APP_MODULE as it is on the server",
}


def test_each_uwsgi_file_is_tried() -> None:
    found = {path.name for path in (CORPUS / "uwsgi").iterdir() if path.is_file()}
    assert found == {*UWSGI, *UWSGI_REFUSED}


@pytest.mark.parametrize("name", UWSGI)
def test_uwsgi(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, result, said = run("uwsgi", name, capfd=capfd)
    assert status == 0, said
    assert check(result, machine=False) == []
    for text in UWSGI[name]:
        assert text in said


@pytest.mark.parametrize("name", UWSGI_REFUSED)
def test_uwsgi_refused(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    status, result, said = run("uwsgi", name, capfd=capfd)
    assert (status, result) == (1, "")
    assert UWSGI_REFUSED[name] in said


def test_a_section_by_its_name(capfd: pytest.CaptureFixture[str]) -> None:
    shutil.copy(CORPUS / "uwsgi" / "sections.ini", "sections.ini")
    done = CliRunner().invoke(command, ["uwsgi", "sections.ini:debug"])
    assert "request_timeout = 5" in done.stdout
    done = CliRunner().invoke(command, ["uwsgi", "sections.ini:nowhere"])
    assert "there is no section [nowhere]; it has [base], [uwsgi], [debug]" in done.stderr


def test_the_environment_and_conditions(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"APP_MODULE": "shop.wsgi", "PORT": "81", "UWSGI_COUNT": "7"}.items():
        monkeypatch.setenv(name, value)
    status, result, said = run("uwsgi", "environment.ini", capfd=capfd)
    assert (status, check(result, machine=False)) == (0, [])
    assert 'bind = ["0.0.0.0:81"]' in result
    assert "count = 7" in result
    assert "abcdef" not in said
    assert "SECRET_KEY: it looks like a secret" in said
    assert "if-env = DEBUG: this is false here, so the options under it are left out" in said
    assert "memory-report: `prefork status`" in said
    assert "py-autoreload" not in said
