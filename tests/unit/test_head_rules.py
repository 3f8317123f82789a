"""Names and targets of a request's head."""

from urllib.parse import unquote_to_bytes

import pytest
from hypothesis import given
from hypothesis import strategies as st

from prefork.http import head_rules
from prefork.http.head_rules import Reject, cgi_name, split_target, unquote


@pytest.mark.parametrize(
    ("name", "key"),
    [
        (b"Content-Type", "CONTENT_TYPE"),
        (b"content-length", "CONTENT_LENGTH"),
        (b"X-Own-Name", "HTTP_X_OWN_NAME"),
        (b"X-Forwarded-For", ""),
        (b"x-forwarded-anything", ""),
        (b"FORWARDED", ""),
        (b"Forwarded-Not", "HTTP_FORWARDED_NOT"),
        (b"accept", "HTTP_ACCEPT"),
        (b"X_Forwarded_For", ""),
        (b"Content_Length", ""),
        (b"_", ""),
    ],
)
def test_the_environ_key_of_a_header(name: bytes, key: str) -> None:
    assert cgi_name(name) == key
    assert cgi_name(name) == key  # the second time from the cache


def test_clients_cannot_fill_the_memory_with_names() -> None:
    for number in range(5000):
        assert cgi_name(b"X-Filler-%d" % number) == f"HTTP_X_FILLER_{number}"
    assert cgi_name(b"X-" + b"a" * 1000) == "HTTP_X_" + "A" * 1000
    assert len(head_rules._names) <= head_rules._NAMES_KEPT
    assert max(map(len, head_rules._names)) <= 64


@pytest.mark.parametrize(
    ("target", "path", "query", "host"),
    [
        (b"/", "/", "", None),
        (b"/a/b?c=d", "/a/b", "c=d", None),
        (b"/a?", "/a", "", None),
        (b"/a?b?c", "/a", "b?c", None),
        (b"/a%20b%2Fc?d%20e", "/a b/c", "d%20e", None),
        (b"/%C3%A9", "/\xc3\xa9", "", None),
        (b"/%e9", "/\xe9", "", None),
        (b"/%00", "/\0", "", None),
        (b"/%zz%4", "/%zz%4", "", None),
        (b"/%2525", "/%25", "", None),
        (b"//two/slashes", "//two/slashes", "", None),
        (b"http://other:81/a%20b?c", "/a b", "c", "other:81"),
        (b"HTTPS://other", "/", "", "other"),
        (b"http://other?c", "/", "c", "other"),
    ],
)
def test_the_parts_of_a_target(target: bytes, path: str, query: str, host: str | None) -> None:
    assert split_target(target, b"GET") == (path, query, host)


def test_an_asterisk_is_for_options() -> None:
    assert split_target(b"*", b"OPTIONS") == ("/", "", None)
    for method in (b"GET", b"POST", b"HEAD"):
        with pytest.raises(Reject) as rejected:
            split_target(b"*", method)
        assert rejected.value.status == 400


@given(st.lists(st.sampled_from([b"%", b"%4", b"%41", b"%fF", b"%zz", b"a", b"/", b"\xff"])))
def test_percent_encodings_are_decoded_as_by_the_standard_library(pieces: list[bytes]) -> None:
    path = b"".join(pieces)
    assert unquote(path) == unquote_to_bytes(path)
