"""[tls] and what [http] says of proxies: what is taken, and what is said of what is not."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from prefork import address
from prefork.cli.serving import listen_url
from prefork.config import Config, Tls
from prefork.config.values import FORWARDING_HEADERS
from prefork.listeners import Listener
from tests.support.config_site import APP, loaded, problems, site_in

Write = Callable[..., str]


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return site_in(tmp_path, monkeypatch)


@pytest.fixture(scope="module")
def pem() -> dict[str, str]:
    """Two certificates with their keys, and an encrypted key."""
    from cryptography.hazmat.primitives import serialization

    authority = trustme.CA()
    one, two = authority.issue_cert("localhost"), authority.issue_cert("other")
    key = serialization.load_pem_private_key(one.private_key_pem.bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"secret"),
    )
    return {
        "one.pem": one.cert_chain_pems[0].bytes().decode(),
        "one.key": one.private_key_pem.bytes().decode(),
        "two.pem": two.private_key_and_cert_chain_pem.bytes().decode(),
        "two.key": two.private_key_pem.bytes().decode(),
        "encrypted.key": encrypted.decode(),
        "nonsense": "nonsense\n",
    }


@pytest.fixture
def files(site: Write, pem: dict[str, str], tmp_path: Path) -> Path:
    for name, text in pem.items():
        site(text, name)
    return tmp_path


PAIR = 'certificate = "one.pem"\nkey = "one.key"\n'


def test_a_relative_path_is_relative_to_the_file(site: Write, files: Path) -> None:
    tls = loaded(
        site(f"{APP}[tls]\n{PAIR}sni = {{ Other = {{ certificate = 'two.pem' }} }}")
    ).config.tls
    assert tls.certificate == str(files / "one.pem")
    assert tls.key == str(files / "one.key")
    assert tls.sni == {"other": {"certificate": str(files / "two.pem")}}
    assert loaded(site(f"{APP}[tls]\n{PAIR}min_version = 1.3")).config.tls.min_version == "1.3"


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('certificate = "none.pem"', "tls.certificate: {}/none.pem: No such file or directory"),
        (
            'certificate = "nonsense"',
            "tls.certificate: {}/nonsense: contains no certificate in PEM",
        ),
        ('certificate = "one.pem"', "tls.key: {}/one.pem: contains no private key in PEM"),
        (
            'certificate = "one.pem"\nkey = "nonsense"',
            "tls.key: {}/nonsense: contains no private key in PEM",
        ),
        (
            'certificate = "one.pem"\nkey = "two.key"',
            "tls.certificate: {}/two.key: the key does not belong to {}/one.pem",
        ),
        (
            'certificate = "one.pem"\nkey = "encrypted.key"',
            "tls.key: {}/encrypted.key: the key is encrypted; use one without a passphrase, which"
            " only the user of the server can read",
        ),
        (
            PAIR + 'sni = { other = { certificate = "none.pem" } }',
            "tls.sni: {}/none.pem: No such file or directory",
        ),
        (
            PAIR + 'client_auth = "required"\nclient_ca = "nonsense"',
            "tls.client_ca: {}/nonsense: contains no certificate in PEM",
        ),
        (
            PAIR + 'client_auth = "required"',
            "tls.client_ca: missing; set it to the file of the authorities that issue client"
            " certificates",
        ),
        (
            PAIR + 'client_ca = "one.pem"',
            "tls.client_ca: has no effect without tls.client_auth; set tls.client_auth to"
            ' "required" or "optional"',
        ),
        ('key = "one.key"', "tls.key: has no effect without tls.certificate"),
        (
            PAIR + 'bind = [":443"]',
            'tls.bind: "0.0.0.0:443" is not in server.bind; list only addresses of server.bind',
        ),
        (
            PAIR + 'sni = { "a b" = { certificate = "one.pem" } }',
            'tls.sni: "a b": expected a host name, or a wildcard such as "*.example.org"',
        ),
        (
            PAIR + 'sni = { a = "one.pem" }',
            'tls.sni: "a": expected {{ certificate = "PATH" }}, with key = "PATH" if the key is in'
            ' another file, got "one.pem"',
        ),
        (PAIR + "min_version = 1.1", 'tls.min_version: expected "1.2" or "1.3", got 1.1'),
    ],
)
def test_what_is_wrong_is_named(site: Write, files: Path, lines: str, problem: str) -> None:
    assert problems(site(f"{APP}[tls]\n{lines}\n")) == [
        f"site.toml: {problem.format(files, files)}"
    ]


def test_a_key_that_cannot_be_read(site: Write, files: Path) -> None:
    (files / "one.key").unlink()
    (files / "one.key").mkdir()
    assert problems(site(f"{APP}[tls]\n{PAIR}")) == [
        f"site.toml: tls.key: {files}/one.key: Is a directory"
    ]


@pytest.mark.parametrize("file", ["one.pem", "one.key", "ca.pem"])
def test_a_file_that_would_block_is_not_read(site: Write, files: Path, file: str) -> None:
    (files / file).unlink(missing_ok=True)
    os.mkfifo(files / file)
    client = 'client_ca = "ca.pem"\nclient_auth = "required"\n' if file == "ca.pem" else ""
    (line,) = problems(site(f"{APP}[tls]\n{PAIR}{client}"))
    assert line.endswith(f"{files}/{file}: it is a FIFO, and not a regular file")


def test_tcp_has_no_tls(site: Write, files: Path) -> None:
    assert problems(site(f'{APP}protocol = "tcp"\n[tls]\n{PAIR}')) == [
        'site.toml: tls.certificate: not used with protocol "tcp"'
    ]


# Proxies.


def test_networks_are_taken_in_their_canonical_form(site: Write) -> None:
    text = '["127.0.0.1", "10.0.0.0/8", "2001:DB8:0::/32", "unix"]'
    http = loaded(site(f"{APP}[http]\ntrusted_proxies = {text}\n")).config.http
    assert http.trusted_proxies == ("127.0.0.1", "10.0.0.0/8", "2001:db8::/32", "unix")
    assert http.trusted_headers == ("X-Forwarded-For", "X-Forwarded-Proto")
    one = loaded(site(f'{APP}[http]\ntrusted_proxies = "unix"\n')).config.http
    assert one.trusted_proxies == ("unix",)


def test_headers_are_taken_in_any_case(site: Write) -> None:
    text = '["x-forwarded-proto", "X-FORWARDED-FOR"]'
    http = loaded(site(f"{APP}[http]\ntrusted_headers = {text}\n")).config.http
    assert http.trusted_headers == ("X-Forwarded-For", "X-Forwarded-Proto")


def test_every_bad_network_is_named(site: Write) -> None:
    text = '["10.0.0.1/8", "proxy.example", 5, "10.0.0.0/33"]'
    expected = 'expected an IP address, a network such as "10.0.0.0/8", or "unix"'
    assert problems(site(f"{APP}[http]\ntrusted_proxies = {text}\n")) == [
        'site.toml: http.trusted_proxies: "10.0.0.1/8": has bits beyond its mask; did you'
        ' mean "10.0.0.0/8"?',
        f'site.toml: http.trusted_proxies: "proxy.example": {expected}',
        "site.toml: http.trusted_proxies: 5: expected a string",
        f'site.toml: http.trusted_proxies: "10.0.0.0/33": {expected}',
    ]


def test_a_header_that_nothing_is_read_from(site: Write) -> None:
    assert problems(site(f'{APP}[http]\ntrusted_headers = ["X-Real-IP"]\n')) == [
        'site.toml: http.trusted_headers: "X-Real-IP" is not a header in which a proxy'
        f" describes its client; these headers are {', '.join(FORWARDING_HEADERS)}"
    ]


def test_the_proxy_protocol_is_for_somebody(site: Write) -> None:
    assert problems(site(f"{APP}[http]\nproxy_protocol = true\n")) == [
        "site.toml: http.proxy_protocol: needs http.trusted_proxies: the PROXY header is accepted"
        " only from these; add the addresses of your proxies"
    ]


def test_a_terminal_shows_which_addresses_speak_tls() -> None:
    tls = Tls(certificate="one.pem", bind=("127.0.0.2:0",))
    config = Config(tls=tls)
    shown = []
    for text in ("127.0.0.1:0", "127.0.0.2:0", "unix:@secured"):
        with socket.socket(address.parse(text).family) as sock:
            listener = Listener(address.parse(text), sock)
            listener.name = text
            shown.append(listen_url(config, listener))
    assert shown == ["http://127.0.0.1:0", "https://127.0.0.2:0", "unix:@secured"]
    assert Tls(certificate="one.pem").is_spoken_at("127.0.0.1:0")
    assert not Tls().is_spoken_at("127.0.0.1:0")
