"""httpbin, a Flask application with a path for each thing HTTP can do, through `requests`."""

import gzip
import importlib.util
import json
import zlib
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.server import Server, servers
from tests.system.test_http import settings

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("httpbin") is None, reason="httpbin is not installed"
)


class Site(requests.Session):
    def __init__(self, server: Server) -> None:
        super().__init__()
        self._base = f"http://127.0.0.1:{server.port}"

    def request(self, method: Any, url: Any, *args: Any, **options: Any) -> requests.Response:
        options.setdefault("timeout", 30)
        return super().request(method, self._base + url, *args, **options)


@pytest.fixture(scope="module", params=["1", "4"], ids=["1 thread", "4 threads"])
def server(request: pytest.FixtureRequest, tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("httpbin")):
        server = start(
            *("httpbin:app", "--workers", "2", "--threads", request.param),
            *settings("http", keepalive=60),
            *settings("workers", preload="true"),  # one import in place of two
        )
        server.expected_errors |= {"application failed"}  # it raises where a client asks it to
        yield server.wait_ready(2)


@pytest.fixture
def site(server: Server) -> Iterator[Site]:
    with Site(server) as site:
        yield site


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_methods_and_what_they_carry(site: Site, method: str) -> None:
    path = f"/{method.lower()}?a=1&a=2&b=caf%C3%A9"
    told = site.request(method, path, headers={"X-Mine": "yes"}).json()
    assert told["args"] == {"a": ["1", "2"], "b": "café"}
    assert told["headers"]["X-Mine"] == "yes"
    if method != "GET":
        assert site.request(method, path, data={"x": "y"}).json()["form"] == {"x": "y"}
        assert site.request(method, path, json=[1, "ü"]).json()["json"] == [1, "ü"]
        files = {"f": ("name.txt", b"content")}
        assert site.request(method, path, files=files).json()["files"] == {"f": "content"}
        pieces = iter([b"in ", b"chunks"])
        assert site.request(method, path, data=pieces).json()["data"] == "in chunks"


def test_anything_and_head_and_options(site: Site) -> None:
    assert site.request("GET", "/anything/a/b").json()["method"] == "GET"
    head = site.request("HEAD", "/get")
    assert (head.status_code, head.content) == (200, b"")
    assert "GET" in site.request("OPTIONS", "/get").headers["Allow"]


@pytest.mark.parametrize(
    "code", [200, 201, 202, 204, 205, 206, 301, 304, 400, 401, 404, 418, 429, 500, 503]
)
def test_statuses(site: Site, code: int) -> None:
    for method in ("GET", "POST", "HEAD"):
        answer = site.request(method, f"/status/{code}", allow_redirects=False)
        assert answer.status_code == code
    assert site.get("/get").status_code == 200  # on the same connection


def test_redirects(site: Site) -> None:
    for path in ("/redirect/5", "/relative-redirect/3", "/absolute-redirect/3"):
        answer = site.get(path)
        assert (answer.status_code, len(answer.history)) == (200, int(path[-1]))
    answer = site.post("/redirect-to?url=/post&status_code=307", data={"kept": "yes"})
    assert answer.json()["form"] == {"kept": "yes"}


def test_auth(site: Site) -> None:
    assert site.get("/basic-auth/user/word", auth=("user", "word")).json()["authenticated"]
    assert site.get("/basic-auth/user/word", auth=("user", "wrong")).status_code == 401
    assert site.get("/hidden-basic-auth/u/p", auth=("u", "p")).status_code == 200
    assert site.get("/bearer", headers={"Authorization": "Bearer t"}).json()["token"] == "t"
    digest = requests.auth.HTTPDigestAuth("user", "word")
    for path in ("auth/user/word", "auth-int/user/word", "auth/user/word/SHA-256/never"):
        assert site.get(f"/digest-auth/{path}", auth=digest).json()["authenticated"]
    assert site.get("/digest-auth/auth/user/word/MD5").status_code == 401


def test_cookies(site: Site) -> None:
    assert site.get("/cookies/set/a/0").json()["cookies"] == {"a": "0"}
    assert site.get("/cookies/set?a=1&b=2").json()["cookies"] == {"a": "1", "b": "2"}
    assert site.get("/cookies/delete?a").json()["cookies"] == {"b": "2"}
    assert site.get("/cookies").json()["cookies"] == {"b": "2"}


def test_codings(site: Site) -> None:
    assert site.get("/gzip").json()["gzipped"]
    assert site.get("/deflate").json()["deflated"]
    assert site.get("/brotli", stream=True).headers["Content-Encoding"] == "br"
    raw = site.get("/gzip", stream=True).raw.read(decode_content=False)
    assert json.loads(gzip.decompress(raw))["gzipped"]
    raw = site.get("/deflate", stream=True).raw.read(decode_content=False)
    assert json.loads(zlib.decompress(raw))["deflated"]
    assert "∮" in site.get("/encoding/utf8").content.decode()


def test_streams_and_sizes(site: Site) -> None:
    with site.get("/stream/30", stream=True) as answer:
        assert [json.loads(line)["id"] for line in answer.iter_lines()] == list(range(30))
    assert len(site.get("/bytes/50000?seed=1").content) == 50_000
    for chunk in (1, 100, 5000):
        path = f"/stream-bytes/20000?seed=3&chunk_size={chunk}"
        assert site.get(path).content == site.get("/stream-bytes/20000?seed=3").content
    with site.get("/drip?duration=0.2&numbytes=5&code=200", stream=True) as answer:
        assert answer.content == b"*****"
    assert site.get("/delay/0.1").json()["url"].endswith("/delay/0.1")
    assert site.get("/links/5").text.count("<a ") == 4
    assert site.get("/links/5/0").text.count("<a ") == 4


def test_ranges(site: Site) -> None:
    whole = site.get("/range/1000").content
    for text, part in (
        ("bytes=0-9", whole[:10]),
        ("bytes=990-", whole[990:]),
        ("bytes=-5", whole[-5:]),
    ):
        answer = site.get("/range/1000", headers={"Range": text})
        assert (answer.status_code, answer.content) == (206, part)
    assert site.get("/range/10", headers={"Range": "bytes=20-"}).status_code == 416


def test_caches_and_entity_tags(site: Site) -> None:
    assert site.get("/cache").status_code == 200
    since = {"If-Modified-Since": "Wed, 21 Oct 2015 07:28:00 GMT"}
    assert site.get("/cache", headers=since).status_code == 304
    assert site.get("/etag/x", headers={"If-None-Match": '"x"'}).status_code == 304
    assert site.get("/etag/x", headers={"If-Match": '"y"'}).status_code == 412
    assert site.get("/cache/60").headers["Cache-Control"] == "public, max-age=60"


def test_headers_and_formats(site: Site) -> None:
    answer = site.get("/response-headers?X-One=1&X-Two=a&X-Two=b")
    assert answer.headers["X-Two"] == "a, b"
    told = site.get("/headers", headers={"X-List": "1, 2", "User-Agent": "mine"}).json()["headers"]
    assert (told["X-List"], told["User-Agent"]) == ("1, 2", "mine")
    assert site.get("/ip").json()["origin"] == "127.0.0.1"
    assert site.get("/user-agent").json()["user-agent"].startswith("python-requests")
    for path, kind in (
        *(("/html", "text/html"), ("/xml", "application/xml"), ("/json", "application/json")),
        *(("/image/png", "image/png"), ("/image/svg", "image/svg"), ("/robots.txt", "text/plain")),
        *(("/image/jpeg", "image/jpeg"), ("/image/webp", "image/webp"), ("/deny", "text/plain")),
        *(("/", "text/html"), ("/forms/post", "text/html")),
    ):
        answer = site.get(path)
        assert answer.headers["Content-Type"].startswith(kind)
        assert len(answer.content) == int(answer.headers["Content-Length"])
    asked = site.get("/image", headers={"Accept": "image/webp"})
    assert asked.headers["Content-Type"] == "image/webp"
    assert site.get("/uuid").json()["uuid"].count("-") == 4
    assert site.get("/base64/cHJlZm9yaw==").text == "prefork"
