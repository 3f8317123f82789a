"""The account that `make abuse` gives: of a short run, and of a server that must not pass."""

import re
from dataclasses import replace

import pytest

from tests.faults import abuse


def test_a_good_client_is_served_beside_each_attack(capsys: pytest.CaptureFixture[str]) -> None:
    status = abuse.main(["--seconds", "0.5", "--connections", "60"])
    head, columns, *rows, last = capsys.readouterr().out.splitlines()
    assert status == 0, rows
    assert head == "prefork: 0.5 s each, room for 60 connections"
    assert columns.split()[:2] == ["attack", "served"]
    assert [row[:48].strip() for row in rows] == [attack.name for attack in abuse.ATTACKS]
    for row in rows:
        served, asked = re.findall(r"(\d+) of (\d+)", row)[0]
        assert 0 < int(served) == int(asked)
    assert last == "believed of what a client has forged: nothing"


def test_a_server_without_a_share_is_found_out(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As it was: one address has all connections, and others get 503."""
    attack = next(each for each in abuse.ATTACKS if each.name == "bodies at the lowest rate")
    off = replace(attack, settings=("--set", "http.address_share=1"))
    monkeypatch.setattr(abuse, "ATTACKS", (off,))
    assert abuse.main(["--seconds", "0.5", "--connections", "30", "--only", "bodies"]) == 1
    assert "of" in capsys.readouterr().out
