"""Field lines, and which of them are kept."""

import pytest

from prefork.http.field_lines import FieldLines
from prefork.http.head_rules import Reject


@pytest.mark.parametrize(
    ("line", "key", "value"),
    [
        (b"Accept: */*", "HTTP_ACCEPT", "*/*"),
        (b"accept:*/*", "HTTP_ACCEPT", "*/*"),
        (b"ACCEPT: \t */* \t", "HTTP_ACCEPT", "*/*"),
        (b"Accept:", "HTTP_ACCEPT", ""),
        (b"Accept: ", "HTTP_ACCEPT", ""),
        (b"Accept:\t", "HTTP_ACCEPT", ""),
        (b"Accept: a: b", "HTTP_ACCEPT", "a: b"),
        (b"Accept:a: b", "HTTP_ACCEPT", "a: b"),
        (b"Accept: a\tb", "HTTP_ACCEPT", "a\tb"),
        (b"X-Name: J\xfcrgen", "HTTP_X_NAME", "J\xfcrgen"),
        (b"X-Name: \x80\xa0\xad\xff", "HTTP_X_NAME", "\x80\xa0\xad\xff"),
        (b"X-Name: \xa0", "HTTP_X_NAME", "\xa0"),
        (b"X-Name: " + b"a" * 5000, "HTTP_X_NAME", "a" * 5000),
        (b"Content-Type: a/b", "CONTENT_TYPE", "a/b"),
        (b"content-length: 3", "CONTENT_LENGTH", "3"),
        (b"X_Name: 1", "", "1"),
        (b"X-Forwarded-For: 192.0.2.1", "", "192.0.2.1"),
        (b"Forwarded: for=192.0.2.1", "", "for=192.0.2.1"),
    ],
)
def test_key_and_value(line: bytes, key: str, value: str) -> None:
    lines = FieldLines()
    for _ in range(3):  # new, with a known name, and perhaps kept
        assert lines.read(line) == (key, value)


@pytest.mark.parametrize("control", [*range(9), *range(10, 32), 127])
@pytest.mark.parametrize("length", [0, 500])
def test_no_control_character_is_in_a_value(control: int, length: int) -> None:
    for line in (b"Accept: %ba%cb", b"Accept:%ba%cb", b"Accept: %b%c", b"Accept: %b%c "):
        lines = FieldLines()
        for _ in range(2):
            with pytest.raises(Reject) as refused:
                lines.read(line % ((b"a" * length, control, b"")[: line.count(b"%")]))
            assert refused.value.status == 400
        assert not lines


@pytest.mark.parametrize(
    "line",
    [b"", b":", b": a", b"Accept", b"Accept : a", b"Accept\t: a", b" Accept: a", b"Acc ept: a"]
    + [
        b"Accept: a".replace(b"e", bytes([each])) for each in b'"(),/;<=>?@[\\]{}\0\r\n\x7f\x80\xff'
    ],
)
def test_what_is_no_field_line(line: bytes) -> None:
    lines = FieldLines()
    lines.read(b"Accept: a")
    with pytest.raises(Reject) as refused:
        lines.read(line)
    assert refused.value.status == 400


@pytest.mark.parametrize(
    "name",
    [
        *(b"Cookie", b"Authorization", b"Proxy-Authorization", b"X-Api-Key", b"X-Auth-Token"),
        *(b"X-CSRF-Token", b"Referer", b"X-Amz-Security-Token", b"Some-Name", b"If-None-Match"),
        *(b"X-Forwarded-For", b"Sec-WebSocket-Key", b"X-Request-Id", b"DPoP", b"X-Session"),
    ],
)
def test_what_may_be_secret_or_personal_is_not_kept(name: bytes) -> None:
    for believed in (None, {name.lower(): "HTTP_X"}):
        lines = FieldLines(believed)
        for spelling in (name, name.lower(), name.upper()):
            for _ in range(3):
                lines.read(spelling + b": secret")
        assert not lines


def test_what_comes_again_and_is_harmless_is_kept() -> None:
    lines = FieldLines()
    for line in (b"Accept: */*", b"accept: */*", b"User-Agent: x", b"Host: test"):
        read = lines.read(line)
        assert lines.read(line) == read
        assert lines.read(line) is lines.read(line)
    assert len(lines) == 4


def test_neither_long_lines_nor_many_fill_the_memory() -> None:
    lines = FieldLines()
    lines.read(b"Accept: " + b"a" * 300)
    assert not lines
    for number in range(5000):
        assert lines.read(b"Accept: %d" % number) == ("HTTP_ACCEPT", str(number))
        assert lines.read(b"X-%d: a" % number) == (f"HTTP_X_{number}", "a")
        assert len(lines) <= 512
        assert len(lines._names) <= 512
    lines.read(b"X-" + b"a" * 1000 + b": a")
    assert max(map(len, lines._names)) <= 64


def test_a_believed_field_has_its_key() -> None:
    lines = FieldLines({b"x-forwarded-for": "HTTP_X_FORWARDED_FOR"})
    assert lines.read(b"X-FORWARDED-for: a") == ("HTTP_X_FORWARDED_FOR", "a")
    assert lines.read(b"X-Forwarded-Host: a") == ("", "a")
    assert lines.read(b"X_Forwarded_For: a") == ("", "a")
    assert lines.believed == ("HTTP_X_FORWARDED_FOR",)
