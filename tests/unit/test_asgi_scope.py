"""The scope of a request says what its environ says."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from prefork.http import forwarded
from prefork.http.asgi_scope import http_scope
from prefork.http.field_lines import FieldLines
from prefork.http.limits import RequestLimits
from prefork.http.proxied_reader import ProxiedReader, keys
from prefork.http.reader import RequestReader
from prefork.http.request import Environ
from prefork.http.whole_heads import WholeHeads

BASE: Environ = {
    "SERVER_NAME": "127.0.0.1",
    "SERVER_PORT": "8000",
    "REMOTE_ADDR": "",
    "REMOTE_PORT": "",
    "SCRIPT_NAME": "",
    "wsgi.url_scheme": "http",
}
LIMITS = RequestLimits(8192, 100, 65536, 1 << 20, 65536)
HEADERS = (
    *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Port"),
    *("X-Forwarded-Prefix", "Forwarded"),
)
PROXIED = FieldLines(keys(HEADERS))

NAMES = st.sampled_from(
    [
        *("Accept", "X-A", "x-a", "X_A", "Cookie", "User-Agent", "X-Request-Start"),
        *("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Forwarded-Prefix"),
    ]
)
VALUES = st.sampled_from(
    ["", "a", "a, b", "caf\xe9", " b ", "192.0.2.7", "https", "example.org", "/shop", "text/plain"]
)
TARGETS = st.sampled_from(
    [
        *("/", "/a/b", "/%61?q=%20", "/caf%C3%A9", "/%FF", "/a%2Fb", "//x", "/?", "/a;b?c=d&e"),
        *("http://other/x?y", "HTTP://other:81", "*"),
    ]
)


def joined(scope: dict[str, Any], name: bytes) -> str:
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ("; " if name == b"cookie" else ", ").join(values)


@given(TARGETS, st.lists(st.tuples(NAMES, VALUES), max_size=8), st.booleans(), st.booleans())
def test_scope_and_environ_agree(
    target: str, fields: list[tuple[str, str]], proxied: bool, http11: bool
) -> None:
    method = "OPTIONS" if target == "*" else "GET"
    fields = [("Content-Type", "text/plain"), *fields]
    lines = "".join(f"{name}: {value}\r\n" for name, value in fields)
    data = f"{method} {target} HTTP/1.{int(http11)}\r\nHost: test\r\n{lines}\r\n".encode("latin-1")
    peer = ("127.0.0.1", "1234")
    reader: RequestReader
    if proxied:
        reader = ProxiedReader(BASE, LIMITS, peer, forwarded.trust(["127.0.0.1"]), PROXIED)
    else:
        reader = RequestReader(BASE, LIMITS, peer)
        reader.heads = WholeHeads()
    scopes = []
    for _ in range(4):  # from the third time on the head is found by its bytes
        request = reader.feed(data)
        if request is None:
            return
        environ = request.environ
        scopes.append(http_scope(request))
        reader.next()
        if not http11:
            break
    scope = scopes[0]
    assert all(each == scope for each in scopes)
    assert len({id(each["headers"]) for each in scopes}) == len(scopes)
    assert scope["method"] == environ["REQUEST_METHOD"]
    assert f"HTTP/{scope['http_version']}" == environ["SERVER_PROTOCOL"]
    assert scope["scheme"] == environ["wsgi.url_scheme"]
    assert scope["query_string"].decode("latin-1") == environ["QUERY_STRING"]
    path = environ["SCRIPT_NAME"] + environ["PATH_INFO"]
    assert scope["path"] == path.encode("latin-1").decode("utf-8", "replace")
    assert scope["root_path"] == environ["SCRIPT_NAME"]
    assert scope["raw_path"].startswith(environ["SCRIPT_NAME"].encode())
    assert scope["client"][0] == environ["REMOTE_ADDR"]
    assert str(scope["client"][1] or "") == environ["REMOTE_PORT"]
    assert scope["server"] == (environ["SERVER_NAME"], int(environ["SERVER_PORT"]))
    names = {name for name, _ in scope["headers"]}
    for key, value in environ.items():
        if key.startswith("HTTP_") or key in ("CONTENT_TYPE", "CONTENT_LENGTH"):
            name = key.removeprefix("HTTP_").lower().replace("_", "-").encode()
            assert joined(scope, name) == value
            names.discard(name)
    assert not names
