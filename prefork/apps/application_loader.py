"""Loads the application that the configuration names."""

import functools
import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from msgspec.structs import replace

from prefork.apps.wsgi import Application
from prefork.config import Config
from prefork.config.checks import protocol_keys
from prefork.config.schema import Protocol
from prefork.config.values import nearest

if TYPE_CHECKING:
    import inspect

    from prefork.apps.static import Mounts, Site


_NAMED = {"wsgi": "a WSGI application", "asgi": "an ASGI application"}


importing = ""
"""The module of the application, while it is imported."""


class LoadError(Exception):
    """The application cannot be loaded; one line that says what is wrong and what to do."""


def load(config: Config) -> tuple[Config, Any]:
    """What the configuration names, and the configuration with the protocol of that in place of
    "auto": a WSGI application with its mounts, or a static site; an ASGI application; or a TCP
    handler.

    Raises LoadError, and whatever the application's own code raises when it is imported.
    """
    protocol, target = config.server.protocol, config.server.app
    if protocol == "static":
        return config, _wsgi_application(config, None)
    assert target is not None
    found = find(target)
    if protocol == "auto":
        protocol = _recognized(target, found)
        config = replace(config, server=replace(config.server, protocol=protocol))
        for key, reason, hint in protocol_keys(config):
            more = f"; {hint}" if hint else ""
            raise LoadError(f"{target}: this is {_NAMED[protocol]}: {key}: {reason}{more}")
    if protocol == "tcp":
        _check_handler(target, found)
    elif protocol == "asgi":
        _check_asgi_application(target, found)
    else:
        _check_application(target, found)
        found = _wsgi_application(config, found)
    return config, found


def _wsgi_application(config: Config, application: Application | None) -> Application:
    static = config.static
    if application is None:
        assert static.root is not None
        application = _site(static.root, config)
    if static.mounts:
        application = load_mounts(config, application)
    return compressed(config, application)


def load_mounts(config: Config, application: Application) -> "Mounts":
    """The sites of `static.mounts`, and an application for all other paths."""
    from prefork.apps.static import Mounts

    mounts = {prefix: _site(root, config) for prefix, root in config.static.mounts.items()}
    return Mounts(application, mounts)


def compressed(config: Config, application: Application) -> Application:
    """An application with `http.compress` around it, if that is set."""
    if not config.http.compress:
        return application
    from prefork.apps.compress import Compress

    return Compress(application, config.http.compress, config.http.compress_min_size)


def _site(root: str, config: Config) -> "Site":
    from prefork.apps.static import Site

    static = config.static
    return Site(
        root,
        listing=static.listing,
        listing_max=static.listing_max,
        index=static.index,
        follow_symlinks=static.follow_symlinks,
        precompressed=static.precompressed,
    )


def import_parts(config: Config) -> None:
    """Imports those of our modules that this configuration needs, and not every one does.

    The master does so before it forks: its workers then share them, and a worker that is forked
    after another version was installed has no mixture of both.
    """
    if config.server.protocol == "static" or config.static.mounts:
        import prefork.apps.static
    if config.server.protocol == "asgi":
        import prefork.apps.asgi_compress
    if config.http.compress:
        import prefork.apps.compress  # noqa: F401


def _recognized(target: str, application: Callable[..., object]) -> Protocol:
    """The protocol of an application, by its signature.  Raises LoadError if it has none of them.

    A WSGI application is called with two arguments, and one of ASGI 3 with three, for a coroutine.
    An application that can be called with both, and does not show that it is asynchronous (such as
    a wrapper with *args), is taken for WSGI.
    """
    takes = _arity(application)
    if takes is None:
        return "wsgi"
    if takes(3) and (_is_asynchronous(application) or not takes(2)):
        return "asgi"
    if takes(2):
        return "wsgi"
    _refuse_factory(target, application, takes)
    raise LoadError(
        f"{target}: neither a WSGI application, which is called with (environ, start_response), nor"
        " one of ASGI 3, an `async def` that is called with (scope, receive, send): this takes "
        f"{_signature(application)}; for a TCP handler use --tcp, or set server.protocol"
    )


def _signature(application: Callable[..., object]) -> "inspect.Signature | None":
    """The application's own signature: a wrapper says nothing of what it wraps.  None for a
    builtin without one."""
    import inspect

    called = application
    if not isinstance(application, functools.partial):
        called = _function_of(application)
    try:
        return inspect.signature(called, follow_wrapped=False)
    except (TypeError, ValueError):
        return None


def _arity(application: Callable[..., object]) -> Callable[[int], bool] | None:
    """Whether it can be called with so many arguments; None if that is not known."""
    signature = _signature(application)
    if signature is None:
        return None

    def takes(count: int) -> bool:
        try:
            signature.bind(*[None] * count)
        except TypeError:
            return False
        return True

    return takes


def _is_asynchronous(application: Callable[..., object]) -> bool:
    import inspect

    inner = _function_of(application)
    return inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner)


def _refuse_factory(
    target: str, application: Callable[..., object], takes: Callable[[int], bool]
) -> None:
    """Raises LoadError for a factory that the configuration names without its parentheses."""
    if takes(0) and not target.endswith("()"):
        _check_factory(target, application)
        raise LoadError(
            f"{target}: this is a factory, which takes {_signature(application)}: write {target}()"
            " to call it"
        )


def _check_factory(target: str, factory: Callable[..., object]) -> None:
    """Raises LoadError for what cannot be called as a factory: the call itself would fail in our
    own code, or leave a coroutine that nobody awaits."""
    takes, name = _arity(factory), target.removesuffix("()")
    if takes is not None and not takes(0):
        raise LoadError(
            f"{target}: a factory is called without arguments, and {name} takes "
            f"{_signature(factory)}; if it is the application itself, write {name}"
        )
    if _is_asynchronous(factory):
        raise LoadError(
            f"{target}: a factory is a plain function, and {name} is an `async def`: what it "
            "awaits belongs in the lifespan of the application"
        )


def _function_of(called: Any) -> Any:
    """The function that runs when an object is called; a class stands for itself.

    The `__call__` of a class may be a descriptor, of which each object has a function of its own:
    the ASGI middleware of sentry-sdk has one for each version of the protocol.
    """
    import inspect

    while isinstance(called, functools.partial):
        called = called.func
    if not inspect.isroutine(called) and not inspect.isclass(called):
        called = called.__call__
    return called


def _check_application(target: str, application: Callable[..., object]) -> None:
    """Raises LoadError for what cannot be a WSGI application: the first request would show it."""
    takes = _arity(application)
    if takes is None:
        return
    asynchronous = _is_asynchronous(application)
    if takes(3) and (asynchronous or not takes(2)):
        raise LoadError(
            f'{target}: this is an ASGI application: set server.protocol = "asgi", or name the '
            "WSGI application of your framework"
        )
    if asynchronous:
        raise LoadError(
            f"{target}: a WSGI application is a plain function, and this is an `async def`"
        )
    if takes(2):
        return
    _refuse_factory(target, application, takes)
    raise LoadError(
        f"{target}: a WSGI application is called with (environ, start_response), and this takes "
        f"{_signature(application)}"
    )


def _check_asgi_application(target: str, application: Callable[..., object]) -> None:
    """Raises LoadError for what cannot be an ASGI application: the first request would show it."""
    takes = _arity(application)
    if takes is None or takes(3):
        return
    if takes(2):
        raise LoadError(
            f'{target}: this is a WSGI application: set server.protocol = "wsgi", or name the ASGI '
            "application of your framework"
        )
    _refuse_factory(target, application, takes)
    raise LoadError(
        f"{target}: an ASGI application is called with (scope, receive, send), and this takes "
        f"{_signature(application)}"
    )


def _check_handler(target: str, handler: Callable[..., object]) -> None:
    """Raises LoadError for what cannot be a TCP handler: the first connection would show it."""
    import inspect

    inner = _function_of(handler)
    if inspect.iscoroutinefunction(inner) or inspect.isasyncgenfunction(inner):
        raise LoadError(
            f"{target}: a TCP handler is a plain function, and this is an `async def`; call "
            "asyncio.run() in a plain function, or use threads"
        )
    if inspect.isgeneratorfunction(inner):
        raise LoadError(
            f"{target}: a TCP handler is a plain function, and this one has a `yield`: its body "
            "would never run; call sock.sendall() instead"
        )
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):  # a builtin without a signature
        return
    try:
        signature.bind(None, None)
    except TypeError:
        raise LoadError(
            f"{target}: a TCP handler is called with (sock, address), and this takes {signature}"
        ) from None


def _meant(owner: Any, name: str) -> str:
    """The end of an error text: what may have been meant by a name that is not there."""
    if near := nearest(name, dir(owner)):
        return f"; did you mean {near[0]!r}?"
    for place in getattr(owner, "__path__", ()):  # a project of Django
        if os.path.isfile(os.path.join(place, "wsgi.py")):
            return f"; did you mean {owner.__name__}.wsgi?"
    return ""


def find(target: str, key: str = "server.app") -> Any:
    """Imports `module:name`, or calls the factory `module:name()`; `key` is the key that names it.

    Raises LoadError, and whatever the module raises when it is imported.
    """
    global importing
    module_name, _, path = target.partition(":")
    factory = path.endswith("()")
    path = path.removesuffix("()")
    importing = module_name
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as problem:
        # If an import of the application's own fails, its developer needs the traceback.
        if problem.name is None or not f"{module_name}.".startswith(f"{problem.name}."):
            raise
        raise LoadError(
            f"{target}: there is no module {problem.name!r}; "
            f"check {key}, server.chdir and server.pythonpath"
        ) from None
    finally:
        importing = ""
    where = module_name
    for name in path.split("."):
        try:
            found = getattr(found, name)
        except AttributeError:
            hint = _meant(found, name)
            raise LoadError(f"{target}: {where} has no {name!r}{hint}") from None
        where = f"{where}.{name}"
    if not callable(found):
        raise LoadError(f"{target}: {where} is {type(found).__name__}, which is not callable")
    if factory:
        _check_factory(target, found)
        found = found()
        if not callable(found):
            raise LoadError(
                f"{target}: the factory returned {type(found).__name__}, which is not callable"
            )
    return found
