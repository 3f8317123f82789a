"""What is a request and what is not: RFC 9110 and 9112 rule by rule, each named by what came.

`docs/http.md` refers to the names.  tests/unit/test_reader_rules.py holds the reader to them.
"""

from prefork.http.limits import RequestLimits

NEXT = b"GET /next HTTP/1.1\r\nHost: test\r\n\r\n"


def get(*lines: bytes, first: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: test") -> bytes:
    return b"\r\n".join([first, host, *lines, b"", b""])


def target(form: bytes, method: bytes = b"GET") -> bytes:
    return get(first=method + b" " + form + b" HTTP/1.1")


def host(value: bytes) -> bytes:
    return get(host=b"Host: " + value)


def length(value: bytes, body: bytes = b"x") -> bytes:
    return get(b"Content-Length: " + value, first=b"POST / HTTP/1.1") + body


def coding(value: bytes) -> bytes:
    return get(b"Transfer-Encoding: " + value, first=b"POST / HTTP/1.1") + b"0\r\n\r\n"


def chunks(data: bytes) -> bytes:
    return get(b"Transfer-Encoding: chunked", first=b"POST / HTTP/1.1") + data


END = b"0\r\n\r\n"

REFUSED = {
    # Line ends (RFC 9112 section 2.2).
    "a bare LF behind the request line": (400, b"GET / HTTP/1.1\nHost: test\r\n\r\n"),
    "a bare LF behind a header": (400, b"GET / HTTP/1.1\r\nHost: test\nX: 1\r\n\r\n"),
    "a bare LF as the end of the head": (400, b"GET / HTTP/1.1\r\nHost: test\r\n\n"),
    "a bare CR behind the request line": (400, b"GET / HTTP/1.1\rHost: test\r\n\r\n"),
    "a bare CR in a value": (400, get(b"X: a\rb")),
    "a CR too many behind the request line": (400, b"GET / HTTP/1.1\r\r\nHost: test\r\n\r\n"),
    "a CR too many behind a header": (400, get(b"X: 1\r")),
    "a CR too many at the end of the head": (400, get().removesuffix(b"\r\n") + b"\r\r\n"),
    # The request line (RFC 9112 section 3).
    "white space before the request line": (400, b" " + get()),
    "a tab in place of a space": (400, get(first=b"GET\t/ HTTP/1.1")),
    "a space behind the version": (400, get(first=b"GET / HTTP/1.1 ")),
    "no target": (400, get(first=b"GET HTTP/1.1")),
    "a NUL in the target": (400, target(b"/a\0b")),
    "a tab in the target": (400, target(b"/a\tb")),
    "a form feed in the target": (400, target(b"/a\x0cb")),
    "a DEL in the target": (400, target(b"/\x7f")),
    "bytes beyond ASCII in an authority": (400, target(b"http://caf\xe9/")),
    "a version beyond ASCII": (400, get(first=b"GET / HTTP/1.\xb9")),
    "a fragment in a path": (400, target(b"/a#b")),
    "a fragment in a query": (400, target(b"/a?b#c")),
    "a fragment in an absolute target": (400, target(b"http://test/a#b")),
    "a fragment right behind the authority": (400, target(b"http://test#b")),
    "user information in an absolute target": (400, target(b"http://user:secret@test/")),
    "an absolute target with a bad port": (400, target(b"http://test:x/")),
    "an absolute target with a port alone": (400, target(b"http://:80/")),
    "an absolute target without a host": (400, target(b"http:///")),
    "an absolute target of another scheme": (400, target(b"ftp://test/")),
    "an authority as target of GET": (400, target(b"test:80")),
    "an absolute target of a WebSocket": (400, target(b"wss://test/")),
    "an asterisk as target of GET": (400, target(b"*")),
    "an asterisk as target of a search": (400, target(b"*", b"M-SEARCH")),
    "CONNECT": (501, target(b"test:443", b"CONNECT")),
    "a method that is no token": (400, target(b"/", b"G@T")),
    # The version (RFC 9112 section 2.3).
    "HTTP/2.0": (505, get(first=b"GET / HTTP/2.0")),
    "HTTP/0.9 with a version": (505, get(first=b"GET / HTTP/0.9")),
    "HTTP/0.9 without one": (505, b"GET /\r\n\r\n"),
    "a version of two digits": (400, get(first=b"GET / HTTP/1.10")),
    "a version without a dot": (400, get(first=b"GET / HTTP/11")),
    "http in small letters": (400, get(first=b"GET / http/1.1")),
    "another protocol": (400, get(first=b"GET / FTP/1.1")),
    "RTSP/1.0": (505, get(first=b"GET / RTSP/1.0")),
    "RTSP/1.1": (505, get(first=b"OPTIONS / RTSP/1.1")),
    "RTSP with two spaces": (505, get(first=b"GET  /  RTSP/1.1")),
    "ICE/1.0": (505, get(first=b"SOURCE / ICE/1.0")),
    # Host (RFC 9112 section 3.2).
    "no Host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "no Host beside an absolute target": (400, b"GET http://test/ HTTP/1.1\r\n\r\n"),
    "two Hosts": (400, get(b"Host: test")),
    "two Hosts in HTTP/1.0": (400, get(b"Host: test", first=b"GET / HTTP/1.0")),
    "user information in Host": (400, host(b"user@test")),
    "a bad port in Host": (400, host(b"test:x")),
    "a signed port in Host": (400, host(b"test:+80")),
    "a port beyond all ports in Host": (400, host(b"test:65536")),
    "a port of many digits in Host": (400, host(b"test:" + b"0" * 5000)),
    "a path in Host": (400, host(b"test/path")),
    "a query in Host": (400, host(b"test?query")),
    "a fragment in Host": (400, host(b"test#fragment")),
    "a space in Host": (400, host(b"te st")),
    "bytes beyond ASCII in Host": (400, host(b"caf\xe9")),
    "a bad escape in Host": (400, host(b"te%zzst")),
    "an IPv6 address without brackets": (400, host(b"::1")),
    "an IPv6 address with one bracket": (400, host(b"[::1")),
    "a bad Host in HTTP/1.0": (400, get(first=b"GET / HTTP/1.0", host=b"Host: a/b")),
    "a bad Host beside an absolute target": (
        400,
        get(first=b"GET http://test/ HTTP/1.1", host=b"Host: a b"),
    ),
    # Fields (RFC 9112 section 5, RFC 9110 section 5).
    "a space before the colon": (400, get(b"X : 1")),
    "a tab before the colon": (400, get(b"X\t: 1")),
    "a folded header": (400, get(b"X: 1", b" 2")),
    "a header folded by a tab": (400, get(b"X: 1", b"\t2")),
    "white space before the first header": (400, b"GET / HTTP/1.1\r\n X: 1\r\n" + get()[16:]),
    "a folded Transfer-Encoding": (400, coding(b"\r\n chunked")),
    "an empty name": (400, get(b": 1")),
    "no colon": (400, get(b"X")),
    "a name with a parenthesis": (400, get(b"X(: 1")),
    "a name with a brace": (400, get(b"X{: 1")),
    "a name with an at sign": (400, get(b"X@: 1")),
    "a name with a quote": (400, get(b'X": 1')),
    "a name beyond ASCII": (400, get(b"X\xe9: 1")),
    "a NUL in a name": (400, get(b"X\0: 1")),
    "a NUL in a value": (400, get(b"X: a\0b")),
    "a control character in a value": (400, get(b"X: a\x01b")),
    "an escape in a value": (400, get(b"X: a\x1bb")),
    "a DEL in a value": (400, get(b"X: a\x7fb")),
    "a vertical tab before a value": (400, get(b"X: \x0bb")),
    "a control character in Connection": (400, get(b"Connection: close\x0c")),
    "two Content-Types": (400, get(b"Content-Type: a/b", b"Content-Type: a/b")),
    # Content-Length (RFC 9112 section 6.3, RFC 9110 section 8.6).
    "two equal lengths": (400, length(b"1\r\nContent-Length: 1")),
    "two different lengths": (400, length(b"1\r\nContent-Length: 2", b"xx")),
    "equal lengths in a list": (400, length(b"1, 1")),
    "different lengths in a list": (400, length(b"1,2", b"xx")),
    "lengths with a space between": (400, length(b"1 1")),
    "a length with a plus": (400, length(b"+1")),
    "a length with a minus": (400, length(b"-1")),
    "a length in hexadecimal": (400, length(b"0x1")),
    "a length with an underscore": (400, length(b"1_0")),
    "a length with a fraction": (400, length(b"1.0")),
    "an empty length": (400, length(b"", b"")),
    "a length of 2^64": (400, length(b"18446744073709551616", b"")),
    "a length of 2^64 and one": (400, length(b"18446744073709551617")),
    # Transfer-Encoding (RFC 9112 section 6.1).
    "a length and a coding": (400, coding(b"chunked\r\nContent-Length: 5")),
    "a coding and a length": (400, length(b"5\r\nTransfer-Encoding: chunked", END)),
    "a coding in HTTP/1.0": (400, coding(b"chunked").replace(b"/1.1", b"/1.0", 1)),
    "gzip alone": (501, coding(b"gzip")),
    "gzip before chunked": (501, coding(b"gzip, chunked")),
    "chunked that is not last": (501, coding(b"chunked, gzip")),
    "identity": (501, coding(b"identity")),
    "identity before chunked": (501, coding(b"identity, chunked")),
    "chunked twice": (501, coding(b"chunked, chunked")),
    "chunked on two lines": (501, coding(b"chunked\r\nTransfer-Encoding: chunked")),
    "identity and chunked on two lines": (
        501,
        coding(b"identity\r\nTransfer-Encoding: chunked"),
    ),
    "a coding that ends like chunked": (501, coding(b"xchunked")),
    "a coding that begins like chunked": (501, coding(b"chunkedx")),
    "chunked with a parameter": (501, coding(b"chunked;q=1")),
    "chunked in quotes": (501, coding(b'"chunked"')),
    "an empty coding": (501, coding(b"")),
    # Chunks (RFC 9112 section 7.1).
    "a chunk without a size": (400, chunks(b"\r\n" + END)),
    "a chunk size with 0x": (400, chunks(b"0x1\r\na\r\n" + END)),
    "a chunk size with a plus": (400, chunks(b"+1\r\na\r\n" + END)),
    "a chunk size with a minus": (400, chunks(b"-1\r\na\r\n" + END)),
    "a chunk size with an underscore": (400, chunks(b"1_0\r\n" + b"a" * 16 + b"\r\n" + END)),
    "a space before a chunk size": (400, chunks(b" 1\r\na\r\n" + END)),
    "a space behind a chunk size": (400, chunks(b"1 \r\na\r\n" + END)),
    "a tab behind a chunk size": (400, chunks(b"1\t\r\na\r\n" + END)),
    "a chunk size beyond 2^64": (400, chunks(b"fffffffffffffffff\r\na\r\n" + END)),
    "a chunk size that wraps to one": (400, chunks(b"10000000000000001\r\na\r\n" + END)),
    "a bare LF behind a chunk size": (400, chunks(b"1\na\r\n" + END)),
    "a bare CR behind a chunk size": (400, chunks(b"1\ra\r\n" + END)),
    "a bare LF behind a chunk": (400, chunks(b"1\r\na\n" + END)),
    "a chunk longer than its size": (400, chunks(b"1\r\nab\r\n" + END)),
    "a chunk without its end": (400, chunks(b"1\r\na" + END)),
    "a bare LF behind the last size": (400, chunks(b"1\r\na\r\n0\n\r\n")),
    "a bare LF at the end of a body": (400, chunks(b"1\r\na\r\n0\r\n\n")),
    "an extension without a name": (400, chunks(b"1;\r\na\r\n" + END)),
    "an extension with a bare LF": (400, chunks(b"1;a\na\r\n" + END)),
    "an extension with a bare CR": (400, chunks(b"1;a\rb\r\na\r\n" + END)),
    "an extension with a NUL": (400, chunks(b"1;a\0b\r\na\r\n" + END)),
    "an extension with a LF in quotes": (400, chunks(b'1;a="\n"\r\na\r\n' + END)),
    "an extension with a CRLF in quotes": (400, chunks(b'1;a="\r\n"\r\na\r\n' + END)),
    "an extension that is no token": (400, chunks(b"1;a(\r\na\r\n" + END)),
    # Trailers (RFC 9112 section 7.1.2).
    "a trailer with a bare LF": (400, chunks(b"0\r\nX: 1\n\r\n")),
    "a folded trailer": (400, chunks(b"0\r\nX: 1\r\n 2\r\n\r\n")),
    "a space before the colon of a trailer": (400, chunks(b"0\r\nX : 1\r\n\r\n")),
    "a NUL in a trailer": (400, chunks(b"0\r\nX: \0\r\n\r\n")),
    "a length as trailer": (400, chunks(b"0\r\nContent-Length: 5\r\n\r\n")),
    "a coding as trailer": (501, chunks(b"0\r\nTransfer-Encoding: chunked\r\n\r\n")),
    # Semantics.
    "an unknown expectation": (417, get(b"Expect: magic")),
    # More of the same.
    "a method with a colon": (400, target(b"/", b"GET:")),
    "a method with a slash": (400, target(b"/", b"GET/")),
    "a NUL in the method": (400, target(b"/", b"G\0T")),
    "a method beyond ASCII": (400, target(b"/", b"G\xc9T")),
    "a tab behind the version": (400, get(first=b"GET / HTTP/1.1\t")),
    "a form feed between method and target": (400, get(first=b"GET\x0c/ HTTP/1.1")),
    "four words": (400, get(first=b"GET / x HTTP/1.1")),
    "one word": (400, get(first=b"GET")),
    "an asterisk with a path": (400, target(b"*/a", b"OPTIONS")),
    "CONNECT of a later version": (505, get(first=b"CONNECT test:443 HTTP/2.0")),
    "the preface of HTTP/2": (505, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    "RTSP without a number": (505, get(first=b"PLAY / RTSP/")),
    "a bare CR before a colon": (400, get(b"X\r: 1")),
    "a bare CR before a line's end": (400, get(b"X: 1\r\r\n").removesuffix(b"\r\n")),
    "a bare LF at the end of a value": (400, get(b"X: 1\n")),
    "a field line of a colon alone": (400, get(b":")),
    "a space alone": (400, get(b" ")),
    "a name in two words": (400, get(b"X Y: 1")),
    "a line feed before white space": (400, get(b"X: 1\n 2")),
    "a length with white space inside": (400, length(b"1\t1")),
    "a length beyond ASCII": (400, length(b"\xb2")),
    "a length with a comma": (400, length(b"1,")),
    "a coding with an empty element": (501, coding(b"chunked,")),
    "a coding behind a vertical tab": (400, coding(b"\x0bchunked")),
    "a coding before a no-break space": (501, coding(b"chunked\xa0")),
    "a chunk size of 17 digits": (400, chunks(b"10000000000000000\r\n")),
    "a large chunk size": (413, chunks(b"ffffffffffffffff\r\n")),
    "white space alone before the end of a size line": (400, chunks(b"1;a \r\nx\r\n" + END)),
    "an extension without a value": (400, chunks(b"1;a=\r\nx\r\n" + END)),
    "an extension with an open quote": (400, chunks(b'1;a="\r\nx\r\n' + END)),
    "an extension with an escape at its end": (400, chunks(b'1;a="\\"\r\nx\r\n' + END)),
    "an extension with an escaped control": (400, chunks(b'1;a="\\\x01"\r\nx\r\n' + END)),
    "two semicolons": (400, chunks(b"1;;a\r\nx\r\n" + END)),
    "a chunk size in fullwidth": (400, chunks("１".encode() + b"\r\nx\r\n" + END)),
    "a bare CR in a trailer": (400, chunks(b"0\r\nX: a\rb\r\n\r\n")),
    "a trailer without a colon": (400, chunks(b"0\r\nX\r\n\r\n")),
    "white space before a trailer": (400, chunks(b"0\r\n X: 1\r\n\r\n")),
    "another expectation in a list": (417, get(b"Expect: 100-continue, magic")),
}

# How many of two requests are served: the first may be the last of its connection.
SERVED = {
    "empty lines before a request": (2, b"\r\n\r\n" + get()),
    "a bare LF before a request": (2, b"\n" + get()),
    "a bare CR before a request": (2, b"\r" + get()),
    "LF and CR before a request": (2, b"\n\r" + get()),
    "bytes beyond ASCII in the target": (2, target(b"/caf\xc3\xa9?\xff")),
    "bytes beyond ASCII in an absolute target": (2, target(b"http://test/\xe9")),
    "two spaces in the request line": (2, get(first=b"GET  /  HTTP/1.1")),
    "a path of two slashes": (2, target(b"//test/path")),
    "marks in a query": (2, target(b"/a?b=c?d&e=|&f=:@")),
    "a path with what a URL should escape": (2, target(b'/"<>\\^`{|}')),
    "an absolute target": (2, target(b"http://test:80/path?query")),
    "an absolute target without a path": (2, target(b"http://test?query")),
    "an absolute target with an IPv6 address": (2, target(b"http://[::1]:8000/")),
    "an asterisk": (2, target(b"*", b"OPTIONS")),
    "TRACE": (2, target(b"/", b"TRACE")),
    "words that only look like RTSP": (2, get(b"X: GET / RTSP/1.0")),
    "an empty Host": (2, host(b"")),
    "a Host with a port": (2, host(b"test:65535")),
    "a Host with an empty port": (2, host(b"test:")),
    "an IPv4 address as Host": (2, host(b"127.0.0.1:80")),
    "an IPv6 address as Host": (2, host(b"[::ffff:127.0.0.1]:80")),
    "an address of the future as Host": (2, host(b"[v1.a:b]")),
    "a Host with an underscore": (2, host(b"my_host")),
    "a Host with an equals sign": (2, host(b"0.0.0.0=5000")),
    "a Host with an escape": (2, host(b"caf%C3%A9")),
    "HTTP/1.0 without Host": (1, b"GET / HTTP/1.0\r\n\r\n"),
    "HTTP/1.0 that wants to stay": (
        2,
        get(b"Connection: keep-alive", first=b"GET / HTTP/1.0"),
    ),
    "every character of a token": (2, get(b"!#$%&'*+-.^`|~09azAZ: 1")),
    "obs-text in a value": (2, get(b"X: \x80\xff")),
    "a tab in a value": (2, get(b"X: a\tb")),
    "white space around a value": (2, get(b"X: \t 1 \t ")),
    "no white space before a value": (2, get(b"X:1")),
    "an empty value": (2, get(b"X:")),
    "a colon in a value": (2, get(b"X:y: 1")),
    "a single value on two lines": (2, get(b"ETag: 1", b"ETag: 2")),
    "close": (1, get(b"Connection: close")),
    "close in a list": (1, get(b"Connection: x, close")),
    "close in a list with empty elements": (1, get(b"Connection: ,, close ,")),
    "close on the second line": (1, get(b"Connection: x", b"Connection: close")),
    "close and keep-alive": (1, get(b"Connection: close, keep-alive")),
    "keep-alive and close on two lines": (
        1,
        get(b"Connection: keep-alive", b"Connection: close"),
    ),
    "a word that begins like close": (2, get(b"Connection: closed")),
    "a length named in Connection": (2, length(b"1\r\nConnection: content-length")),
    "a length with zeros": (2, length(b"0001")),
    "a length with white space around it": (2, length(b"\t1 \t")),
    "a body with GET": (2, get(b"Content-Length: 1") + b"x"),
    "chunked in large letters": (2, coding(b"CHUNKED")),
    "a chunk size with zeros": (2, chunks(b"0001\r\na\r\n000\r\n\r\n")),
    "a chunk size of both cases": (2, chunks(b"aB\r\n" + b"x" * 0xAB + b"\r\n" + END)),
    "extensions": (2, chunks(b'1;a;b=c;d="e f\\"g"\r\na\r\n0;last\r\n\r\n')),
    "a trailer": (2, chunks(b"1\r\na\r\n0\r\nX: 1\r\nY:2\r\n\r\n")),
    "trailers that are for heads": (2, chunks(b"0\r\nHost: x\r\nTE: x\r\nTrailer: x\r\n\r\n")),
    "an expectation without a body": (2, get(b"Expect: 100-continue")),
    "an upgrade": (2, get(b"Connection: upgrade", b"Upgrade: websocket")),
    "a method in small letters": (2, target(b"/", b"get")),
    "a method that nobody knows": (2, target(b"/", b"BREW")),
    "an upgrade with a body": (2, length(b"1\r\nConnection: upgrade\r\nUpgrade: x")),
    "an upgrade with chunks": (2, coding(b"chunked\r\nConnection: upgrade\r\nUpgrade: x")),
    # Later minor versions (RFC 9110 section 6.2).
    "HTTP/1.2": (2, get(first=b"GET / HTTP/1.2")),
    "HTTP/1.9 with chunks": (2, get(b"Transfer-Encoding: chunked", first=b"PUT / HTTP/1.9") + END),
    # Methods (RFC 9110 section 9.1).
    "a method of WebDAV": (2, target(b"/", b"VERSION-CONTROL")),
    "a method of a cache": (2, target(b"/", b"BAN")),
    "a method of each character": (2, target(b"/", b"!#$%&'*+-.^_`|~09azAZ")),
    "a method that begins with that of HTTP/2": (2, target(b"/", b"PRI")),
    "an absolute target for OPTIONS": (2, target(b"http://test", b"OPTIONS")),
    # Optional white space (RFC 9110 section 5.6.3).
    "a tab before chunked": (2, get(b"Transfer-Encoding:\tchunked") + END),
    "tabs and spaces around chunked": (2, get(b"Transfer-Encoding: \t chunked \t") + END),
    "no white space before chunked": (2, get(b"Transfer-Encoding:chunked") + END),
    "a tab before Host": (2, get(host=b"Host:\ttest\t")),
    "tabs in Connection": (1, get(b"Connection:\tx\t,\tclose\t")),
    "a tab around an expectation": (2, get(b"Expect:\t100-Continue\t")),
    # Bad white space in extensions (RFC 9112 section 7.1.1).
    "white space around an extension": (2, chunks(b"1 ; a = b\r\nx\r\n0 ; a\r\n\r\n")),
    "tabs around an extension": (2, chunks(b'1\t;\ta\t=\t"b\tc"\t;d\r\nx\r\n' + END)),
    "an escape in an extension": (2, chunks(b'1;a="\\"\\\\\\\t";b\r\nx\r\n' + END)),
    "obs-text in an extension": (2, chunks(b'1;a="\x80\xff"\r\nx\r\n' + END)),
    "an empty extension in quotes": (2, chunks(b'1;a=""\r\nx\r\n' + END)),
    "an extension of each token character": (
        2,
        chunks(b"1;!#$%&'*+-.^_`|~09azAZ=!#$%&'*+-.^_`|~09azAZ\r\nx\r\n" + END),
    ),
    "zeros before a size of 16 digits": (
        2,
        chunks(b"0000000000000000000a\r\n0123456789\r\n" + END),
    ),
    "an upgrade and a body": (2, length(b"1\r\nUpgrade: h2c\r\nHTTP2-Settings: AAA")),
    "an upgrade and chunks": (2, coding(b"chunked\r\nConnection: Upgrade\r\nUpgrade: h2c")),
    "a list of expectations": (2, get(b"Expect: 100-continue, 100-Continue")),
    "a length of many zeros": (2, length(b"0" * 5000 + b"1")),
    "a trailer with an empty value": (2, chunks(b"0\r\nX:\r\n\r\n")),
}


# Limits of what is neither head nor body.

TIGHT = RequestLimits(1000, 10, 1000, 1 << 20, 1 << 20)


def trailers(*lines: bytes) -> bytes:
    return chunks(b"1\r\na\r\n0\r\n" + b"".join(line + b"\r\n" for line in lines) + b"\r\n")
