"""Warm-up requests, and the check of an application before it is served."""

import json
from pathlib import Path

import pytest

from tests.support.commands import ROOT, run_prefork
from tests.support.server import Start

SITE = """
import json, os

def app(environ, start_response):
    with open(os.environ["SEEN"], "a") as seen:
        fields = ("HTTP_HOST", "wsgi.url_scheme", "PATH_INFO", "QUERY_STRING", "REMOTE_ADDR")
        seen.write(json.dumps([environ[field] for field in fields]) + "\\n")
    accepted = environ["HTTP_HOST"].startswith("shop.example")
    if environ["PATH_INFO"] == "/lazy":
        import lazily_imported
    start_response("200 OK" if accepted else "400 Bad Request", [("Content-Length", "0")])
    return [b""]
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    (tmp_path / "site_app.py").write_text(SITE)
    (tmp_path / "lazily_imported.py").write_text("")
    return tmp_path


def options(site: Path, warmup: list[str]) -> tuple[str, ...]:
    setting = f"workers.warmup={json.dumps(warmup)}"
    return ("site_app:app", "--workers", "1", "--set", setting)


def environ(site: Path) -> dict[str, str]:
    return {"PYTHONPATH": str(ROOT), "SEEN": str(site / "seen")}


def test_a_url_names_host_and_scheme(start: Start, site: Path) -> None:
    urls = ["http://shop.example/a?b=c", "https://shop.example:8443"]
    start(*options(site, urls), cwd=site, env=environ(site)).wait_ready(1)
    seen = [json.loads(line) for line in (site / "seen").read_text().splitlines()]
    assert seen == [
        ["shop.example", "http", "/a", "b=c", "127.0.0.1"],
        ["shop.example:8443", "https", "/", "", "127.0.0.1"],
    ]


def test_the_error_for_a_host_that_is_not_accepted_says_what_to_set(
    start: Start, site: Path
) -> None:
    server = start(*options(site, ["/a"]), cwd=site, env=environ(site))
    server.expected_errors.add("first boot failed")
    assert server.wait_exit() == 3
    assert server.wait("first boot failed")["traceback"] == (
        "warmup: /a answered 400; expected 2xx or 3xx; if the application serves certain hosts "
        'only (ALLOWED_HOSTS), give a URL with one: workers.warmup = ["http://HOST/a"]'
    )


def test_a_reload_finds_an_error_in_what_is_imported_at_the_first_request(
    start: Start, site: Path
) -> None:
    server = start(*options(site, ["http://shop.example/lazy"]), cwd=site, env=environ(site))
    server.wait_ready(1)
    server.expected_errors.add("reload failed")
    (site / "lazily_imported.py").write_text("def view(:\n")
    assert "lazily_imported.py" in server.refusal("reload")
    assert server.get("/", Host="shop.example")[0] == 200


@pytest.mark.parametrize("url", ["shop.example/", "ftp://shop.example/", "http:///", "http://a b/"])
def test_what_is_no_path_and_no_url_is_refused(site: Path, url: str) -> None:
    (site / "site.toml").write_text(
        f'[server]\napp = "site_app:app"\n[workers]\nwarmup = ["{url}"]\n'
    )
    done = run_prefork("check", "site.toml", cwd=site)
    assert done.returncode == 1
    assert done.stdout.startswith("site.toml: workers.warmup: expected a list of paths and URLs")


# prefork check --import


def check(site: Path, source: str, *more: str) -> tuple[int, str]:
    """Of an application that finds its directory and its environment."""
    (site / "in_place").mkdir(exist_ok=True)
    (site / "in_place" / "checked_app.py").write_text(source)
    (site / "site.toml").write_text(
        '[server]\napp = "checked_app:app"\nchdir = "in_place"\nenv = { GIVEN = "yes" }\n'
        + "\n".join(more)
    )
    done = run_prefork("check", "--import", "site.toml", cwd=site)
    assert done.stderr == ""
    return done.returncode, done.stdout


def test_check_imports_the_application_if_asked(site: Path) -> None:
    source = "import os\nassert os.environ['GIVEN'] == 'yes' and os.path.exists('checked_app.py')\n"
    assert check(site, f"{source}def app(environ, start_response): pass\n") == (0, "ok\n")
    broken = "import no_such_module_here\n"
    code, text = check(site, broken)
    assert code == 1
    assert text.endswith("ModuleNotFoundError: No module named 'no_such_module_here'\n")
    assert "checked_app.py" in text
    assert run_prefork("check", "site.toml", cwd=site).stdout == "ok\n", "it was not asked to"


@pytest.mark.parametrize(
    ("source", "more", "problem"),
    [
        ("application = print\n", "", "checked_app:app: checked_app has no 'app'"),
        ("import sys\nsys.exit('no database')\n", "", "SystemExit: no database"),
        (
            "def app(environ, start_response): pass\n",
            '[workers]\nhooks = { ready = "checked_app:warm" }\n',
            "checked_app has no 'warm'",
        ),
    ],
)
def test_check_reports_what_would_fail_a_boot(
    site: Path, source: str, more: str, problem: str
) -> None:
    code, text = check(site, source, more)
    assert code == 1
    assert problem in text
    assert text.splitlines()[-1] != "ok"


def test_check_imports_a_tcp_handler() -> None:
    good = run_prefork("check", "--tcp", "--import", "tests.apps.tcp_apps:echo")
    assert (good.returncode, good.stdout) == (0, "ok\n")
    bad = run_prefork("check", "--tcp", "--import", "tests.apps.tcp_apps:coroutine")
    assert bad.returncode == 1
    assert "is an `async def`" in bad.stdout
