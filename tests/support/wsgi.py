"""The server's side of PEP 3333, for tests that call an application themselves."""

from collections.abc import Callable
from typing import Any


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
