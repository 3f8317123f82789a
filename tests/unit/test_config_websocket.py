"""[websocket]: what is taken, and what is said of what is not."""

from pathlib import Path

import pytest

from prefork.config import Websocket
from tests.support.config_site import APP, Write, loaded, problems, site_in


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Write:
    return site_in(tmp_path, monkeypatch)


def test_every_key_is_read(site: Write) -> None:
    name = site(
        APP + '[websocket]\nmax_message = "16MiB"\nreceive_queue = 1000\nping_interval = 0\n'
        "ping_timeout = 60\nmax_age = 3600\ncompression = false\n"
    )
    assert loaded(name).config.websocket == Websocket(
        max_message=16 << 20,
        receive_queue=1000,
        ping_interval=0,
        ping_timeout=60,
        max_age=3600,
        compression=False,
    )


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("max_message = -1", "websocket.max_message: expected a size"),
        ("receive_queue = 0", "websocket.receive_queue: expected a size"),
        ('compression = "gzip"', "websocket.compression"),
        ("ping_intervall = 3", "websocket.ping_interval"),
    ],
)
def test_what_is_wrong_is_named(site: Write, line: str, said: str) -> None:
    (problem,) = problems(site(f"{APP}[websocket]\n{line}\n"))
    assert said in problem
