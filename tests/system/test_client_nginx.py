"""The client against nginx, on a Unix socket."""

import gzip
from collections.abc import Iterator
from typing import Any

import pytest

from prefork.client import ClientRequest, ClientResponse, HttpClient, RequestContent, parse_url
from tests.support.nginx import nginx_running

MIB = 1 << 20

SITE = """
    types {{ text/plain txt; }}
    gzip on;
    gzip_types text/plain;
    server {{
        listen unix:{root}/sock;
        root {root}/www;
        location /old {{ return 301 /big.txt; }}
        location /sink {{ client_max_body_size 0; return 200 "taken"; }}
    }}
"""

BIG = b"\n".join(map(b"line %d".__mod__, range(200_000)))


@pytest.fixture(scope="module")
def nginx(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The path of the socket."""
    root = tmp_path_factory.mktemp("nginx")
    (root / "www").mkdir()
    (root / "www" / "big.txt").write_bytes(BIG)
    with nginx_running(root, SITE.format(root=root)):
        yield str(root / "sock")


@pytest.fixture
def client() -> Iterator[HttpClient]:
    with HttpClient(timeout=60) as client:
        yield client


def request(client: HttpClient, nginx: str, path: str, **options: Any) -> ClientResponse:
    url = parse_url(f"http://localhost{path}", nginx)
    return client.request(ClientRequest(url, **options), redirects=5)


def test_a_file(client: HttpClient, nginx: str) -> None:
    response = request(client, nginx, "/big.txt")
    assert response.status == 200
    assert response.length == len(BIG)
    assert b"".join(response) == BIG
    assert response.reusable


def test_a_head_and_a_range_on_one_connection(client: HttpClient, nginx: str) -> None:
    head = request(client, nginx, "/big.txt", method="HEAD")
    assert b"".join(head) == b""
    assert head.reusable
    part = request(client, nginx, "/big.txt", headers=(("Range", "bytes=5-8"),))
    assert (part.status, b"".join(part)) == (206, BIG[5:9])


def test_chunks(client: HttpClient, nginx: str) -> None:
    response = request(client, nginx, "/big.txt", headers=(("Accept-Encoding", "gzip"),))
    assert ("Transfer-Encoding", "chunked") in response.headers
    assert gzip.decompress(b"".join(response)) == BIG
    assert response.reusable


def test_a_redirect(client: HttpClient, nginx: str) -> None:
    assert b"".join(request(client, nginx, "/old")) == BIG


def test_a_body_that_is_too_large(client: HttpClient, nginx: str) -> None:
    response = request(
        client, nginx, "/big.txt", method="POST", body=RequestContent(bytes(64 * MIB))
    )
    assert response.status == 413
    assert b"413" in b"".join(response)


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_that_is_taken_after_the_answer(
    client: HttpClient, nginx: str, chunked: bool
) -> None:
    headers = (("Transfer-Encoding", "chunked"),) if chunked else ()
    body = RequestContent(bytes(16 * MIB))
    response = request(client, nginx, "/sink", method="POST", headers=headers, body=body)
    assert (response.status, b"".join(response)) == (200, b"taken")
    assert b"".join(request(client, nginx, "/big.txt")) == BIG


def test_a_bad_request_is_answered(client: HttpClient, nginx: str) -> None:
    assert request(client, nginx, "/big.txt", headers=(("Host", None),)).status == 400
