"""A target that is nearly the name of an application is answered with the one that was meant."""

from pathlib import Path

import pytest

from prefork.config import ConfigError, Source, load


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("shop.py", "did you mean shop:app?"),
        ("shop.app", "did you mean shop:app?"),
        ("pages/site.py", "did you mean pages.site:application?"),
        ("old-shop.py", "did you mean old-shop:app?"),
        ("nothing.py", "nor module:callable"),
        ("shop.", "nor module:callable"),
    ],
)
def test_what_was_meant(tmp_path: Path, target: str, meant: str) -> None:
    (tmp_path / "shop.py").write_text("app = 1\n")
    (tmp_path / "old-shop.py").write_text("app = 1\n")
    (tmp_path / "pages").mkdir()
    (tmp_path / "pages" / "site.py").write_text("application = 1\n")
    with pytest.raises(ConfigError) as caught:
        load(Source(target, directory=str(tmp_path)), {})
    assert str(caught.value).endswith(meant)
