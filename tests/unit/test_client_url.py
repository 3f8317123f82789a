"""The client's URLs: what a user may write, and where a redirect leads."""

import base64

import pytest

from prefork.client.url import URL, parse_url, resolve


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("http://example.org", URL("http", "example.org", 80)),
        ("HTTP://Example.ORG/a?b=c#d", URL("http", "example.org", 80, "/a?b=c")),
        ("https://example.org/", URL("https", "example.org", 443)),
        ("example.org:8000/x", URL("http", "example.org", 8000, "/x")),
        ("localhost/?next=http://other/", URL("http", "localhost", 80, "/?next=http://other/")),
        ("http://[::1]:81/", URL("http", "::1", 81)),
        ("http://[fe80::1%25lo]/", URL("http", "fe80::1%lo", 80)),
        ("http://bücher.example/ü?ä", URL("http", "xn--bcher-kva.example", 80, "/%C3%BC?%C3%A4")),
        ("http://h/%2e%2E/a%20b", URL("http", "h", 80, "/%2e%2E/a%20b")),
        ("http+unix://%2Frun%2FA.sock/x", URL("http", "localhost", 80, "/x", "/run/A.sock")),
        ("http+unix://%40name", URL("http", "localhost", 80, "/", "@name")),
    ],
)
def test_parse(text: str, expected: URL) -> None:
    assert parse_url(text) == expected


def test_a_socket_beside_the_url_replaces_host_and_port_but_not_the_host_header() -> None:
    url = parse_url("http://app.example/x", "/run/a.sock")
    assert (url.unix, url.authority) == ("/run/a.sock", "app.example")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("ftp://example.org/", "unknown scheme 'ftp'"),
        ("http://", "no host"),
        (":8000", "no host"),
        ("http://h:99999/", "Port out of range"),
        ("http://h:x/", "Port could not be cast"),
        ("http://h:0/", "port 0"),
        ("http://h/a b", "%20"),
        ("http://h/\r\nX: y", "control characters"),
        ("http://[::1/", "Invalid IPv6 URL"),
        ("http://" + "a" * 64 + ".example/", "not a host name"),
        ("http://a..b/", "not a host name"),
        ("http+unix:///x", "no socket path"),
        ("http+unix://%2Fa%00b/", "no socket path"),
    ],
)
def test_a_bad_url_is_refused_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        parse_url(text)


def test_a_socket_is_named_once() -> None:
    with pytest.raises(ValueError, match="given twice"):
        parse_url("http+unix://%2Fa/", "/b")


@pytest.mark.parametrize(
    ("text", "authority"),
    [
        ("http://h/", "h"),
        ("http://h:80/", "h"),
        ("https://h:80/", "h:80"),
        ("http://[::1]:8000/", "[::1]:8000"),
        ("http://[fe80::1%25lo]/", "[fe80::1]"),
    ],
)
def test_the_host_header(text: str, authority: str) -> None:
    assert parse_url(text).authority == authority


def test_user_and_password_become_an_authorization_header_and_are_not_shown() -> None:
    url = parse_url("http://me%40home:p%3Aw@h/")
    assert url.authorization == "Basic " + base64.b64encode(b"me@home:p:w").decode()
    assert str(url) == "http://h/"
    assert parse_url("http://h/").authorization is None


@pytest.mark.parametrize(
    ("location", "expected"),
    [
        ("/b", "http://h:81/b"),
        ("b", "http://h:81/dir/b"),
        ("../b", "http://h:81/b"),
        ("?q", "http://h:81/dir/a?q"),
        ("//other/b", "http://other/b"),
        ("https://other/b", "https://other/b"),
        ("/a b", "http://h:81/a%20b"),
        ("/ü".encode().decode("latin-1"), "http://h:81/%C3%BC"),
    ],
)
def test_a_redirect_is_resolved_against_the_url(location: str, expected: str) -> None:
    assert str(resolve(parse_url("http://h:81/dir/a"), location)) == expected


@pytest.mark.parametrize("location", ["ftp://h/", "javascript:alert(1)", "http+unix://%2Fx/"])
def test_a_redirect_leads_to_http_only(location: str) -> None:
    with pytest.raises(ValueError, match="not an http or https URL"):
        resolve(parse_url("http://h/"), location)


def test_a_redirect_on_a_unix_socket_stays_on_it_for_the_same_host_only() -> None:
    url = parse_url("http+unix://%2Frun%2Fa/x")
    assert resolve(url, "/y").unix == "/run/a"
    assert resolve(url, "http://localhost/y").unix == "/run/a"
    assert resolve(url, "http://other/y").unix == ""


def test_a_redirect_takes_the_password_along_to_the_same_origin_only() -> None:
    url = parse_url("http://me:pw@h/")
    assert resolve(url, "/y").authorization == url.authorization
    assert resolve(url, "http://h:81/y").authorization is None
    assert resolve(url, "https://h/y").authorization is None
