"""Start lines of uvicorn, hypercorn and daphne as ours."""

import os
import re
import tomllib
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner
from hypercorn.config import Config as HypercornConfig
from hypothesis import given
from hypothesis import strategies as st
from uvicorn.main import main as uvicorn_command

from prefork.cli.migrate import command
from prefork.config import KEYS
from prefork.migrate.asgi import migrate
from prefork.migrate.asgi_command import gather
from prefork.migrate.asgi_options import SERVERS, UVICORN, strings
from prefork.migrate.document import check
from prefork.migrate.migration_report import Fate
from prefork.migrate.python_file import SourceError

PACKAGE = Path(__file__).parents[2] / "prefork" / "migrate"


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def result(server: str, *words: str, **environ: str) -> tuple[dict[str, Any], str]:
    """The new file, and the report with its entries in one line each."""
    document = migrate(gather(server, words, environ))
    text = document.render()
    assert check(text, machine=False) == [], text
    report = document.report
    return tomllib.loads(text), "\n".join(report.lost + report.changed + report.unneeded)


def settings(server: str, *words: str, **environ: str) -> dict[str, Any]:
    return result(server, *words, **environ)[0]


def test_the_table_has_each_option_of_uvicorn() -> None:
    theirs = {
        each.name: {*each.opts, *each.secondary_opts}
        for each in uvicorn_command.params
        if isinstance(each, click.Option) and each.name != "version"
    }
    for name, options in theirs.items():
        ours = [each for each, option in UVICORN.items() if {*strings(each, option)} == options]
        assert ours, f"{name}: {options}"


@pytest.mark.parametrize("server", SERVERS)
def test_each_translated_option_is_read(server: str) -> None:
    source = "".join((PACKAGE / f"asgi{part}.py").read_text() for part in ("", "_network"))
    read = set(re.findall(r'"([a-z0-9_]+)"', source))
    # TLS: uvicorn's names have a prefix.
    read |= {f"ssl_{name}" for name in read} | {"certfile", "keyfile", "ca_certs", "cert_reqs"}
    read |= {f"ssl_{name}" for name in ("certfile", "keyfile", "ca_certs", "cert_reqs")}
    table = SERVERS[server]
    assert {name for name, option in table.items() if option.fate is Fate.TRANSLATED} <= read


@pytest.mark.parametrize("server", SERVERS)
def test_what_a_server_does_by_default_is_written(server: str) -> None:
    found = settings(server, "shop.asgi:application")
    assert found["server"] == {"app": "shop.asgi:application", "protocol": "asgi"} | (
        {} if server != "daphne" else {"bind": ["127.0.0.1:8000"]}
    ) or found["server"]["bind"] == ["127.0.0.1:8000"]
    assert found["workers"]["request_timeout"] == 0
    assert found["http"]["max_body"] == 0
    assert found["http"]["trusted_proxies"] == ["127.0.0.1", "::1"]


def test_defaults_of_each_server() -> None:
    uvicorn, hypercorn, daphne = (settings(server, "m:app") for server in SERVERS)
    assert "count" not in uvicorn["workers"]  # WEB_CONCURRENCY may set it
    assert uvicorn["workers"]["graceful_timeout"] == 0
    assert uvicorn["log"]["access"] == daphne["log"]["access"] == "stdout"
    assert "log" not in hypercorn
    assert hypercorn["workers"]["count"] == daphne["workers"]["count"] == 1
    assert hypercorn["websocket"]["ping_interval"] == 0
    assert hypercorn["websocket"]["max_message"] == HypercornConfig().websocket_max_message_size
    assert hypercorn["http"]["keepalive_requests"] == HypercornConfig().keep_alive_max_requests
    assert daphne["websocket"] == {"max_age": 86400, "ping_timeout": 30}


@pytest.mark.parametrize(
    ("server", "words", "section", "expected"),
    [
        ("uvicorn", "--factory m:make", "server", {"app": "m:make()"}),
        ("uvicorn", "m:app --uds /run/x.sock --port 80", "server", {"bind": ["unix:/run/x.sock"]}),
        ("uvicorn", "m:app --fd 3", "server", {"bind": ["fd:3"]}),
        ("uvicorn", "m:app --host :: --port 81", "server", {"bind": ["[::]:81"]}),
        ("uvicorn", "m:app --app-dir src", "server", {"pythonpath": ["src"]}),
        ("uvicorn", "m:app --lifespan off", "server", {"lifespan": "off"}),
        ("uvicorn", "m:app --workers 4", "workers", {"count": 4}),
        ("uvicorn", "m:app --loop uvloop", "workers", {"loop": "uvloop"}),
        ("uvicorn", "m:app --loop my.loops:make", "workers", {"loop": "my.loops:make"}),
        ("uvicorn", "m:app --limit-concurrency 9", "workers", {"max_concurrency": 9}),
        (
            "uvicorn",
            "m:app --limit-max-requests 9 --limit-max-requests-jitter 3",
            "workers",
            {"max_requests": 9, "max_requests_jitter": 3},
        ),
        (
            "uvicorn",
            "m:app --timeout-graceful-shutdown 0",
            "workers",
            {"graceful_timeout": 0.1},
        ),
        ("uvicorn", "m:app --timeout-keep-alive 0", "http", {"keepalive_requests": 1}),
        ("uvicorn", "m:app --timeout-keep-alive 75", "http", {"keepalive": 75}),
        (
            "uvicorn",
            "m:app --forwarded-allow-ips *",
            "http",
            {"trusted_proxies": ["0.0.0.0/0", "::/0", "unix"]},
        ),
        (
            "uvicorn",
            "m:app --forwarded-allow-ips 10.0.0.0/8,fd00::/8,/run/x.sock",
            "http",
            {"trusted_proxies": ["10.0.0.0/8", "fd00::/8", "unix"]},
        ),
        ("uvicorn", "m:app --no-server-header", "http", {"server_header": False}),
        (
            "uvicorn",
            "m:app --ws-max-size 5 --ws-ping-interval 3 --ws-per-message-deflate false",
            "websocket",
            {"max_message": 5, "ping_interval": 3, "compression": False},
        ),
        ("uvicorn", "m:app --log-level trace", "log", {"level": "debug", "access": "stdout"}),
        (
            "uvicorn",
            "m:app --ssl-certfile c.pem --ssl-keyfile k.pem --ssl-cert-reqs 2 --ssl-ca-certs a.pem",
            "tls",
            {
                "certificate": "c.pem",
                "key": "k.pem",
                "client_auth": "required",
                "client_ca": "a.pem",
            },
        ),
        ("hypercorn", "asgi:m:app", "server", {"app": "m:app", "protocol": "asgi"}),
        ("hypercorn", "wsgi:m:app -b :80", "server", {"app": "m:app", "bind": ["0.0.0.0:80"]}),
        (
            "hypercorn",
            "m:app -b unix:/run/x.sock -m 007 -u www -g web",
            "server",
            {"unix_mode": "0770", "unix_owner": "www:web"},
        ),
        ("hypercorn", "m:app -k uvloop -w 3", "workers", {"loop": "uvloop", "count": 3}),
        (
            "hypercorn",
            "m:app --certfile c --keyfile k -b :443 --insecure-bind :80",
            "tls",
            {"certificate": "c", "key": "k", "bind": ["0.0.0.0:443"]},
        ),
        ("daphne", "m:app -u /run/d.sock", "server", {"bind": ["unix:/run/d.sock"]}),
        ("daphne", "m:app -b :: -p 81", "server", {"bind": ["[::]:81"]}),
        (
            "daphne",
            "m:app -e ssl:443:privateKey=k.pem:certKey=c.pem -e tcp:port=80:interface=127.0.0.1",
            "server",
            {"bind": ["0.0.0.0:443", "127.0.0.1:80"]},
        ),
        ("daphne", "m:app -e unix:/run/d.sock", "server", {"bind": ["unix:/run/d.sock"]}),
        (
            "daphne",
            "m:app --proxy-headers",
            "http",
            {"trusted_proxies": ["0.0.0.0/0", "::/0", "unix"]},
        ),
        ("daphne", "m:app -t 60", "workers", {"request_timeout": 60}),
        ("daphne", "m:app --websocket_timeout -1", "websocket", {"max_age": 0}),
        ("daphne", "m:app -v 2", "log", {"level": "debug"}),
    ],
)
def test_options(server: str, words: str, section: str, expected: dict[str, Any]) -> None:
    found = settings(server, *words.split())[section]
    assert {key: found.get(key) for key in expected} == expected


def test_wsgi_stays_wsgi() -> None:
    assert "protocol" not in settings("hypercorn", "wsgi:m:app")["server"]
    assert "protocol" not in settings("uvicorn", "--interface", "wsgi", "m:app")["server"]


def test_no_proxy_headers_trusts_nobody() -> None:
    found, report = result("uvicorn", "m:app", "--no-proxy-headers")
    assert "trusted_proxies" not in found["http"]
    assert "nobody is trusted" in report


def test_variables_of_the_environment() -> None:
    found, report = result(
        "uvicorn",
        "--port",
        "$PORT",
        "m:app",
        UVICORN_WORKERS="3",
        UVICORN_RELOAD="0",
        PORT="81",
        FORWARDED_ALLOW_IPS="10.1.2.3",
    )
    assert found["server"]["bind"] == ["127.0.0.1:81"]
    assert found["workers"]["count"] == 3
    assert found["http"]["trusted_proxies"] == ["10.1.2.3"]
    assert "it came from the environment, UVICORN_WORKERS: workers.count is 3" in report
    assert "set PREFORK_SERVER_BIND on a server that needs another value" in report


def test_a_whole_start_line() -> None:
    line = "exec env DEBUG=1 DB_PASSWORD=x uv run uvicorn --host 0.0.0.0 --port ${PORT:-8080} m:app"
    found, report = result("uvicorn", line)
    assert "bind" not in found["server"]  # PORT sets it
    assert found["server"]["env"] == {"DEBUG": "1"}
    assert "DB_PASSWORD: it looks like a secret" in report
    array = '["uvicorn", "m:app", "--host", "0.0.0.0", "--port", "80"]'
    assert settings("uvicorn", array)["server"]["bind"] == ["0.0.0.0:80"]


def test_a_file_of_hypercorn(tmp_path: Path) -> None:
    Path("h.toml").write_text('bind = "0.0.0.0:81"\nworkers = 2\naccesslog = "-"\nworker = 1\n')
    found, report = result("hypercorn", "-c", "h.toml", "-w", "5", "m:app")
    assert found["server"]["bind"] == ["0.0.0.0:81"]
    assert found["workers"]["count"] == 5  # the command line takes precedence
    assert found["log"]["access"] == "stdout"
    assert "worker: did you mean workers?" in report
    Path("h.py").write_text(
        "import os\nbind = ['127.0.0.1:82']\nkeep_alive_timeout = float(os.environ['KEEP'])\n"
    )
    found, report = result("hypercorn", "-c", "file:h.py", "m:app", **{**os.environ, "KEEP": "7"})
    assert found["http"]["keepalive"] == 7
    assert "it came from the environment, KEEP" in report


@pytest.mark.parametrize(
    ("server", "words", "problem"),
    [
        ("uvicorn", ["--prot", "80", "m:app"], "this is no command line of uvicorn"),
        ("uvicorn", ["--workers", "many", "m:app"], "--workers many: expected a number"),
        ("uvicorn", ["--interface", "asgi2", "m:app"], "guarantee_single_callable"),
        ("uvicorn", ["--port", "$NOWHERE", "m:app"], "prefork migrate uvicorn"),
        ("uvicorn", ["--", "fastapi", "run", "main.py"], "it starts uvicorn"),
        ("uvicorn", ["--", "gunicorn", "m:app"], "prefork migrate gunicorn -- gunicorn m:app"),
        ("uvicorn", ["--port", "80"], "no application is named"),
        ("hypercorn", ["-k", "trio", "m:app"], "not on trio"),
        ("hypercorn", ["-c", "none.toml", "m:app"], "none.toml: it cannot be read as TOML"),
        ("daphne", ["-p", "70000", "m:app"], ""),
    ],
)
def test_what_is_refused(server: str, words: list[str], problem: str) -> None:
    done = CliRunner().invoke(command, [server, *words])
    if problem:
        assert (done.exit_code, done.stdout) == (1, "")
        assert done.stderr.startswith("Error: ")
    else:
        assert done.exit_code == 0
        problem = "port"
    assert problem in done.stderr
    assert done.exception is None or isinstance(done.exception, SystemExit)


@pytest.mark.parametrize("server", SERVERS)
@given(data=st.data())
def test_no_input_ends_in_a_traceback(server: str, data: st.DataObject) -> None:
    table = SERVERS[server]
    names = [text for name, option in table.items() for text in strings(name, option)]
    values = st.one_of(
        st.integers(-5, 10**20).map(str),
        st.sampled_from(["", "*", "$PORT", "a:b", "unix:/x", "0x", "-", "tcp:", "ssl:x", "None"]),
        st.text(max_size=8),
    )
    words: list[str] = ["m:app"]
    for _ in range(data.draw(st.integers(0, 5))):
        words += [f"{data.draw(st.sampled_from(names))}={data.draw(values)}"]
    try:
        document = migrate(gather(server, words, {}))
    except SourceError as error:
        assert str(error)  # noqa: PT017
        return
    text = document.render()
    assert tomllib.loads(text)
    # What the file of a user cannot be: the rest is refused by the command with the reasons.
    for problem in check(text, machine=False):
        assert problem.partition(":")[0] in KEYS
