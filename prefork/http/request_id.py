"""A name for each request, by which its traces in several logs are found."""

import itertools
import os
import re

from prefork.http.head_rules import cgi_name
from prefork.http.request import Request

KEY = "prefork.request_id"
"""In the environ."""

_GOOD = re.compile(r"[A-Za-z0-9._~+/=:@,-]{1,64}")
"""An id that a client may choose: nothing that a log, a header or a shell would misread."""


class RequestIds:
    """Takes the id from a header, or gives a new one and puts it there.

    The application finds it under KEY and under the header's own name, the client in the same
    header of the response.
    """

    def __init__(self, header: str) -> None:
        """`header`: its name, as it is to stand in responses."""
        self._name = cgi_name(header.encode())
        self._line = header.encode() + b": "
        self._numbers = itertools.count(1)
        self._prefix = os.urandom(6).hex()  # of this worker: no two have the same

    def give(self, request: Request) -> None:
        environ = request.environ
        given = environ.get(self._name)
        if given is None or not _GOOD.fullmatch(given):
            given = f"{self._prefix}-{next(self._numbers):x}"
            environ[self._name] = given
        environ[KEY] = request.id = given
        request.id_line = self._line + given.encode() + b"\r\n"
