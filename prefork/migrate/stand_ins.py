"""Modules that a configuration file imports for its hooks, where they are not installed."""

import os
from collections.abc import Iterator, MutableMapping
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import FunctionType, ModuleType
from typing import Any

STAND_INS = frozenset(
    {
        *("gunicorn", "gevent", "eventlet", "greenlet", "psycogreen", "tornado", "uvicorn"),
        *("uvicorn_worker", "meinheld", "aiohttp", "prometheus_client", "dotenv", "ddtrace"),
        *("newrelic", "sentry_sdk", "opentelemetry", "elasticapm", "datadog", "statsd"),
        *("scout_apm", "honeybadger", "rollbar", "logfire", "structlog", "loguru", "watchtower"),
        *("pythonjsonlogger", "json_log_formatter", "logstash_formatter", "ecs_logging"),
    }
)
"""Top-level modules that are stood in for."""


class StandIn(ModuleType):
    """A module that is not installed: each of its names is an object that takes everything."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"{self.__name__}.{name}")


class Anything:
    """What such a module has: called, subclassed or used as a decorator, it is itself again."""

    def __init__(self, path: str, *_: object, **__: object) -> None:
        self.path = path

    def __call__(self, *args: object, **_: object) -> Any:
        # As a decorator it leaves a function as it is.
        return args[0] if len(args) == 1 and isinstance(args[0], FunctionType) else self

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return Anything(f"{self.path}.{name}")

    def __mro_entries__(self, bases: object) -> tuple[type, ...]:
        return (object,)

    def __getitem__(self, key: object) -> Any:
        return self

    def __setitem__(self, key: object, value: object) -> None:
        pass

    def __iter__(self) -> Iterator[Any]:
        return iter(())

    def __enter__(self) -> Any:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __bool__(self) -> bool:
        return False


class Finder(MetaPathFinder, Loader):
    """The last entry of sys.meta_path: it replaces modules that no other entry finds."""

    def __init__(self, environ: MutableMapping[str, str]) -> None:
        """`environ`: the real environment, which load_dotenv() adds to."""
        self._environ = environ
        self.used: set[str] = set()
        """Top-level modules that were stood in for."""
        self.env_files: list[str] = []
        """What load_dotenv() was called for."""

    def find_spec(self, name: str, path: object, target: object = None) -> ModuleSpec | None:
        top = name.partition(".")[0]
        if top not in STAND_INS:
            return None
        self.used.add(top)
        return ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return StandIn(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        if module.__name__ == "dotenv":
            vars(module)["load_dotenv"] = self._load_dotenv

    def _load_dotenv(self, dotenv_path: Any = None, *_: object, **options: Any) -> bool:
        """Reads plain KEY=VALUE lines. As with the real one, what is set already stays."""
        path = os.fspath(dotenv_path or ".env")
        self.env_files.append(path)
        try:
            with open(path, encoding="utf-8") as file:
                lines = file.read().splitlines()
        except OSError:
            return False
        for line in lines:
            text, equals, value = line.strip().removeprefix("export ").partition("=")
            name = text.strip()
            free = options.get("override") or name not in self._environ
            if equals and free and not name.startswith("#"):
                self._environ[name] = value.strip().strip("'\"")
        return True
