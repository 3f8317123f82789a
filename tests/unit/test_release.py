"""What `make release` refuses."""

import pytest

from tools.release import ReleaseError, check_changelog


def test_the_newest_section_has_to_be_of_the_version() -> None:
    check_changelog("# Changelog\n\n## 0.2.0 (2026-12-01)\n\n## 0.1.0\n", "0.2.0")


@pytest.mark.parametrize(
    "text", ["# Changelog\n", "## Unreleased\n\n## 0.2.0\n", "## 0.2.0rc1\n", "## 0.1.0\n"]
)
def test_another_newest_section_is_refused(text: str) -> None:
    with pytest.raises(ReleaseError, match=r"the newest section is to be 0\.2\.0"):
        check_changelog(text, "0.2.0")
