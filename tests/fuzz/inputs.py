"""Inputs for parsers of HTTP: requests that are valid, nearly valid, and neither.

The same generator of random numbers gives the same inputs.
"""

from random import Random

from tests.support.framings import corpus
from tests.unit.http_pieces import PIECES, WHOLE
from tests.unit.http_rules import REFUSED, SERVED
from tests.unit.real_requests import REQUESTS

SEEDS = (
    *WHOLE,
    *corpus().values(),
    *(data for _, data in SERVED.values()),
    *(data for _, data in REFUSED.values()),
    *REQUESTS.values(),
)
# Long ones take long, and mutations of them are no better than those of short ones.
_SHORT = [seed for seed in SEEDS if len(seed) < 2000]

NEXT = b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n"

_BYTES = [
    bytes([each]) for each in b'\r\n\t \0\x0b\x0c\x7f\x80\xa0\xff:;,="\\()/?#*%+-_.0159aAfFxX'
]
_BITS = (
    *_BYTES,
    *(b"\r\n", b"\r\n\r\n", b"\n\n", b"\r\r\n", b"\r\n ", b"\r\n\t", b"0\r\n\r\n", b"chunked"),
    *(b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: a\r\n", b" HTTP/1.1"),
    *(b"0x", b"+5", b"-5", b"1_0", b" ;", b"; ", b'=""', b"identity", b", ", b"http://h/", b"//"),
)
_METHODS = (b"GET", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"BREW", b"get", b"M-SEARCH")
_TARGETS = (
    *(b"/", b"/a?b=c", b"/%2e%2e/x", b"*", b"http://h/p", b"http://h:80?q", b"https://h/", b"//a"),
    *(b"/a;b", b'/"<>', b"/?", b"/a?b?c", b"h:80", b"/\x80", b"/a#b", b"http://u@h/"),
)
_VERSIONS = (b"HTTP/1.1",) * 8 + (b"HTTP/1.0", b"HTTP/1.2", b"HTTP/2.0", b"HTTP/0.9", b"http/1.1")
_SPACES = (b" ",) * 8 + (b"", b"\t", b"  ", b" \t ")
_NAMES = (
    *(b"Accept", b"X-A", b"x-a", b"Cookie", b"Content-Type", b"X_A", b"X-Forwarded-For", b"TE"),
    *(b"Content-Length", b"content-length", b"Transfer-Encoding", b"TRANSFER-ENCODING", b"Expect"),
    *(b"Connection", b"Upgrade", b"Host", b"Trailer", b"Proxy-Connection", b"Keep-Alive"),
    *(b"Content_Length", b"HTTP2-Settings", b"X!#$%&'*+-.^_`|~"),
)
_VALUES = (
    *(b"", b"1", b"3", b"0", b"03", b"a, b", b"chunked", b"Chunked", b"gzip, chunked", b"close"),
    *(b"keep-alive", b"upgrade", b"h2c", b"websocket", b"100-continue", b"a/b", b"\x80\xff"),
    *(b"a b\tc", b"h", b"h:80", b"Upgrade, HTTP2-Settings", b"keep-alive, close", b"x,,close"),
)
_EXTENSIONS = (b"",) * 6 + (
    *(b";a", b";a=b", b" ; a = b", b"\t;a", b';a="b"', b';a="\\"\r"', b";a=", b";", b" ", b";a b"),
    *(b';a="b', b"; a=b;c", b';a="b;c"', b';a=b"c"'),
)
_TRAILERS = (b"",) * 6 + (
    b"X: 1\r\n",
    b"X : 1\r\n",
    b"Content-Length: 3\r\n",
    b"X\r\n",
    b" X: 1\r\n",
)


def _chunked(rng: Random, body: bytes) -> bytes:
    out = []
    at = 0
    while at < len(body):
        size = rng.choice((1, 2, 3, 16, 100))
        piece = body[at : at + size]
        at += size
        form = rng.choice((b"%x", b"%x", b"%X", b"0%x", b"000000000000000000%x"))
        out.append(form % len(piece) + rng.choice(_EXTENSIONS) + b"\r\n" + piece + b"\r\n")
    out.append(rng.choice((b"0", b"0", b"0", b"000")) + rng.choice(_EXTENSIONS) + b"\r\n")
    out.append(rng.choice(_TRAILERS) + b"\r\n")
    return b"".join(out)


def request(rng: Random) -> bytes:
    """Built by the grammar, with what is odd now and then."""
    first = rng.choice(_METHODS) + rng.choice((b" ",) * 9 + (b"  ",))
    first += rng.choice(_TARGETS) + rng.choice((b" ",) * 9 + (b"  ",)) + rng.choice(_VERSIONS)
    lines = [first]
    if rng.random() < 0.95:
        lines.append(rng.choice((b"Host: test", b"host:test", b"HOST:\ttest\t", b"Host: h:1")))
    for _ in range(rng.choice((0, 0, 1, 1, 2, 3))):
        value = rng.choice(_SPACES) + rng.choice(_VALUES) + rng.choice((b"",) * 5 + (b" ", b"\t"))
        lines.append(rng.choice(_NAMES) + b":" + value)
    body = rng.choice((b"", b"abc", NEXT, b"0\r\n\r\n" + NEXT, rng.randbytes(20)))
    kind = rng.random()
    if kind < 0.3:
        size = len(body) + rng.choice((0,) * 9 + (1, -1))
        lines.insert(rng.randint(1, len(lines)), b"Content-Length: %d" % max(size, 0))
    elif kind < 0.7:
        space = rng.choice(_SPACES)
        lines.insert(rng.randint(1, len(lines)), b"Transfer-Encoding:" + space + b"chunked")
        body = _chunked(rng, body)
    elif kind < 0.95:
        body = b""
    before = rng.choice((b"",) * 20 + (b"\r\n", b"\n", b"\r"))
    return before + b"\r\n".join([*lines, b"", b""]) + body


def mutated(rng: Random, data: bytes) -> bytes:
    """With one to three changes."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        at = rng.randint(0, len(out))
        change = rng.random()
        if change < 0.4:
            out[at:at] = rng.choice(_BITS)
        elif change < 0.6:
            out[at : at + 1] = rng.choice(_BITS)
        elif change < 0.75:
            del out[at : at + rng.choice((1, 1, 2, 5))]
        elif change < 0.9:  # a line once more, or somewhere else
            lines = bytes(out).split(b"\r\n")
            line = rng.choice(lines)
            if rng.random() < 0.5:
                lines.remove(line)
            lines.insert(rng.randint(0, len(lines)), line)
            out = bytearray(b"\r\n".join(lines))
        else:
            start = rng.randint(0, len(out))
            out[at:at] = out[start : start + rng.randint(1, 30)]
    return bytes(out)


def pick(rng: Random) -> bytes:
    """An input: one or more requests, before one that is good."""
    kind = rng.random()
    if kind < 0.4:
        data = request(rng)
        if rng.random() < 0.6:
            data = mutated(rng, data)
    elif kind < 0.85:
        data = mutated(rng, rng.choice(_SHORT))
    elif kind < 0.95:
        data = request(rng) + request(rng)
    else:
        data = b"".join(rng.choices(PIECES, k=rng.randint(1, 14)))
    return data + NEXT
