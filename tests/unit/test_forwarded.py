"""What proxies say of their client: who is believed, and what becomes of it."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.config.values import FORWARDING_HEADERS
from prefork.http import forwarded as module
from prefork.http.field_lines import FieldLines
from prefork.http.forwarded import Forwarding, apply, read, trust
from prefork.http.head_rules import Reject
from prefork.http.limits import RequestLimits
from prefork.http.proxied_reader import ProxiedReader, keys
from tests.unit.reading import taken

TRUSTS = trust(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "unix"])


def x(**headers: str) -> Forwarding:
    return read(
        {f"HTTP_X_FORWARDED_{name.upper()}": text for name, text in headers.items()}, TRUSTS
    )


def forwarded(text: str, **more: str) -> Forwarding:
    others = {f"HTTP_X_FORWARDED_{name.upper()}": value for name, value in more.items()}
    return read({"HTTP_FORWARDED": text, **others}, TRUSTS)


@pytest.mark.parametrize(
    ("host", "trusted"),
    [
        ("10.1.2.3", True),
        ("11.1.2.3", False),
        ("192.0.2.7", True),
        ("192.0.2.8", False),
        ("2001:db8::5", True),
        ("2001:db9::5", False),
        ("", True),
        ("nonsense", False),
        ("fe80::1%eth0", False),
    ],
)
def test_which_proxies_are_trusted(host: str, trusted: bool) -> None:
    assert TRUSTS(host) is trusted


def test_no_proxy_is_trusted_by_default() -> None:
    assert not trust([])("")
    assert not trust([])("127.0.0.1")
    assert trust(["fe80::/10"])("fe80::1%eth0")


@pytest.mark.parametrize(
    ("listed", "address"),
    [
        ("203.0.113.1", "203.0.113.1"),
        ("spoofed, 203.0.113.1", "203.0.113.1"),
        ("198.51.100.1, 203.0.113.1", "203.0.113.1"),
        ("198.51.100.1, 203.0.113.1, 10.0.0.2", "203.0.113.1"),
        ("203.0.113.1,10.0.0.2 , 192.0.2.7", "203.0.113.1"),
        ("10.0.0.3, 10.0.0.2", "10.0.0.3"),  # a client inside
        ("203.0.113.1:4711", "203.0.113.1"),
        ("[2001:db9::1]:4711", "2001:db9::1"),
        ("2001:DB9:0::1", "2001:db9::1"),
        ("::ffff:203.0.113.1", "203.0.113.1"),
        ("203.0.113.1, unknown, 10.0.0.2", "10.0.0.2"),  # who is behind it can't be told
        ("203.0.113.1, unknown", None),
        ("", None),
        (" , ,", None),
        ("300.0.0.1", None),
    ],
)
def test_the_right_most_address_that_is_not_trusted_is_the_client(
    listed: str, address: str | None
) -> None:
    assert x(**{"for": listed}).address == address


def test_other_lists_count_from_the_same_proxy() -> None:
    two = "203.0.113.1, 10.0.0.2"
    assert x(**{"for": two}, proto="https, http").scheme == "https"
    assert x(**{"for": two}, proto="http, https, http").scheme == "https"
    assert x(**{"for": two}, proto="https").scheme == "https"
    assert x(**{"for": "203.0.113.1"}, proto="https, http").scheme == "http"
    assert x(proto="https, http").scheme == "http"


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("proto", "HTTPS", "https"),
        ("proto", "ftp", None),
        ("host", "example.org", "example.org"),
        ("host", "example.org:8443", "example.org:8443"),
        ("host", "[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("host", "user@example.org", None),
        ("host", "example.org:99999", None),
        ("host", "example.org/path", None),
        ("port", "8443", "8443"),
        ("port", "0", None),
        ("port", "+80", None),
        ("port", "65536", None),
        ("prefix", "/shop", "/shop"),
        ("prefix", "/shop/", "/shop"),
        ("prefix", "/caf%C3%A9", "/caf\xc3\xa9"),
        ("prefix", "shop", None),
        ("prefix", "//shop", None),
        ("prefix", "/a/../b", None),
        ("prefix", "/a/%2e%2e/b", None),
        ("prefix", "/", None),
    ],
)
def test_what_makes_no_sense_is_not_said(name: str, text: str, said: str | None) -> None:
    field = {"proto": "scheme", "port": "server_port"}.get(name, name)
    assert getattr(x(**{name: text}), field) == said


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("for=203.0.113.1", Forwarding("203.0.113.1")),
        ("For=203.0.113.1;Proto=HTTPS;By=10.0.0.1", Forwarding("203.0.113.1", scheme="https")),
        ('for="203.0.113.1:4711"', Forwarding("203.0.113.1", "4711")),
        ('for="[2001:db9::1]:4711"', Forwarding("2001:db9::1", "4711")),
        ("for=[2001:db9::1]", Forwarding("2001:db9::1")),
        ('for=1.1.1.1, for=203.0.113.1;host="a:8443"', Forwarding("203.0.113.1", host="a:8443")),
        (
            "for=203.0.113.1;proto=https, for=10.0.0.2;proto=http",
            Forwarding("203.0.113.1", scheme="https"),
        ),
        ("for=_hidden;proto=https", Forwarding(scheme="https")),
        ("for=203.0.113.1, for=unknown;proto=https", Forwarding(scheme="https")),
        ("proto=https", Forwarding(scheme="https")),
        ('for="a\\"b,;c", for=203.0.113.1', Forwarding("203.0.113.1")),
        (" for=203.0.113.1 ; proto=https ,, ", Forwarding("203.0.113.1", scheme="https")),
        ("", Forwarding()),
    ],
)
def test_forwarded(text: str, said: Forwarding) -> None:
    assert forwarded(text) == said


@pytest.mark.parametrize(
    "text", ["for", "for=", 'for="203', "for=a for=b", "for=a;for=b", "=a", 'for="a"b', "a=b\x7f"]
)
def test_a_malformed_forwarded_is_refused(text: str) -> None:
    with pytest.raises(Reject) as caught:
        forwarded(text)
    assert caught.value.status == 400


def test_two_kinds_that_disagree_are_refused() -> None:
    """One of them is the client's own, which its proxy has let through."""
    assert forwarded("for=203.0.113.1", **{"for": "203.0.113.1"}).address == "203.0.113.1"
    for text in ("for=10.9.9.9", "proto=https"):
        with pytest.raises(Reject):
            forwarded(text, **{"for": "203.0.113.1"})


def test_each_says_what_the_other_does_not() -> None:
    said = forwarded("for=203.0.113.1;proto=https", proto="http", prefix="/shop", port="8443")
    assert said == Forwarding("203.0.113.1", None, "https", None, "8443", "/shop")


def applied(said: Forwarding, **more: Any) -> dict[str, Any]:
    environ = {
        "REMOTE_ADDR": "10.0.0.1",
        "REMOTE_PORT": "1234",
        "wsgi.url_scheme": "http",
        "HTTP_HOST": "inner:8000",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SCRIPT_NAME": "",
        **more,
    }
    before = dict(environ)
    apply(environ, said)
    gone = {key: None for key in before if key not in environ}
    return gone | {k: v for k, v in environ.items() if before.get(k) != v}


def test_nothing_said_changes_nothing() -> None:
    assert applied(Forwarding()) == {}


def test_where_each_thing_goes() -> None:
    address = {"REMOTE_ADDR": "203.0.113.1", "REMOTE_PORT": ""}
    assert applied(Forwarding("203.0.113.1")) == address
    assert applied(Forwarding("203.0.113.1", "99")) == {**address, "REMOTE_PORT": "99"}
    assert applied(Forwarding(prefix="/shop")) == {"SCRIPT_NAME": "/shop"}
    https = {"wsgi.url_scheme": "https", "HTTPS": "on"}
    assert applied(Forwarding(scheme="https")) == https
    assert applied(Forwarding(scheme="https"), HTTP_HOST="inner") == {**https, "SERVER_PORT": "443"}
    host = {"HTTP_HOST": "a.example", "SERVER_NAME": "a.example"}
    assert applied(Forwarding(host="a.example")) == {**host, "SERVER_PORT": "80"}
    both = Forwarding(scheme="https", host="a.example")
    assert applied(both) == {**host, **https, "SERVER_PORT": "443"}
    assert applied(both._replace(server_port="443")) == {**host, **https, "SERVER_PORT": "443"}
    ported = {**host, **https, "HTTP_HOST": "a.example:8443", "SERVER_PORT": "8443"}
    assert applied(both._replace(server_port="8443")) == ported
    assert applied(both._replace(host="a.example:8443")) == ported
    six = applied(Forwarding(host="[2001:db8::1]"))
    assert (six["SERVER_NAME"], six["SERVER_PORT"]) == ("[2001:db8::1]", "80")


def test_http_in_front_of_https_takes_the_mark_away() -> None:
    assert applied(Forwarding(scheme="http"), HTTPS="on", **{"wsgi.url_scheme": "https"}) == {
        "HTTPS": None,
        "wsgi.url_scheme": "http",
    }


BASE = {"REMOTE_ADDR": "", "REMOTE_PORT": "", "wsgi.url_scheme": "http", "SCRIPT_NAME": ""}


def connection(*names: str) -> ProxiedReader:
    limits = RequestLimits(0, 0, 0, 0, 0)
    return ProxiedReader(BASE, limits, ("10.0.0.1", "1"), TRUSTS, FieldLines(keys(names)))


def test_a_connection_takes_the_headers_that_are_named_and_drops_the_others() -> None:
    inside = connection("X-Forwarded-For")
    requests = taken(
        inside,
        b"GET / HTTP/1.1\r\nHost: a\r\nx-forwarded-FOR: 198.51.100.1\r\n"
        b"X-Forwarded-Proto: https\r\nForwarded: for=1.2.3.4\r\nX_Forwarded_For: 5.6.7.8\r\n"
        b"X-Forwarded-For: 203.0.113.1\r\n\r\n"
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    )
    first, second = (request.environ for request in requests)
    assert first["REMOTE_ADDR"] == "203.0.113.1"
    assert first["HTTP_X_FORWARDED_FOR"] == "198.51.100.1, 203.0.113.1"
    assert first["wsgi.url_scheme"] == "http"
    assert not {"HTTP_X_FORWARDED_PROTO", "HTTP_FORWARDED"} & first.keys()
    assert second["REMOTE_ADDR"] == "10.0.0.1"


def test_a_connection_refuses_what_disagrees() -> None:
    inside = connection("X-Forwarded-For", "Forwarded")
    request = inside.feed(
        b"GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.5\r\n\r\n"
    )
    assert inside.error is not None
    assert inside.error.status == 400
    assert request is None


def test_a_trailer_says_nothing() -> None:
    inside = connection("X-Forwarded-For")
    request = inside.feed(
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"0\r\nX-Forwarded-For: 1.2.3.4\r\n\r\n"
    )
    assert request is not None
    assert request.environ["REMOTE_ADDR"] == "10.0.0.1"


def test_an_end_of_line_ends_no_list() -> None:
    """No parser lets one through; `$` in a pattern would stop before it, for ever."""
    for text in ("\n", "for=10.0.0.2\n", ",\n"):
        with pytest.raises(Reject):
            read({"HTTP_FORWARDED": text}, TRUSTS)


WORDS = ["203.0.113.1", "10.0.0.2", "unknown", "for=203.0.113.1", "for=10.0.0.2", '"', ";"]
LISTS = st.lists(st.sampled_from(WORDS), max_size=5).map(",".join)
VALUES = st.one_of(st.text(st.characters(max_codepoint=255), max_size=60), LISTS)
KEYS = [*keys(FORWARDING_HEADERS).values()]


@given(st.dictionaries(st.sampled_from(KEYS), VALUES))
def test_any_text_is_believed_or_refused(headers: dict[str, str]) -> None:
    try:
        said = read(headers, TRUSTS)
    except Reject:
        return
    environ: dict[str, Any] = dict(BASE)
    apply(environ, said)
    assert environ["wsgi.url_scheme"] in ("http", "https")
    assert all(char.isprintable() for char in environ.get("HTTP_HOST", ""))


@given(st.lists(st.ip_addresses().map(str), min_size=1, max_size=4), LISTS)
def test_what_a_client_invents_changes_nothing(hops: list[str], invented: str) -> None:
    """Whatever stands left of the client's own address, which its first proxy has added."""
    chain = ["203.0.113.99", *(f"10.0.0.{number}" for number in range(len(hops)))]
    honest = x(**{"for": ", ".join(chain)})
    spoofed = x(**{"for": ", ".join([invented, *hops, *chain])})
    assert honest == spoofed
    assert honest.address == "203.0.113.99"


@pytest.mark.parametrize(
    "entry", ["10.0.0.1", "192.0.2.7", "unknown", "", " ", "[::1]:80", "x" * 50]
)
def test_a_list_of_any_length_costs_as_much_as_a_short_one(
    entry: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the entries that the trusted proxies have added are looked at, 64 at most."""
    looked_at: list[str] = []
    hop = module._hop

    def counted(text: str) -> module._Hop:
        looked_at.append(text)
        return hop(text)

    monkeypatch.setattr(module, "_hop", counted)
    text = ",".join([entry] * 20_000) + ", 192.0.2.1, 10.0.0.2"
    said = read({"HTTP_X_FORWARDED_FOR": text}, trust(["10.0.0.0/8"]))
    assert said.address == "192.0.2.1"
    assert len(looked_at) == 2
    text = ",".join([entry] * 20_000)
    read({"HTTP_X_FORWARDED_FOR": text}, trust(["10.0.0.0/8", "::1"]))
    assert len(looked_at) <= 2 + 64


def test_a_forwarded_of_very_many_parameters_is_refused() -> None:
    trusts = trust(["10.0.0.0/8"])
    text = ", ".join(["for=10.0.0.1"] * 512)
    assert read({"HTTP_FORWARDED": text}, trusts).address == "10.0.0.1"
    for more in (", for=10.0.0.1", ";", ","):
        with pytest.raises(Reject):
            read({"HTTP_FORWARDED": text + more}, trusts)
