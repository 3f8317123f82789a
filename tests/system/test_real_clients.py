"""Clients that people use, each with what it does in its own way."""

import asyncio
import gzip
import hashlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import httpx
import pytest
import requests

from tests.support.server import Server, servers
from tests.support.waiting import PATIENCE
from tests.system.test_http import APP

BODY = bytes(range(256)) * 12_000
DIGEST = hashlib.sha256(BODY).hexdigest()
PAGE = b"<p>a line of the page</p>\n" * 500


@pytest.fixture(scope="module")
def server(tmp_path_factory: Any) -> Iterator[Server]:
    place = tmp_path_factory.mktemp("clients")
    (place / "www").mkdir()
    (place / "www" / "page.html").write_bytes(PAGE)
    (place / "www" / "large.bin").write_bytes(BODY)
    config = place / "site.toml"
    config.write_text(
        f'[server]\napp = "{APP}"\nchdir = "{Path.cwd()}"\n'
        '[workers]\ncount = 2\n[http]\ncompress = ["gzip"]\nkeepalive = 60\n'
        '[static]\nmounts = { "/static/" = "www" }\n'
    )
    for start in servers(place):
        yield start(str(config)).wait_ready(2)


def url(server: Server, path: str) -> str:
    return f"http://127.0.0.1:{server.port}{path}"


def run(*command: str, input: bytes | None = None) -> bytes:
    if shutil.which(command[0]) is None:
        pytest.skip(f"{command[0]} is not installed")
    done = subprocess.run(command, input=input, capture_output=True, timeout=PATIENCE * 2)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


# curl


def test_curl_waits_for_100_before_a_large_body_and_sends_another_in_chunks(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "body").write_bytes(BODY)
    told = run(
        *("curl", "-sS", "-v", "--stderr", "-", "--data-binary", f"@{tmp_path}/body"),
        url(server, "/digest"),
    )
    assert b"< HTTP/1.1 100 Continue" in told
    assert DIGEST.encode() in told
    told = run("curl", "-sS", "-T", "-", "-X", "POST", url(server, "/digest"), input=BODY)
    assert DIGEST.encode() in told


def test_curl_keeps_its_connection_and_goes_on_with_a_download(
    server: Server, tmp_path: Path
) -> None:
    large = url(server, "/static/large.bin")
    told = run("curl", "-sS", "-w", " %{num_connects}\n", *[url(server, "/nolength")] * 3)
    assert told.split(b"\n")[:3] == [
        b"no length given 1",
        b"no length given 0",
        b"no length given 0",
    ]
    target = tmp_path / "large"
    target.write_bytes(BODY[:100_000])
    run("curl", "-sS", "-C", "-", "-o", str(target), large)
    assert target.read_bytes() == BODY
    parts = run("curl", "-sS", "-r", "0-4,100-104", large)
    assert parts.count(b"Content-Range: bytes ") == 2
    assert b"200" in run("curl", "-sS", "-I", large).split(b"\r\n")[0]
    packed = run("curl", "-sS", "-H", "Accept-Encoding: gzip", url(server, "/static/page.html"))
    assert gzip.decompress(packed) == PAGE
    assert run("curl", "-sS", "--compressed", url(server, "/static/page.html")) == PAGE
    assert run("curl", "-sS", "-0", url(server, "/stream?n=2")) == b"piece 0\npiece 1\n"


@pytest.mark.parametrize("data", [["-d", "x" * 100], ["-T", "-"]], ids=["length", "chunks"])
def test_curl_that_would_rather_speak_http2_sends_a_body(server: Server, data: list[str]) -> None:
    """It asks for an upgrade, which RFC 9110 section 7.8 lets a server ignore."""
    told = run(
        *("curl", "-sS", "-v", "--stderr", "-", "--http2", "-X", "POST", *data),
        *("-w", " %{http_version} %{num_connects}", url(server, "/digest"), url(server, "/digest")),
        input=b"x" * 100,
    )
    if b"Upgrade: h2c" not in told:
        pytest.skip("this curl was built without HTTP/2")
    assert b" 1.1 1" in told  # HTTP/1.1, a new connection
    assert b" 1.1 0" in told  # HTTP/1.1, the same one
    assert told.count(hashlib.sha256(b"x" * 100).hexdigest().encode()) >= 1
    assert b"HTTP/1.1 400" not in told


# Java, Node, Go


def test_java_with_its_defaults(server: Server, tmp_path: Path) -> None:
    """Over http each of its requests asks for an upgrade to h2c, also one with a body."""
    source = tmp_path / "Client.java"
    source.write_text(JAVA)
    told = run("java", "-Xshare:auto", "-XX:TieredStopAtLevel=1", str(source), url(server, "/echo"))
    assert told.decode().split("\n")[:-1] == [
        "200 HTTP_1_1 0",
        "200 HTTP_1_1 5",
        "200 HTTP_1_1 100000",
        "200 HTTP_1_1 100000",
        "200 HTTP_1_1 5",
    ]


JAVA = """
import java.io.ByteArrayInputStream;
import java.net.URI;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublisher;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse.BodyHandlers;

public class Client {
    public static void main(String[] given) throws Exception {
        var client = HttpClient.newHttpClient();
        var large = new byte[100_000];
        var requests = new BodyPublisher[] {
            BodyPublishers.noBody(),
            BodyPublishers.ofString("hello"),
            BodyPublishers.ofByteArray(large),
            BodyPublishers.ofInputStream(() -> new ByteArrayInputStream(large)),
            BodyPublishers.ofString("again"),
        };
        for (var body : requests) {
            var request = HttpRequest.newBuilder(URI.create(given[0])).POST(body).build();
            var answer = client.send(request, BodyHandlers.ofByteArray());
            System.out.println(
                answer.statusCode() + " " + answer.version() + " " + answer.body().length);
        }
    }
}
"""


def test_fetch_of_node(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "client.mjs"
    source.write_text(NODE)
    told = run("node", str(source), url(server, "")).decode().split("\n")[:-1]
    if told == ["too old"]:
        pytest.skip("does not apply: this Node has no fetch, or no streams that can be sent by it")
    assert told == ["1 120", "2 120", "done"]


NODE = """
const base = process.argv[2];
if (typeof fetch === "undefined" || ReadableStream.from === undefined) {
  console.log("too old");
  process.exit(0);
}
const large = new Uint8Array(1_000_000);
async function size(options) {
  const answer = await fetch(base + "/echo", options);
  if (answer.status !== 200) throw new Error(String(answer.status));
  return (await answer.arrayBuffer()).byteLength;
}
async function* pieces() {
  for (let at = 0; at < 10; at++) yield large.subarray(at * 100_000, (at + 1) * 100_000);
}
for (const round of [1, 2]) {
  const all = [];
  for (let number = 0; number < 40; number++) {
    all.push(size({ method: "POST", body: "x".repeat(number) }));
    all.push(size({ method: "POST", body: large }));
    all.push(size({ method: "POST", body: ReadableStream.from(pieces()), duplex: "half" }));
  }
  const sizes = await Promise.all(all);
  for (let number = 0; number < 40; number++) {
    const [small, whole, streamed] = sizes.slice(number * 3, number * 3 + 3);
    if (small !== number || whole !== 1_000_000 || streamed !== 1_000_000) {
      throw new Error(`${small} ${whole} ${streamed}`);
    }
  }
  console.log(round, sizes.length);
}
console.log("done");
"""


def test_the_client_of_go(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "client.go"
    source.write_text(GO)
    told = run("go", "run", str(source), url(server, "/echo"))
    assert told.decode().split("\n")[:-1] == ["200 0", "200 5", "200 100000", "200 100000"]


GO = """
package main

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
)

func main() {
	large := make([]byte, 100000)
	for _, body := range []io.Reader{
		nil,
		strings.NewReader("hello"),
		bytes.NewReader(large),
		io.MultiReader(bytes.NewReader(large)), // of a length that is not known
	} {
		answer, problem := http.Post(os.Args[1], "text/plain", body)
		if problem != nil {
			panic(problem)
		}
		data, problem := io.ReadAll(answer.Body)
		if problem != nil {
			panic(problem)
		}
		fmt.Println(answer.StatusCode, len(data))
	}
}
"""


# requests, httpx, aiohttp


def test_requests(server: Server) -> None:
    with requests.Session() as session:
        assert session.get(url(server, "/static/page.html")).content == PAGE
        assert session.post(url(server, "/digest"), data=BODY).json()["sha256"] == DIGEST
        pieces = (BODY[at : at + 100_000] for at in range(0, len(BODY), 100_000))
        assert session.post(url(server, "/digest"), data=pieces).json()["sha256"] == DIGEST
        with session.get(url(server, "/stream?n=50"), stream=True) as answer:
            assert list(answer.iter_lines()) == [b"piece %d" % n for n in range(50)]
        assert session.head(url(server, "/big?n=5000")).headers["Content-Length"] == "5000"
        part = session.get(url(server, "/static/large.bin"), headers={"Range": "bytes=-256"})
        assert (part.status_code, part.content) == (206, BODY[-256:])
        files = {"file": ("name", BODY)}
        sent = session.post(url(server, "/echo"), files=files)
        assert BODY in sent.content


def test_httpx(server: Server) -> None:
    with httpx.Client() as client:
        answer = client.get(url(server, "/static/page.html"))
        assert (answer.content, answer.headers["Content-Encoding"]) == (PAGE, "gzip")
        assert client.post(url(server, "/digest"), content=BODY).json()["sha256"] == DIGEST
        pieces = (BODY[at : at + 100_000] for at in range(0, len(BODY), 100_000))
        assert client.post(url(server, "/digest"), content=pieces).json()["sha256"] == DIGEST
        with client.stream("GET", url(server, "/stream?n=50")) as streamed:
            assert list(streamed.iter_lines()) == [f"piece {n}" for n in range(50)]


def test_aiohttp_with_fifty_at_a_time(server: Server) -> None:
    async def main() -> None:
        async def one(session: aiohttp.ClientSession, number: int) -> None:
            body = b"%d " % number * number
            async with session.post(url(server, "/echo"), data=body) as answer:
                assert await answer.read() == body
            async with session.get(url(server, "/stream?n=5")) as answer:
                assert (await answer.read()).count(b"piece") == 5
            async with session.get(url(server, "/static/page.html")) as answer:
                assert await answer.read() == PAGE

        async with aiohttp.ClientSession() as session:
            await asyncio.gather(*(one(session, number) for number in range(100)))

            async def pieces() -> Any:
                for at in range(0, len(BODY), 100_000):
                    yield BODY[at : at + 100_000]

            async with session.post(url(server, "/digest"), data=pieces()) as answer:
                assert (await answer.json())["sha256"] == DIGEST

    asyncio.run(main())


# What measures servers


@pytest.mark.parametrize("path", ["/stream?n=3", "/static/page.html"])
def test_wrk(server: Server, path: str) -> None:
    told = run("wrk", "-t1", "-c16", "-d1", "--timeout", "30", url(server, path)).decode()
    assert "Socket errors" not in told
    assert "Non-2xx" not in told
    assert int(re.findall(r"(\d+) requests in", told)[0]) > 0


@pytest.mark.parametrize("keep", [["-k"], []], ids=["keep-alive", "close"])
def test_ab(server: Server, keep: list[str]) -> None:
    told = run("ab", "-q", *keep, "-n", "400", "-c", "16", url(server, "/nolength")).decode()
    assert re.search(r"Complete requests: +400\b", told)
    assert re.search(r"Failed requests: +0\b", told)
    assert "Non-2xx" not in told
    assert bool(re.search(r"Keep-Alive requests: +400\b", told)) is bool(keep)
