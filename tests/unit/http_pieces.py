"""Pieces of HTTP, right and wrong, that tests put together at random."""

PIECES = (
    *(b"GET", b"POST", b"HEAD", b"OPTIONS", b"CONNECT", b"SOURCE", b"BREW", b"PRI"),
    *(b" ", b"  ", b"\t", b"/", b"/a?b", b"*", b"#", b"http://test/", b"https://u@test:x"),
    *(b" HTTP/1.1", b" HTTP/1.0", b" HTTP/2.0", b" RTSP/1.1", b" ICE/1.0"),
    *(b"\r\n", b"\r\n", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\0", b"\xff", b":", b";", b","),
    *(b"Host: test\r\n", b"Host: a b\r\n", b"host:\r\n", b"X: 1\r\n", b"X : 1\r\n", b" fold\r\n"),
    *(b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"Content-Length: 3, 3\r\n"),
    *(b"Transfer-Encoding: chunked\r\n", b"Transfer-Encoding: gzip, chunked\r\n"),
    *(b"Connection: close\r\n", b"Connection: upgrade\r\n", b"Upgrade: h2c\r\n"),
    *(b"Connection: keep-alive\r\n", b"Proxy-Connection: keep-alive\r\n"),
    *(b"Expect: 100-continue\r\n", b"Expect: x\r\n", b"Content_Length: 9\r\n"),
    *(b"abc", b"3\r\nabc\r\n", b"3;e=1\r\nabc\r\n", b"0\r\n\r\n", b"0\r\nT: 1\r\n\r\n"),
    *(b"5\r\n", b"fffffffffffffffff\r\n", b"-1\r\n", b"0"),
)

WHOLE = (
    b"GET /a HTTP/1.1\r\nHost: test\r\n\r\n",
    b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\n\r\nabc",
    b"POST / HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"3;x=y\r\nabc\r\n0\r\nT: 1\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: test\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\nabc",
    b"GET http://test/ HTTP/1.1\r\nHost: other\r\nConnection: x, close\r\n\r\n",
)
