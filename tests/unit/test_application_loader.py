"""What is no WSGI application is refused when it is loaded."""

import functools
from collections.abc import Callable
from typing import Any

import pytest

from prefork.apps.application_loader import LoadError, _check_application


def wsgi(environ: Any, start_response: Any) -> Any: ...


def generator(environ: Any, start_response: Any) -> Any:
    yield b""


def configured(config: Any, environ: Any, start_response: Any) -> Any: ...


@functools.wraps(configured)
def wrapped(*args: Any) -> Any: ...


class Instance:
    def __call__(self, environ: Any, start_response: Any, more: Any = None) -> Any: ...


class Iterable:
    def __init__(self, environ: Any, start_response: Any) -> None: ...

    def __iter__(self) -> Any: ...


@pytest.mark.parametrize(
    "application",
    [
        *(wsgi, generator, Instance(), Instance().__call__, Iterable, wrapped, dict, print),
        *(functools.partial(configured, None), lambda *args: None, lambda e, s, **more: None),
    ],
)
def test_wsgi_applications_are_loaded(application: Callable[..., Any]) -> None:
    _check_application("site:app", application)


async def asgi(scope: Any, receive: Any, send: Any) -> None: ...


def asgi_wrapper(scope: Any, receive: Any, send: Any) -> Any: ...


class Asgi:
    async def __call__(self, scope: Any, receive: Any, send: Any) -> None: ...


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
