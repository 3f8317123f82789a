"""TLS of the server: certificates and keys, one pair for each name that a client asks for.

The master reads the files, since the workers may lack the permission to read a key.  Workers
inherit the contexts with fork(2), and with them the keys of session tickets, so that a session that
began with one worker can be resumed with another.  This module is imported only if TLS is
configured.
"""

import ssl
from collections.abc import Mapping

from prefork import regular_file
from prefork.config.schema import Tls

_VERSIONS = {"1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}
_VERIFY = {
    "none": ssl.CERT_NONE,
    "optional": ssl.CERT_OPTIONAL,
    "required": ssl.CERT_REQUIRED,
}


class TlsError(Exception):
    """A file cannot be used; the text is one line, `key` is the key with its path: "tls.key"."""

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(reason)
        self.key = key


def server_context(settings: Tls) -> ssl.SSLContext:
    """The context of every listener with TLS; `settings.certificate` must be given.

    The name that a client asks for (SNI, RFC 6066 section 3) selects a certificate of
    `settings.sni`.  For other names, and for clients that name none, it is the certificate of
    `settings.certificate`.  Raises TlsError.
    """
    assert settings.certificate is not None
    context = _context(settings, "tls.certificate", settings.certificate, settings.key)
    named = {
        name: _context(settings, "tls.sni", pair["certificate"], pair.get("key"))
        for name, pair in settings.sni.items()
    }
    if named:

        def choose(tls: ssl.SSLObject, name: str | None, _: ssl.SSLContext) -> None:
            found = by_name(named, name)
            if found is not None:
                tls.context = found

        context.sni_callback = choose
    return context


def by_name(named: Mapping[str, ssl.SSLContext], name: str | None) -> ssl.SSLContext | None:
    """The context of the name, or of a wildcard for its first label (RFC 9525 section 6.3)."""
    if name is None:
        return None
    name = name.lower()
    return named.get(name) or named.get("*." + name.partition(".")[2])


def _context(settings: Tls, key: str, certificate: str, private: str | None) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[settings.min_version]
    # We choose the cipher. Renegotiation (TLS 1.2) has only costs for a server.
    context.options |= ssl.OP_CIPHER_SERVER_PREFERENCE | ssl.OP_NO_RENEGOTIATION
    context.options |= ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    _load_pair(context, key, certificate, private)
    if settings.client_ca is not None:
        _read("tls.client_ca", settings.client_ca)
        try:
            context.load_verify_locations(settings.client_ca)
        except ssl.SSLError:
            raise TlsError(
                "tls.client_ca", f"{settings.client_ca}: contains no certificate in PEM"
            ) from None
        context.verify_mode = _VERIFY[settings.client_auth]
    return context


def _load_pair(context: ssl.SSLContext, key: str, certificate: str, private: str | None) -> None:
    own = private is not None and key == "tls.certificate"
    _read(key, certificate)
    if private is not None:
        _read("tls.key" if own else key, private)

    def password() -> str:
        raise TlsError(
            "tls.key" if own else key,
            f"{private or certificate}: the key is encrypted; use one without a passphrase, which"
            " only the user of the server can read",
        )

    try:
        context.load_cert_chain(certificate, private, password)
    except ssl.SSLError as error:
        if error.reason == "KEY_VALUES_MISMATCH":
            reason = f"{private or certificate}: the key does not belong to {certificate}"
        elif "BEGIN CERTIFICATE" not in _read(key, certificate):
            reason = f"{certificate}: contains no certificate in PEM"
        elif "PRIVATE KEY-" not in _read(key, private or certificate):
            reason = f"{private or certificate}: contains no private key in PEM"
            key = "tls.key" if own or key == "tls.certificate" else key
        else:
            reason = f"{certificate}: {_words(error)}"
        raise TlsError(key, reason) from None


def _words(error: ssl.SSLError) -> str:
    reason = error.reason or "is damaged"
    return reason.replace("_", " ").lower()


def _read(key: str, path: str) -> str:
    """The text of a file; OpenSSL does not say which of the files it could not read."""
    try:
        return regular_file.read(path).decode("latin-1")
    except OSError as error:
        raise TlsError(key, f"{path}: {error.strerror}") from None
