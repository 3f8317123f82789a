"""The pages of the documentation site, as Markdown; `make docs` makes HTML and checks its links."""

import re

import click
import pytest

from prefork.cli.group import group
from prefork.config import KEYS
from prefork.config.schema import SECTIONS
from tests.support.commands import ROOT
from tools import site, site_documents, site_reference


def anchors(text: str) -> list[str]:
    return re.findall(r"^## .* \{#([^}]+)\}$", text, re.MULTILINE)


@pytest.mark.parametrize("section", SECTIONS)
def test_each_key_has_an_anchor_its_values_and_what_it_means(section: str) -> None:
    page = site_reference.section(section)
    keys = [key for key in KEYS.values() if key.section == section]
    assert anchors(page) == [key.key for key in keys]
    for key in keys:
        part = page.partition(f"{{#{key.key}}}\n")[2]
        assert part.startswith(f"\n{site_reference.text(key.kind.expected)}; ")
        assert f"`PREFORK_{section.upper()}_{key.key.upper()}`" in page
    for key in keys:
        assert f"({section}.md#{key.key})" in site_reference.configuration()


def test_each_command_has_an_anchor_its_help_and_its_options() -> None:
    page = site_reference.commands()
    context = click.Context(group, info_name="prefork")
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        inner = command.commands if isinstance(command, click.Group) else {"": command}
        for sub, each in inner.items():
            anchor = f"{name}-{sub}" if sub else name
            part = page.partition(f" {{#{anchor}}}\n")[2].partition("\n## ")[0]
            assert (each.help or "").split()[0] in part
            for param in each.params:
                if isinstance(param, click.Option):
                    assert f"`{param.opts[0]}`" in part


@pytest.mark.parametrize(
    ("page", "anchor"), [("events", "worker-died"), ("metrics", "prefork_requests_total")]
)
def test_events_and_metrics_have_anchors(page: str, anchor: str) -> None:
    """Those of the tables in docs/operations.md, which are compared with the code."""
    text = getattr(site_reference, page)()
    chapter = {"events": "The log", "metrics": "Metrics"}[page]
    operations = (ROOT / "docs" / "operations.md").read_text()
    body = operations.partition(f"\n## {chapter}\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| ([^|]+) \|", body, re.MULTILINE)
    names = [name for row in rows for name in re.findall(r"`([^`]+)`", row)]
    assert [name.replace(" ", "-") for name in names] == anchors(text)
    assert anchor in anchors(text)


def test_each_document_is_a_page() -> None:
    sources = set(site.documents())
    found = {str(path.relative_to(ROOT)) for path in (ROOT / "docs").rglob("*.md")}
    assert found <= sources
    assert {"README.md", "CHANGELOG.md", "SECURITY.md", "deploy/README.md"} <= sources


def test_links_lead_to_pages_or_to_the_source() -> None:
    page = site_documents.page("docs/guides/systemd.md", site.documents())
    assert "](django.md)" in page
    assert "](../deploy/files.md)" in page
    source = site_documents.source_url()
    assert f"]({source}/blob/main/deploy/systemd/prefork@.service)" in page
    home = site_documents.page("README.md", site.documents())
    assert "](configuration/file.md)" in home
    assert "## Read it" not in home
    assert "<!--" not in home


def test_keys_lead_to_their_section() -> None:
    block = "```\n`process.user`\n```\n"
    text = f"## `process.user`\n`process.user`, `no.key`, [`process.user`](x)\n{block}"
    there = "[`process.user`](../configuration/process.md#user)"
    assert site_documents.link_keys(text, "guides/x.md") == (
        f"## `process.user`\n{there}, `no.key`, [`process.user`](x)\n{block}"
    )


def test_a_link_that_leads_nowhere_is_an_error() -> None:
    pages = {name: path for name, path in site.documents().items() if name != "docs/tcp.md"}
    with pytest.raises(ValueError, match=r"docs/guides/comparison\.md: nowhere\.md leads nowhere"):
        site_documents._target("nowhere.md", "docs/guides/comparison.md", pages)


def test_what_is_no_markup_is_shown_as_it_is() -> None:
    assert site_reference.text("a*b `c*d` <e> f_g") == "a\\*b `c*d` \\<e\\> f\\_g"


def test_a_summary_is_the_first_sentence() -> None:
    text = "# Title\n\n```console\n$ x\n```\n\nThe [unit](a.md) `x` runs\na server. It is new.\n"
    assert site_documents.summary(text) == "The unit x runs a server."


def test_llms_txt_lists_each_page_with_what_it_is_about() -> None:
    texts = {page: page.markdown() for chapter in site.CHAPTERS for page in chapter.pages}
    lines = list(site._llms(texts))
    assert lines[0] == "# prefork"
    assert lines[2].startswith("> prefork is a pre-fork server")
    for page in texts:
        (line,) = (line for line in lines if f"]({page.path})" in line)
        assert ": " in line, line
