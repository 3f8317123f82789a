"""Each reader of foreign bytes on its corpus, and on some inputs more: `make fuzz` for a moment."""

from itertools import count

import pytest

from tests.fuzz import guided
from tests.fuzz.guided import Search, changed
from tests.fuzz.readers import TARGETS, Target


@pytest.mark.parametrize("name", TARGETS)
def test_what_each_reader_promises(name: str) -> None:
    search = Search(name, TARGETS[name], seed=1)  # with the corpus
    for _ in range(150):
        search.try_(changed(search.rng, search.rng.choice(search.inputs), search.inputs))
    assert not search.failures
    assert search.tried > 150


def test_what_reaches_new_code_is_changed_further_and_what_fails_is_found(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    monkeypatch.setattr(guided, "CORPUS", tmp_path_factory.mktemp("corpus"))
    monkeypatch.setattr(guided, "_PACKAGE", __file__)

    def check(data: bytes) -> None:
        """Three steps, each of which random bytes take once in 256 inputs."""
        if data[:1] == b"a":
            if data[1:2] == b"b":
                if data[2:3] == b"c":
                    raise ValueError("found")
                return
            return

    search = Search("steps", Target(check, (b"xyz",)), seed=5)  # takes some 6,000 inputs
    for number in count():
        search.try_(changed(search.rng, search.rng.choice(search.inputs), search.inputs))
        if search.failures:
            break
        assert number < 100_000
    assert len(search.inputs) >= 3
    (kept,) = guided.kept("steps")
    assert kept.read_bytes()[:3] == b"abc"
