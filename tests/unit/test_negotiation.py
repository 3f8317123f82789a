"""Accept-Encoding, and which coding is chosen."""

import pytest

from prefork.http.negotiation import accepted


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        (None, []),
        ("", []),
        ("gzip", ["gzip"]),
        ("GZIP", ["gzip"]),
        ("x-gzip", ["gzip"]),
        ("gzip, zstd", ["zstd", "gzip"]),
        ("gzip;q=1.0, zstd;q=0.5", ["gzip", "zstd"]),
        ("gzip ; Q=0.001,\tzstd", ["zstd", "gzip"]),
        ("gzip;q=0, zstd", ["zstd"]),
        ("*", ["zstd", "gzip"]),
        ("*;q=0", []),
        ("gzip, *;q=0", ["gzip"]),
        ("zstd;q=0, *", ["gzip"]),
        ("identity", []),
        ("deflate, br", []),
        ("gzip;q=2", []),
        ("gzip;q=-1", []),
        ("gzip;q=x", []),
        ("gzip;level=9", []),
        (", ,gzip,", ["gzip"]),
        ("x," * 60 + "gzip", []),
    ],
)
def test_what_a_client_takes(header: str | None, expected: list[str]) -> None:
    assert accepted(header, ("zstd", "gzip")) == expected


def test_a_header_of_any_length_takes_no_time() -> None:
    assert accepted("gzip" + " " * 60_000 + ";" + " " * 60_000 + "q", ("gzip",)) == []
