"""Requests as clients send them: with the fields, and in the form, that each is known for.

The values that would differ each time, or name somebody, are made up.
"""


def _request(first: str, *lines: str, body: bytes = b"") -> bytes:
    return "\r\n".join([first, *lines, "", ""]).encode("latin-1") + body


_JSON = b'{"name":"value","number":12345}'
_CHUNKS = b"1f\r\n" + _JSON + b"\r\n0\r\n\r\n"
_FORM = b"user=somebody&password=something+else"
_PART = (
    b"------WebKitFormBoundary7MA4YWxkTrZu0gW\r\n"
    b'Content-Disposition: form-data; name="file"; filename="a.txt"\r\n'
    b"Content-Type: text/plain\r\n\r\nsome text\r\n\r\n"
    b"------WebKitFormBoundary7MA4YWxkTrZu0gW--\r\n"
)
_CHROME = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko)"
    " Chrome/126.0.0.0 Safari/537.36"
)
_FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:128.0) Gecko/20100101 Firefox/128.0"
_SAFARI = (
    "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko)"
    " Version/17.5 Safari/605.1.15"
)
_KEY = "dGhlIHNhbXBsZSBub25jZQ=="

REQUESTS: dict[str, bytes] = {
    # Browsers.
    "Chrome, a page": _request(
        "GET /articles/2026/a-title?page=2&sort=date HTTP/1.1",
        "Host: www.example.com",
        "Connection: keep-alive",
        "Cache-Control: max-age=0",
        'sec-ch-ua: "Not/A)Brand";v="8", "Chromium";v="126", "Google Chrome";v="126"',
        "sec-ch-ua-mobile: ?0",
        'sec-ch-ua-platform: "Linux"',
        "Upgrade-Insecure-Requests: 1",
        f"User-Agent: {_CHROME}",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,"
        "image/apng,*/*;q=0.8,application/signed-exchange;v=b3;q=0.7",
        "Sec-Fetch-Site: none",
        "Sec-Fetch-Mode: navigate",
        "Sec-Fetch-User: ?1",
        "Sec-Fetch-Dest: document",
        "Accept-Encoding: gzip, deflate, br, zstd",
        "Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7",
        "Cookie: _ga=GA1.1.1234567890.1234567890; session=0123456789abcdef; theme=dark",
        'If-None-Match: W/"5e1c-18f2d3a4b5c"',
        "If-Modified-Since: Tue, 02 Jun 2026 08:00:00 GMT",
    ),
    "Chrome, an upload": _request(
        "POST /upload HTTP/1.1",
        "Host: localhost:8000",
        "Connection: keep-alive",
        f"Content-Length: {len(_PART)}",
        f"User-Agent: {_CHROME}",
        "Content-Type: multipart/form-data; boundary=----WebKitFormBoundary7MA4YWxkTrZu0gW",
        "Accept: */*",
        "Origin: http://localhost:8000",
        "Referer: http://localhost:8000/form",
        body=_PART,
    ),
    "Chrome, a preflight": _request(
        "OPTIONS /api HTTP/1.1",
        "Host: api.example.com",
        "Connection: keep-alive",
        "Accept: */*",
        "Access-Control-Request-Method: POST",
        "Access-Control-Request-Headers: content-type,x-requested-with",
        "Origin: https://www.example.com",
    ),
    "Chrome, a WebSocket": _request(
        "GET /socket HTTP/1.1",
        "Host: localhost:8000",
        "Connection: Upgrade",
        "Pragma: no-cache",
        "Cache-Control: no-cache",
        "Upgrade: websocket",
        "Origin: http://localhost:8000",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {_KEY}",
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits",
    ),
    "Chrome, a part of a video": _request(
        "GET /video.mp4 HTTP/1.1",
        "Host: www.example.com",
        "Connection: keep-alive",
        "Accept-Encoding: identity;q=1, *;q=0",
        "Range: bytes=0-",
        'If-Range: "abc"',
    ),
    "Firefox, a page": _request(
        "GET /?q=%C3%A9t%C3%A9 HTTP/1.1",
        "Host: www.example.com",
        f"User-Agent: {_FIREFOX}",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        "Accept-Language: en-US,en;q=0.5",
        "Accept-Encoding: gzip, deflate, br",
        "DNT: 1",
        "Connection: keep-alive",
        "Upgrade-Insecure-Requests: 1",
        "Sec-GPC: 1",
        "Priority: u=0, i",
    ),
    "Firefox, a WebSocket": _request(
        "GET /socket HTTP/1.1",
        "Host: [::1]:8000",
        f"User-Agent: {_FIREFOX}",
        "Sec-WebSocket-Version: 13",
        f"Sec-WebSocket-Key: {_KEY}",
        "Connection: keep-alive, Upgrade",
        "Upgrade: websocket",
    ),
    "Safari, a page": _request(
        "GET /a%20path HTTP/1.1",
        "Host: example.com",
        "Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8",
        f"User-Agent: {_SAFARI}",
        "Accept-Language: en-GB,en;q=0.9",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
    ),
    "an old browser, a form": _request(
        "POST /login HTTP/1.1",
        "Accept: text/html, application/xhtml+xml, */*",
        "Referer: http://example.com/login",
        "User-Agent: Mozilla/5.0 (Windows NT 6.1; WOW64; Trident/7.0; rv:11.0) like Gecko",
        "Content-Type: application/x-www-form-urlencoded",
        "Host: example.com",
        f"Content-Length: {len(_FORM)}",
        "Proxy-Connection: Keep-Alive",
        "Pragma: no-cache",
        "Cookie: a=b",
        body=_FORM,
    ),
    # curl and wget.
    "curl": _request(
        "GET / HTTP/1.1", "Host: localhost:8000", "User-Agent: curl/8.8.0", "Accept: */*"
    ),
    "curl --http2": _request(
        "GET / HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: curl/8.8.0",
        "Accept: */*",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
    ),
    "curl --http2 -d": _request(
        "POST /form HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: curl/8.8.0",
        "Accept: */*",
        "Connection: Upgrade, HTTP2-Settings",
        "Upgrade: h2c",
        "HTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA",
        f"Content-Length: {len(_FORM)}",
        "Content-Type: application/x-www-form-urlencoded",
        body=_FORM,
    ),
    "curl -T -": _request(
        "PUT /file HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: curl/8.8.0",
        "Accept: */*",
        "Transfer-Encoding: chunked",
        "Expect: 100-continue",
        body=_CHUNKS,
    ),
    "curl with a large body": _request(
        "POST /file HTTP/1.1",
        "Host: localhost:8000",
        "Authorization: Basic dXNlcjpwYXNzd29yZA==",
        "User-Agent: curl/7.88.1",
        "Accept: */*",
        f"Content-Length: {len(_JSON)}",
        "Content-Type: application/x-www-form-urlencoded",
        "Expect: 100-continue",
        body=_JSON,
    ),
    "curl --http1.0": _request("GET / HTTP/1.0", "Host: localhost:8000", "User-Agent: curl/8.8.0"),
    "curl through a proxy": _request(
        "GET http://example.com:8080/a?b HTTP/1.1",
        "Host: example.com:8080",
        "User-Agent: curl/8.8.0",
        "Accept: */*",
        "Proxy-Connection: Keep-Alive",
    ),
    "curl -X with a method of its own": _request("PURGE /a HTTP/1.1", "Host: localhost"),
    "curl -H with an empty field": _request("GET / HTTP/1.1", "Host: localhost", "X-Empty:"),
    "wget": _request(
        "GET /file.tar.gz HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: Wget/1.24.5",
        "Accept: */*",
        "Accept-Encoding: identity",
        "Connection: Keep-Alive",
    ),
    # Benchmarks and checks.
    "ab": _request(
        "GET / HTTP/1.0", "Host: localhost:8000", "User-Agent: ApacheBench/2.3", "Accept: */*"
    ),
    "ab -k": _request(
        "GET / HTTP/1.0",
        "Connection: Keep-Alive",
        "Host: localhost:8000",
        "User-Agent: ApacheBench/2.3",
        "Accept: */*",
    ),
    "wrk": _request("GET / HTTP/1.1", "Host: localhost:8000"),
    "HAProxy, a check": _request("OPTIONS / HTTP/1.0"),
    "a load balancer, a check": _request(
        "GET /health HTTP/1.1",
        "Host: 10.0.0.1:8000",
        "Connection: close",
        "User-Agent: ELB-HealthChecker/2.0",
        "Accept-Encoding: gzip, compressed",
    ),
    "Kubernetes, a probe": _request(
        "GET /ready HTTP/1.1",
        "Host: 10.1.2.3:8000",
        "User-Agent: kube-probe/1.30",
        "Accept: */*",
        "Connection: close",
    ),
    # Java.
    "java.net.http, a GET": _request(
        "GET /a HTTP/1.1",
        "Connection: Upgrade, HTTP2-Settings",
        "Content-Length: 0",
        "Host: localhost:8000",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Upgrade: h2c",
        "User-Agent: Java-http-client/21.0.3",
    ),
    "java.net.http, a POST": _request(
        "POST /a HTTP/1.1",
        "Connection: Upgrade, HTTP2-Settings",
        f"Content-Length: {len(_JSON)}",
        "Host: localhost:8000",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Upgrade: h2c",
        "User-Agent: Java-http-client/21.0.3",
        "Content-Type: application/json",
        body=_JSON,
    ),
    "java.net.http, a stream": _request(
        "POST /a HTTP/1.1",
        "Connection: Upgrade, HTTP2-Settings",
        "Host: localhost:8000",
        "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAAAAUAAEAA",
        "Transfer-encoding: chunked",
        "Upgrade: h2c",
        "User-Agent: Java-http-client/21.0.3",
        body=_CHUNKS,
    ),
    "HttpURLConnection": _request(
        "POST /a HTTP/1.1",
        "Content-Type: application/json",
        "User-Agent: Java/1.8.0_412",
        "Host: localhost:8000",
        "Accept: text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2",
        "Connection: keep-alive",
        f"Content-Length: {len(_JSON)}",
        body=_JSON,
    ),
    "OkHttp": _request(
        "POST /a HTTP/1.1",
        "Content-Type: application/json; charset=utf-8",
        "Transfer-Encoding: chunked",
        "Host: localhost:8000",
        "Connection: Keep-Alive",
        "Accept-Encoding: gzip",
        "User-Agent: okhttp/4.12.0",
        body=_CHUNKS,
    ),
    # Go.
    "Go, a GET": _request(
        "GET /a HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: Go-http-client/1.1",
        "Accept-Encoding: gzip",
    ),
    "Go, a stream with a trailer": _request(
        "POST /a HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: Go-http-client/1.1",
        "Transfer-Encoding: chunked",
        "Trailer: X-Checksum",
        "Accept-Encoding: gzip",
        body=b"1f\r\n" + _JSON + b"\r\n0\r\nX-Checksum: 1234\r\n\r\n",
    ),
    # Node and browsers' relatives.
    "Node, fetch": _request(
        "POST /a HTTP/1.1",
        "host: localhost:8000",
        "connection: keep-alive",
        "content-type: text/plain;charset=UTF-8",
        "accept: */*",
        "accept-language: *",
        "sec-fetch-mode: cors",
        "user-agent: node",
        "accept-encoding: gzip, deflate",
        f"content-length: {len(_JSON)}",
        body=_JSON,
    ),
    "Node, http.request": _request(
        "POST /a HTTP/1.1",
        "Host: localhost:8000",
        "Connection: close",
        "Transfer-Encoding: chunked",
        body=_CHUNKS,
    ),
    "axios": _request(
        "GET /a?b=%5B1%5D HTTP/1.1",
        "Accept: application/json, text/plain, */*",
        "User-Agent: axios/1.7.2",
        "Accept-Encoding: gzip, compress, deflate, br",
        "Host: localhost:8000",
        "Connection: close",
    ),
    # Rust.
    "ureq": _request(
        "POST /a HTTP/1.1",
        "Host: localhost",
        "User-Agent: ureq/2.9.7",
        "Accept: */*",
        "accept-encoding: gzip",
        "Transfer-Encoding: chunked",
        body=_CHUNKS,
    ),
    "reqwest": _request(
        "POST /a HTTP/1.1",
        "content-type: application/json",
        "accept: */*",
        "host: localhost:8000",
        f"content-length: {len(_JSON)}",
        body=_JSON,
    ),
    # Python.
    "requests": _request(
        "POST /a HTTP/1.1",
        "Host: localhost:8000",
        "User-Agent: python-requests/2.32.3",
        "Accept-Encoding: gzip, deflate, br",
        "Accept: */*",
        "Connection: keep-alive",
        f"Content-Length: {len(_JSON)}",
        "Content-Type: application/json",
        body=_JSON,
    ),
    "urllib": _request(
        "GET /a HTTP/1.1",
        "Accept-Encoding: identity",
        "Host: localhost:8000",
        "User-Agent: Python-urllib/3.11",
        "Connection: close",
    ),
    "httpx": _request(
        "PATCH /a HTTP/1.1",
        "Host: localhost:8000",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "Connection: keep-alive",
        "User-Agent: python-httpx/0.27.0",
        "Transfer-Encoding: chunked",
        body=_CHUNKS,
    ),
    "aiohttp": _request(
        "GET /a HTTP/1.1",
        "Host: localhost:8000",
        "Accept: */*",
        "Accept-Encoding: gzip, deflate",
        "User-Agent: Python/3.11 aiohttp/3.9.5",
    ),
    # Others.
    "Ruby, Net::HTTP": _request(
        "GET /a HTTP/1.1",
        "Accept-Encoding: gzip;q=1.0,deflate;q=0.6,identity;q=0.3",
        "Accept: */*",
        "User-Agent: Ruby",
        "Connection: close",
        "Host: localhost:8000",
    ),
    "PHP, Guzzle": _request(
        "PUT /a HTTP/1.1",
        "Content-Length: 31",
        "User-Agent: GuzzleHttp/7",
        "Content-Type: application/json",
        "Host: localhost",
        body=_JSON,
    ),
    ".NET, HttpClient": _request(
        "POST /a HTTP/1.1",
        "Host: localhost:8000",
        "Request-Id: |7e3f5a2b-4d1c.",
        "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "Transfer-Encoding: chunked",
        "Content-Type: application/json; charset=utf-8",
        body=_CHUNKS,
    ),
    "git": _request(
        "POST /repo.git/git-upload-pack HTTP/1.1",
        "Host: localhost",
        "User-Agent: git/2.39.2",
        "Accept-Encoding: deflate, gzip, br, zstd",
        "Content-Type: application/x-git-upload-pack-request",
        "Accept: application/x-git-upload-pack-result",
        "Git-Protocol: version=2",
        "Content-Length: 31",
        body=_JSON,
    ),
    "a WebDAV client": _request(
        "PROPFIND /dav/ HTTP/1.1",
        "Host: localhost",
        "Depth: 1",
        "Content-Type: application/xml",
        "Content-Length: 31",
        "User-Agent: Microsoft-WebDAV-MiniRedir/10.0.19045",
        "translate: f",
        body=_JSON,
    ),
    "a DeltaV client": _request(
        "VERSION-CONTROL /dav/a HTTP/1.1", "Host: localhost", "Content-Length: 0"
    ),
    "Varnish, a ban": _request("BAN / HTTP/1.1", "Host: localhost", "X-Ban-Url: ^/a.*$"),
    "nginx as a proxy": _request(
        "GET /a HTTP/1.0",
        "X-Real-IP: 192.0.2.1",
        "X-Forwarded-For: 192.0.2.1",
        "X-Forwarded-Proto: https",
        "Host: example.com",
        "Connection: close",
        "User-Agent: curl/8.8.0",
    ),
    "a client that sends a line too many behind a form": _request(
        "POST /a HTTP/1.1", "Host: localhost", "Content-Length: 3", body=b"a=b\r\n"
    ),
    "a client that sends lists in pieces": _request(
        "GET /a HTTP/1.1",
        "Host:localhost",
        "Accept:text/html",
        "Accept:\ttext/plain\t",
        "Cookie: a=1",
        "Cookie: b=2",
        "X-Name: J\xfcrgen",
    ),
}
