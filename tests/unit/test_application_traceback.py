"""Tracebacks of an application, without the frames of the server."""

import os
from typing import Any

import pytest

import prefork
from prefork import frames, logs
from prefork.apps.application_loader import find
from prefork.apps.wsgi import MisbehavedApplication, WsgiResponse
from prefork.compiled import COMPILED
from prefork.http.request import Request
from prefork.logs.line_format import json_line, text_lines
from prefork.worker.boot.warmup import _Discard

OURS = os.path.dirname(prefork.__file__) + os.sep


def raised(source: str, filename: str) -> BaseException:
    """What code of a file of that name raises."""
    try:
        exec(compile(source, filename, "exec"), {"find": find, "OURS": OURS})
    except BaseException as problem:
        return problem
    raise AssertionError("nothing was raised")


def test_only_the_frames_of_the_application_are_shown() -> None:
    ours = "compile('app()', OURS + 'caller.py', 'exec')"
    inner = (
        "def app():\n    read()\n"
        "def read():\n    exec(compile('1 / 0', OURS + 'http/body.py', 'exec'))\n"
        f"exec({ours})"
    )
    text = logs.application_traceback(raised(inner, "/srv/shop.py"))
    assert OURS not in text
    assert text.count('File "/srv/shop.py", line 2, in app') == 1
    assert text.endswith("ZeroDivisionError: division by zero")


@pytest.mark.parametrize("link", ["from error", "", "from None"])
def test_it_holds_for_causes_and_contexts_too(link: str) -> None:
    source = (
        "try:\n    exec(compile('{}[1]', OURS + 'caller.py', 'exec'))\n"
        f"except KeyError as error:\n    raise ValueError('no such article') {link}\n"
    )
    text = logs.application_traceback(raised(source, "/srv/shop.py"))
    assert OURS not in text
    assert ("KeyError: 1" in text) == (link != "from None")


def test_it_holds_for_the_parts_of_a_group_too() -> None:
    source = (
        "try:\n    exec(compile('{}[1]', OURS + 'caller.py', 'exec'))\n"
        "except KeyError as error:\n    raise ExceptionGroup('all', [error])\n"
    )
    text = logs.application_traceback(raised(source, "/srv/shop.py"))
    assert OURS not in text
    assert "KeyError: 1" in text


def test_a_syntax_error_has_no_frame_of_the_import(
    tmp_path: "os.PathLike[str]", monkeypatch: pytest.MonkeyPatch
) -> None:
    name = "module_with_a_syntax_error"
    path = os.path.join(tmp_path, f"{name}.py")
    with open(path, "w") as file:
        file.write("def app(:\n")
    monkeypatch.syspath_prepend(tmp_path)
    try:
        find(f"{name}:app")
    except SyntaxError as problem:
        problem.__traceback__ = problem.__traceback__.tb_next if problem.__traceback__ else None
        text = logs.application_traceback(problem)
    assert text.splitlines()[:2] == [f'  File "{path}", line 1', "    def app(:"]


def test_without_a_frame_of_the_application_the_last_one_is_shown() -> None:
    source = "def call():\n    len()\ncall()\n"
    problem = raised(source, f"{OURS}caller.py")
    assert problem.__traceback__ is not None
    problem.__traceback__ = problem.__traceback__.tb_next  # without this test's frame
    text = logs.application_traceback(problem)
    assert text.count("File ") == 1
    assert f'File "{OURS}caller.py", line 2, in call' in text


@pytest.mark.parametrize(
    ("body", "status", "told"),
    [
        (["text"], "200 OK", "MisbehavedApplication: the body must be bytes, not str"),
        (["a", b"b"], "200 OK", "MisbehavedApplication: the body must be bytes, not str"),
        (iter(["text"]), "200 OK", "MisbehavedApplication: the body must be bytes, not str"),
        (
            None,
            "200 OK",
            "MisbehavedApplication: it returned NoneType, which is no iterable of bytes",
        ),
        (42, "200 OK", "MisbehavedApplication: it returned int, which is no iterable of bytes"),
        pytest.param(
            *([b"x"], 200, "TypeError: status must be a str, not int"),
            marks=pytest.mark.skipif(
                COMPILED, reason="does not apply: start_response refuses it, with TypeError"
            ),
        ),
        ([b"x"], "OK", "ValueError: status must be three digits from 200 and a reason, not 'OK'"),
        (
            [b"x"],
            None,
            "MisbehavedApplication: start_response was not called before the body began",
        ),
    ],
)
def test_what_an_application_gives_wrong_is_told_without_our_code(
    body: object, status: Any, told: str
) -> None:
    response = WsgiResponse(Request({}, b"GET /", True, True, None, None), _Discard())
    if status is not None:
        response.start(status, [])
    with pytest.raises((MisbehavedApplication, ValueError, TypeError)) as raised:
        response.take(body)
    raised.value.__traceback__ = raised.tb.tb_next  # without this test's frame
    assert logs.application_traceback(raised.value) == told


@pytest.mark.parametrize(
    ("filename", "expected"),
    [
        ("/srv/shop.py", True),
        (f"{OURS}worker/service/wsgi_caller.py", False),
        ("prefork/worker/service/wsgi_caller.py", False),
        ("<frozen importlib._bootstrap>", False),
        (os.__file__, False),
        (f"{os.path.dirname(os.__file__)}/site-packages/django/x.py", True),
        (f"{os.path.dirname(os.__file__)}/concurrent/futures/thread.py", False),
        ("/usr/lib/python3/dist-packages/flask/app.py", True),
        ("<string>", True),
    ],
)
def test_which_files_are_the_applications(filename: str, expected: bool) -> None:
    assert frames.is_the_applications(filename) is expected


def test_a_reason_of_several_lines_is_shown_in_lines() -> None:
    fields = {"role": "master", "generation": 2, "reason": "Traceback:\n  x\x1b\nError"}
    first, *rest = text_lines("error", "reload failed", fields).splitlines()
    assert first.endswith("[error] reload failed role=master generation=2")
    assert rest == ["    Traceback:", "      x\\x1b", "    Error"]
    assert '"reason": "Traceback:\\n  x' in json_line("error", "reload failed", fields)


def test_a_reason_of_one_line_stays_in_the_line() -> None:
    assert text_lines("error", "x", {"reason": "no room"}).endswith('[error] x reason="no room"\n')


@pytest.mark.parametrize(
    ("file", "hinted"), [("/usr/lib/python3.14/pdb.py", True), ("/srv/shop/app.py", False)]
)
def test_a_debugger_that_ends_the_program_wanted_standard_input(file: str, hinted: bool) -> None:
    """As that of CPython 3.14 and later does where older ones raised BdbQuit."""
    shown = logs.application_traceback(
        raised("def do_quit():\n    raise SystemExit(1)\ndo_quit()", file)
    )
    assert ("workers have no standard input" in shown) is hinted
