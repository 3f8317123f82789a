"""What is no WSGI application, no TCP handler or not there is refused when it is loaded."""

import functools
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from prefork.apps.application_loader import (
    LoadError,
    _check_application,
    _check_handler,
    _recognized,
    find,
)
from tests.apps import tcp_apps


def wsgi(environ: Any, start_response: Any) -> Any: ...


def generator(environ: Any, start_response: Any) -> Any:
    yield b""


def configured(config: Any, environ: Any, start_response: Any) -> Any: ...


@functools.wraps(configured)
def wrapped(*args: Any) -> Any: ...


class Instance:
    def __call__(self, environ: Any, start_response: Any, more: Any = None) -> Any: ...


class StaticInstance:
    @staticmethod
    def __call__(environ: Any, start_response: Any) -> Any: ...


class Iterable:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


@pytest.mark.parametrize(
    "application",
    [
        *(wsgi, generator, Instance(), Instance().__call__, Iterable, wrapped, dict, print),
        *(StaticInstance(), functools.cache(wsgi)),
        *(functools.partial(configured, None), lambda *args: None, lambda e, s, **more: None),
    ],
)
def test_wsgi_applications_are_loaded(application: Callable[..., Any]) -> None:
    _check_application("site:app", application)


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def asgi_wrapper(scope: Any, receive: Any, send: Any) -> Any: ...


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


class OfItsOwn:
    """Each object has the function that is called, as those of sentry-sdk have."""

    __slots__ = ("__call__",)

    def __init__(self) -> None:
        self.__call__ = self._run

    async def _run(self, scope: Any, receive: Any, send: Any) -> None: ...


class Static:
    @staticmethod
    async def __call__(scope: Any, receive: Any, send: Any) -> None: ...


class Delegating:
    """As a wrapper that is given any arguments."""

    async def __call__(self, *args: Any) -> None: ...


async def coroutine(environ: Any, start_response: Any) -> None: ...


async def handler() -> None: ...


def factory() -> Any: ...


def configurable(config: Any = None, *, debug: bool = False) -> Any: ...


class Application:
    def __call__(self, environ: Any, start_response: Any) -> Any: ...


def one(request: Any) -> Any: ...


@pytest.mark.parametrize(
    ("application", "problem"),
    [
        (asgi, "ASGI application"),
        (asgi_wrapper, "ASGI application"),
        (Asgi(), "ASGI application"),
        (functools.partial(asgi), "ASGI application"),
        (coroutine, "`async def`"),
        (handler, "`async def`"),
        (factory, r"a factory.*write site:app\(\)"),
        (configurable, r"a factory.*write site:app\(\)"),
        (Application, r"a factory.*write site:app\(\)"),
        (one, r"\(environ, start_response\), and this takes"),
    ],
)
def test_others_are_refused(application: Callable[..., Any], problem: str) -> None:
    with pytest.raises(LoadError, match=problem):
        _check_application("site:app", application)


@pytest.mark.parametrize(
    "application",
    [
        *(asgi, asgi_wrapper, Asgi(), Asgi().__call__, OfItsOwn(), Static(), Delegating()),
        *(functools.partial(asgi), functools.partial(Asgi())),
    ],
)
def test_asgi_applications_are_recognized(application: Callable[..., Any]) -> None:
    assert _recognized("site:app", application) == "asgi"


def test_a_project_of_django_is_served_by_its_module_wsgi(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "project_of_django").mkdir()
    (tmp_path / "project_of_django" / "wsgi.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(LoadError, match=r"did you mean project_of_django\.wsgi\?$"):
        find("project_of_django:application")


def test_an_async_factory_is_not_to_be_called_either() -> None:
    with pytest.raises(LoadError, match="a factory is a plain function"):
        _recognized("site:handler", handler)


@pytest.mark.parametrize(
    ("handler", "problem"),
    [
        ("coroutine", "this is an `async def`"),
        ("async_generator", "this is an `async def`"),
        ("async_callable", "this is an `async def`"),
        ("generator", "this one has a `yield`"),
        ("factory", "called with (sock, address), and this takes () -> object"),
        ("of_environ", "called with (sock, address), and this takes (environ: object)"),
    ],
)
def test_what_cannot_be_a_tcp_handler_is_refused(handler: str, problem: str) -> None:
    with pytest.raises(LoadError, match=re.escape(problem)):
        _check_handler("site:handler", getattr(tcp_apps, handler))


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("tests.apps.nowhere:app", ("'tests.apps.nowhere'", "server.pythonpath")),
        ("nowhere_at_all:app", ("'nowhere_at_all'", "server.pythonpath")),
        ("tests.apps.basic:ap", ("has no 'ap'", "did you mean 'app'?")),
        ("tests.apps.basic:PIECE()", ("tests.apps.basic.PIECE is int, which is not callable",)),
        ("tests.apps.basic:ROUTES()", ("tests.apps.basic.ROUTES is dict, which is not callable",)),
        (f"{__name__}:wsgi()", ("takes (environ: Any, start_response: Any)", f"{__name__}:wsgi")),
        (f"{__name__}:one()", ("a factory is called without arguments", "(request: Any)")),
        (f"{__name__}:handler()", ("a factory is a plain function", "`async def`")),
    ],
)
def test_a_target_that_leads_nowhere_is_one_line(target: str, words: tuple[str, ...]) -> None:
    with pytest.raises(LoadError) as refused:
        find(target)
    why = str(refused.value)
    assert why.startswith(f"{target}: ")
    assert "\n" not in why
    for part in words:
        assert part in why
