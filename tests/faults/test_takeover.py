"""The attacks of `make takeover`, for a moment; and a server that does not withstand them."""

import pytest

from tests.faults import takeover


@pytest.mark.parametrize("preload", [[], ["--preload"]])
def test_a_server_withstands_a_worker_that_was_taken_over(
    capsys: pytest.CaptureFixture[str], preload: list[str]
) -> None:
    status = takeover.main(["--seconds", "4", "--seed", "1", *preload])
    assert status == 0, capsys.readouterr().out
    assert "attacks withstood" in capsys.readouterr().out


def test_one_that_does_not_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(takeover, "holds", lambda server: False)
    assert takeover.main(["--seconds", "1", "--seed", "2"]) == 1
    assert "seed 2: the server has not withstood" in capsys.readouterr().out
