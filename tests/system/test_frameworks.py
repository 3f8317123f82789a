"""Flask and Django applications, used as a browser uses them, by several workers."""

import hashlib
import http.client
import json
import random
import re
from collections.abc import Iterator
from contextlib import suppress
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPCookieProcessor, OpenerDirector, build_opener

import pytest

from tests.support.commands import ROOT
from tests.support.raw_http import chunked, talk
from tests.support.server import Server, Start, servers
from tests.support.waiting import PATIENCE

TARGETS = {"flask": "examples.flask_app:app", "django": "examples.django_app:application"}
STYLE = b"body { color: teal }\n"
PICTURE = random.Random(5).randbytes(2_000_000)


@pytest.fixture(
    scope="module",
    params=[(framework, threads) for framework in TARGETS for threads in (1, 4)],
    ids=lambda param: f"{param[0]}, threads = {param[1]}",
)
def choice(request: pytest.FixtureRequest) -> tuple[str, int]:
    chosen: tuple[str, int] = request.param
    return chosen


@pytest.fixture(scope="module")
def framework(choice: tuple[str, int]) -> str:
    return choice[0]


@pytest.fixture(scope="module")
def server(choice: tuple[str, int], tmp_path_factory: Any) -> Iterator[Server]:
    """Two workers, and two directories beside the application, by a configuration file."""
    framework, threads = choice
    tmp = tmp_path_factory.mktemp(framework)
    assets = tmp / "assets"
    (assets / "pictures").mkdir(parents=True)
    (tmp / "pictures").mkdir()
    (assets / "style.css").write_bytes(STYLE)
    (assets / "pictures" / "large.png").write_bytes(b"behind another directory")
    (tmp / "pictures" / "large.png").write_bytes(PICTURE)
    (tmp / "secret").write_text("not to be had")
    config = tmp / "site.toml"
    config.write_text(
        f"""
        [server]
        app = "{TARGETS[framework]}"
        chdir = "{ROOT}"
        [workers]
        count = 2
        threads = {threads}
        [static]
        mounts = {{ "/static/" = "assets", "/static/pictures/" = "pictures" }}
        """
    )
    for start in servers(tmp):
        server = start(str(config)).wait_ready(2)
        yield server
        assert server.other == []


class Browser:
    """Keeps cookies, follows redirects, fills in forms; a connection for each request."""

    def __init__(self, server: Server) -> None:
        self.cookies = CookieJar()
        self._url = f"http://127.0.0.1:{server.port}"
        self._opener: OpenerDirector = build_opener(HTTPCookieProcessor(self.cookies))

    def get(self, path: str) -> tuple[int, str]:
        return self._open(path, None)

    def post(self, path: str, **fields: str) -> tuple[int, str]:
        return self._open(path, urlencode(fields).encode())

    def _open(self, path: str, data: bytes | None) -> tuple[int, str]:
        try:
            with self._opener.open(self._url + path, data, PATIENCE) as answer:
                return answer.status, answer.read().decode()
        except HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    def token(self, page: str) -> dict[str, str]:
        """The hidden field of Django's forms; Flask's have none."""
        found = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', page)
        return {} if found is None else {"csrfmiddlewaretoken": found[1]}


def test_pages_by_every_worker_with_a_session_that_all_of_them_know(server: Server) -> None:
    browser = Browser(server)
    pids = set()
    for visit in range(1, 13):
        status, page = browser.get("/")
        assert status == 200
        told = re.search(r"Worker (\d+) answers; you were here (\d+) times", page)
        assert told is not None, page
        assert int(told[2]) == visit
        pids.add(int(told[1]))
    assert pids == {worker.pid for worker in server.workers()}


def test_a_form_is_filled_in_and_answered_with_a_redirect(server: Server) -> None:
    browser = Browser(server)
    _, page = browser.get("/")
    status, page = browser.post("/name", name="Zo\xeb & <co>", **browser.token(page))
    assert status == 200
    assert "Hello, Zo\xeb &amp; &lt;co&gt;" in page
    assert browser.post("/name", **browser.token(page))[0] == 400


def test_a_form_without_its_token_is_refused_where_there_is_one(
    server: Server, framework: str
) -> None:
    browser = Browser(server)
    _, page = browser.get("/")
    django = framework == "django"
    assert bool(browser.token(page)) is django
    for fields in ({}, {"csrfmiddlewaretoken": "x" * 64}):
        assert browser.post("/name", name="x", **fields)[0] == (403 if django else 200)


def test_errors_are_the_frameworks_own(server: Server) -> None:
    browser = Browser(server)
    assert browser.get("/nowhere")[0] == 404
    assert browser.get("/name")[0] == 405


def test_cookies(server: Server) -> None:
    browser = Browser(server)
    assert [browser.get("/cookie")[1] for _ in range(3)] == ["1\n", "2\n", "3\n"]


def keep_alive(server: Server) -> http.client.HTTPConnection:
    return http.client.HTTPConnection("127.0.0.1", server.port, timeout=PATIENCE)


SIZE = 50 * 1024 * 1024


@pytest.mark.parametrize("coding", ["length", "chunked"])
def test_an_upload_of_50_mb_arrives_as_it_was_sent(server: Server, coding: str) -> None:
    block = random.Random(6).randbytes(1024 * 1024)
    digest = hashlib.sha256()
    browser = Browser(server)
    _, page = browser.get("/")
    fields = [
        f'--limit\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'
        for name, value in browser.token(page).items()
    ]
    kind = "Content-Type: application/octet-stream"
    file = f'Content-Disposition: form-data; name="file"; filename="large.bin"\r\n{kind}'
    head = "".join([*fields, f"--limit\r\n{file}\r\n\r\n"]).encode()
    tail = b"\r\n--limit--\r\n"

    def body() -> Iterator[bytes]:
        yield head
        for number in range(50):
            piece = number.to_bytes(4, "big") + block[4:]
            digest.update(piece)
            yield piece
        yield tail

    headers = {"Content-Type": "multipart/form-data; boundary=limit"}
    headers["Cookie"] = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
    if coding == "length":
        headers["Content-Length"] = str(len(head) + SIZE + len(tail))
    connection = keep_alive(server)
    connection.request("POST", "/upload", body(), headers, encode_chunked=coding == "chunked")
    answer = connection.getresponse()
    told = json.loads(answer.read())
    assert answer.status == 200
    assert told == {"name": "large.bin", "size": SIZE, "sha256": digest.hexdigest()}
    connection.request("GET", "/cookie")
    assert connection.getresponse().status == 200
    connection.close()


def test_a_stream_is_whole(server: Server) -> None:
    connection = keep_alive(server)
    for _ in range(2):
        connection.request("GET", "/stream?n=200&delay=0")
        answer = connection.getresponse()
        assert answer.getheader("Transfer-Encoding") == "chunked"
        assert answer.read() == b"".join(b"line %d\n" % number for number in range(200))
    connection.close()


def test_a_file_and_its_conditions(server: Server, framework: str) -> None:
    content = (ROOT / "examples" / "README.md").read_bytes()
    connection = keep_alive(server)
    connection.request("GET", "/file")
    answer = connection.getresponse()
    assert answer.read() == content
    assert answer.getheader("Content-Length") == str(len(content))
    modified = answer.getheader("Last-Modified")
    connection.request("HEAD", "/file")
    answer = connection.getresponse()
    # Each has its own mind about HEAD and conditions; no answer to them has a body.
    assert answer.read() == b""
    assert answer.status == (200 if framework == "flask" else 405)
    if framework == "flask":
        connection.request("GET", "/file", headers={"Range": "bytes=2-9"})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (206, content[2:10])
        connection.request("GET", "/file", headers={"If-Modified-Since": modified or ""})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (304, b"")
    connection.request("GET", "/cookie")
    assert connection.getresponse().read() == b"1\n"
    connection.close()


def test_directories_beside_the_application(server: Server) -> None:
    connection = keep_alive(server)

    def get(path: str, **headers: str) -> tuple[int, str | None, bytes]:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.getheader("Content-Type"), answer.read()

    assert get("/static/style.css") == (200, "text/css; charset=utf-8", STYLE)
    assert get("/static/pictures/large.png") == (200, "image/png", PICTURE)
    assert get("/static/pictures/large.png", Range="bytes=-7")[::2] == (206, PICTURE[-7:])
    assert get("/static/nothing.css")[0] == 404
    assert get("/static/../secret")[0] == 404
    assert get("/static/%2e%2e/secret")[0] == 404
    assert get("/cookie")[0] == 200
    connection.close()


def test_the_application_behind_a_mount_of_the_command_line(start: Start, tmp_path: Path) -> None:
    (tmp_path / "robots.txt").write_bytes(b"all are welcome\n")
    server = start(
        *(TARGETS["flask"], "--workers", "1"),
        *("--set", f'static.mounts={{ "/files/" = "{tmp_path}" }}'),
    ).wait_ready(1)
    assert server.get("/files/robots.txt") == (200, b"all are welcome\n")
    assert server.get("/cookie") == (200, b"1\n")


# Django and a body that it reads while it comes.


@pytest.fixture(scope="module")
def streaming(tmp_path_factory: Any) -> Iterator[Server]:
    for start in servers(tmp_path_factory.mktemp("streaming")):
        yield start(
            *(TARGETS["django"], "--workers", "1", "--set", "http.stream_body=true"),
            *("--set", "http.keepalive=60"),
        ).wait_ready(1)


def form(browser: Browser, content: bytes) -> tuple[bytes, tuple[str, ...]]:
    """An upload with its token, as a browser sends it: the body, and the head's lines."""
    _, page = browser.get("/")
    (token,) = browser.token(page).values()
    parts = (
        f'--limit\r\nContent-Disposition: form-data; name="csrfmiddlewaretoken"\r\n\r\n{token}\r\n'
        '--limit\r\nContent-Disposition: form-data; name="file"; filename="some.bin"\r\n'
        "Content-Type: application/octet-stream\r\n\r\n"
    )
    cookies = "; ".join(f"{cookie.name}={cookie.value}" for cookie in browser.cookies)
    lines = ("Content-Type: multipart/form-data; boundary=limit", f"Cookie: {cookies}")
    return parts.encode() + content + b"\r\n--limit--\r\n", lines


# Django keeps a file of up to 2.5 MB in memory, and writes a larger one to disk while it comes.
@pytest.mark.parametrize("size", [0, 1, 100_000, 4_000_000])
@pytest.mark.parametrize("piece", [977, 64 * 1024, 1_000_003])
def test_djangos_upload_handlers_read_a_body_while_it_comes(
    streaming: Server, size: int, piece: int
) -> None:
    content = random.Random(size).randbytes(size)
    body, lines = form(Browser(streaming), content)
    expected = {"name": "some.bin", "size": size, "sha256": hashlib.sha256(content).hexdigest()}
    with talk(streaming) as client:
        for _ in range(2):  # and the connection is in step behind it
            host = f"Host: 127.0.0.1\r\nContent-Length: {len(body)}"
            head = "\r\n".join(("POST /upload HTTP/1.1", host, *lines, "", ""))
            client.send(head.encode())
            for at in range(0, len(body), piece):
                client.send(body[at : at + piece])
            answer = client.answer()
            assert answer.status == 200, answer
            assert json.loads(answer.body) == expected


@pytest.mark.parametrize("size", [1000, 3_000_000])
def test_a_body_that_django_leaves_unread(streaming: Server, size: int) -> None:
    """A little is thrown away, much ends the connection, after an answer that can be read."""
    with talk(streaming) as client:
        head = f"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {size}\r\n\r\n"
        client.send(head.encode())
        with suppress(ConnectionError):
            client.send(b"x" * size)
        answer = client.answer()
        assert (answer.status, answer.closes) == (404, size > 1000)
        if answer.closes:
            assert client.at_end()
        else:
            assert client.ask(b"GET /cookie HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").body == b"1\n"


def test_django_takes_a_chunked_body_for_empty_and_the_connection_stays_in_step(
    streaming: Server,
) -> None:
    """It wants a Content-Length; gathered, such a body has one (see above)."""
    body, lines = form(Browser(streaming), b"content")
    head = "\r\n".join(
        ("POST /upload HTTP/1.1", "Host: 127.0.0.1", "Transfer-Encoding: chunked", *lines, "", "")
    )
    with talk(streaming) as client:
        assert client.ask(head.encode() + chunked(body)).status == 403
        assert client.ask(b"GET /cookie HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n").body == b"1\n"
