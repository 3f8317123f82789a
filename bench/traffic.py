"""What browsers and clients of an API send, and the application that answers them.

A run of `#` is another number in each request; see `bench.closed_loop.Ask`.
"""

import json
from collections.abc import Iterable
from wsgiref.types import StartResponse, WSGIEnvironment

from bench.hello import app as hello

API = json.dumps(
    [
        {"id": number, "name": f"item {number}", "price": number * 3.25, "tags": ["new", "red"]}
        for number in range(100, 130)
    ]
)
"""The answer of the API, 2 KB."""

_API_BODY = API.encode()

_HOST = "Host: shop.example\r\n"
_BROWSER = (
    f"{_HOST}User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:143.0) Gecko/20100101 Firefox/143.0\r\n"
    "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    "Accept-Language: en-GB,en;q=0.7,de;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    "Connection: keep-alive\r\nUpgrade-Insecure-Requests: 1\r\nSec-Fetch-Site: same-origin\r\n"
)
_CLIENT = f"{_HOST}User-Agent: python-requests/2.32\r\nAccept: application/json\r\n"


def post(path: str, fields: str, body: str) -> str:
    return f"POST {path} HTTP/1.1\r\n{fields}Content-Length: {len(body)}\r\n\r\n{body}"


PAGE = (
    f"GET /articles/######## HTTP/1.1\r\n{_BROWSER}Referer: https://shop.example/articles/\r\n"
    "Cookie: session=################\r\nX-Request-ID: ################\r\n\r\n"
)
"""A browser's GET: 11 fields; path, cookie and id are new each time."""

COOKIES = (
    f"GET /account HTTP/1.1\r\n{_BROWSER}"
    f"Cookie: session=################; settings={'abcdefgh' * 508}\r\n\r\n"
)
"""A browser's GET with 4 KB of cookies, which are new each time."""

ITEMS = (
    f"GET /api/items?after=######## HTTP/1.1\r\n{_CLIENT}"
    "Authorization: Bearer ################################\r\n\r\n"
)
"""GET of an API, with a token that is new each time."""

ORDER = post(
    "/orders",
    f"{_CLIENT}Content-Type: application/json\r\n",
    f'{{"order": "################", "note": "{"n" * 983}"}}',
)
"""POST of 1 KB of JSON."""

FORM = post(
    "/form",
    f"{_BROWSER}Content-Type: application/x-www-form-urlencoded\r\n"
    "Cookie: session=################\r\n",
    f"token=################&text={'word+' * 2043}",
)
"""POST of a form of 10 KB."""


def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Reads the whole body, and answers the API's paths with 2 KB of JSON, all others as hello."""
    left = int(environ.get("CONTENT_LENGTH") or 0)
    while left:
        data = environ["wsgi.input"].read(min(left, 65536))
        assert data, "the body ended before its time"
        left -= len(data)
    if not environ["PATH_INFO"].startswith("/api/"):
        return hello(environ, start_response)
    assert environ["HTTP_AUTHORIZATION"].startswith("Bearer ")
    headers = [("Content-Type", "application/json"), ("Content-Length", str(len(_API_BODY)))]
    start_response("200 OK", headers)
    return [_API_BODY]
