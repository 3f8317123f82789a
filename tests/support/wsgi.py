"""The server's side of PEP 3333, for tests that call an application themselves."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from wsgiref.util import setup_testing_defaults
from wsgiref.validate import validator


class StartResponse:
    """Keeps what an application says of its response, which it may say once."""

    def __init__(self) -> None:
        self.status = ""
        self.headers: dict[str, str] = {}
        self.written: list[bytes] = []
        """The pieces given to write()."""

    def __call__(
        self, status: str, headers: list[tuple[str, str]], exc_info: Any = None
    ) -> Callable[[bytes], None]:
        assert not self.status, "start_response was called twice"
        self.status, self.headers = status, dict(headers)
        assert len(self.headers) == len(headers), "a header is there twice"
        return self.written.append


@dataclass
class Answer:
    code: int
    headers: dict[str, str]
    body: bytes


def environ_for(path: str, method: str = "GET", query: str = "", **headers: str) -> dict[str, Any]:
    """The environ for a decoded path; `if_range="x"` is the header If-Range."""
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method,
        "SCRIPT_NAME": "",
        "PATH_INFO": path.encode("utf-8", "surrogateescape").decode("latin-1"),
        "QUERY_STRING": query,
    }
    environ |= {f"HTTP_{name.upper()}": value for name, value in headers.items()}
    setup_testing_defaults(environ)
    return environ


def call(application: Any, environ: dict[str, Any]) -> Answer:
    started = StartResponse()
    result: Any = validator(application)(environ, started)  # has close(), as PEP 3333 wants it
    try:
        body = b"".join(result)
    finally:
        result.close()
    return Answer(int(started.status[:3]), started.headers, body)
