"""Requests that the server answers itself are in the access log, in the metrics and in the log."""

import json
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.raw_http import request, talk
from tests.support.server import BRIDGED, Server, Start
from tests.support.waiting import PATIENCE, until

BASIC = "tests.apps.basic:app"

REFUSED = [
    (b"GET /bad HTTP/9.9\r\n\r\n", 505),
    (b"GET /x HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n", 400),
    (b"GET /nohost HTTP/1.1\r\n\r\n", 400),
    (b"GET /long" + b"x" * 400 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    (b"GET /head HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 2000 + b"\r\n\r\n", 431),
    (b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 2000\r\n\r\n", 413),
    (
        b"POST /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n7d0\r\n"
        + b"x" * 2000,
        413,
    ),
    (b"POST /te HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", 501),
    (b"GET /unfinished HTTP/1.1\r\nHost: a\r\n", 408),
    (b"POST /body HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nx", 408),
    (b"HEAD /nohost HTTP/1.1\r\n\r\n", 400),
]

LIMITS = (
    *("--set", "http.max_request_line=300", "--set", "http.max_header_size=1500"),
    *("--set", "http.max_body=1000", "--set", "http.header_timeout=1"),
    *("--set", "http.body_timeout=1", "--set", "http.max_connections=2"),
)


def counted(server: Server) -> dict[str, float]:
    """Answered requests by their class of status, as a collector sees them."""
    port = int(server.wait("metrics served")["address"].rpartition(":")[2])
    text = server_metrics(port)
    return {
        sample.labels["status"]: sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == "prefork_requests_total"
    }


def server_metrics(port: int) -> str:
    import http.client

    connection = http.client.HTTPConnection("127.0.0.2", port, timeout=PATIENCE)
    try:
        connection.request("GET", "/metrics")
        return connection.getresponse().read().decode()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "kind",
    [(BASIC,), (BASIC, "--threads", "3"), BRIDGED],
    ids=["1 thread", "3 threads", "event loop"],
)
def test_each_refused_request_is_a_line_and_a_count(
    start: Start, tmp_path: Path, kind: tuple[str, ...]
) -> None:
    log = tmp_path / "access"
    server = start(
        *(*kind, "--workers", "1", *LIMITS),
        *("--set", f"log.access={log}", "--set", "log.access_format=json"),
        *("--set", "metrics.bind=127.0.0.2:0"),
    ).wait_ready(1)
    answers = []
    for data, status in REFUSED:
        with talk(server) as client:
            client.send(data)
            answer = client.answer("HEAD" if data.startswith(b"HEAD") else "GET")
            assert (answer.status, data[:20]) == (status, data[:20])
            answers.append(answer)
    assert b"(http.max_body)" in answers[5].body
    with talk(server) as client:  # the second of two in one packet
        client.send(request("/pid") + b"nonsense\r\n\r\n")
        assert client.answer().status == 200
        answers.append(client.answer())
    # The ends of those before have been seen: there is room for two.
    until(lambda: server.status()["workers"][0]["held"] == 0)
    with talk(server) as first, talk(server) as second:
        for each in (first, second):
            each.send(request("/held", "Content-Length: 1", "Expect: 100-continue", method="POST"))
            assert [each.line(), each.line()] == ["HTTP/1.1 100 Continue", ""]  # it is not idle
        with talk(server) as third:
            answers.append(third.ask(request("/full")))
            assert answers[-1].status == 503
        answers += [first.answer(), second.answer()]
    wanted = [answer.status for answer in answers]
    until(lambda: counted(server)["4xx"] == sum(status < 500 for status in wanted))
    assert counted(server)["5xx"] == sum(status >= 500 for status in wanted)
    assert counted(server)["2xx"] == 1
    server.stop()
    lines = [json.loads(line) for line in log.read_text().splitlines()]
    assert sorted(line["status"] for line in lines) == sorted([*wanted, 200])
    by_uri = {line["uri"]: line for line in lines}
    assert by_uri["/length"]["method"] == "POST"
    assert by_uri["/nohost"]["size"] in (0, len(answers[2].body))
    assert by_uri["/unfinished"]["status"] == 408
    assert by_uri["/body"]["status"] == 408
    assert by_uri["/full"]["status"] == 503
    assert {line["remote_addr"] for line in lines} == {"127.0.0.1"}
    events = server.find("requests refused", level="info")
    assert sum(event["count"] for event in events) == len(wanted)
    assert len(events) < len(wanted)
    assert any("413: http.max_body" in (event["key"] or "") for event in events)


def test_a_malformed_line_stands_in_the_access_log_as_it_came(start: Start, tmp_path: Path) -> None:
    log = tmp_path / "access"
    server = start(BASIC, "--workers", "1", "--set", f"log.access={log}").wait_ready(1)
    with talk(server) as client:
        assert client.ask(b'GET "friend"\r\n\r\n').status == 400
    server.stop()
    assert '"GET \\"friend\\"" 400 ' in log.read_text()
