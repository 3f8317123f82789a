"""`make docs`: the documentation site in build/site/html, with llms.txt.

The pages are the documents of the repository and what tools/site_reference.py makes from the code.
They are written as Markdown to build/site/pages; zensical makes HTML of them, and fails for a link
that leads nowhere.
"""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from msgspec import Struct

from prefork import __version__
from prefork.config.schema import SECTIONS
from tools import site_documents, site_reference
from tools.site_documents import ROOT, pictures, source_url, summary

BUILD = ROOT / "build" / "site"
PAGES = BUILD / "pages"
HTML = BUILD / "html"


class Page(Struct, frozen=True):
    """A page: its title in the menu, its path in the site, and what it is made of.

    That is the path of a document in the repository, or a function that makes the Markdown.
    """

    title: str
    path: str
    source: str | Callable[[], str]

    def markdown(self) -> str:
        if isinstance(self.source, str):
            markdown = site_documents.page(self.source, documents())
        else:
            markdown = self.source()
        return site_documents.link_keys(markdown, self.path)


class Chapter(Struct, frozen=True):
    """An entry of the menu with several pages."""

    title: str
    pages: tuple[Page, ...]


def _guide(title: str, name: str) -> Page:
    return Page(title, f"guides/{name}.md", f"docs/guides/{name}.md")


def _document(title: str, name: str) -> Page:
    return Page(title, f"{name}.md", f"docs/{name}.md")


CHAPTERS = (
    Chapter("Start", (Page("prefork", "index.md", "README.md"),)),
    Chapter(
        "Guides",
        (
            _guide("Django", "django"),
            _guide("Flask", "flask"),
            _guide("Pyramid", "pyramid"),
            _guide("FastAPI", "fastapi"),
            _guide("systemd", "systemd"),
            _guide("Behind a proxy", "proxies"),
            _guide("Containers", "containers"),
            Page("Files for deploying", "deploy/files.md", "deploy/README.md"),
            Page("Many machines", "deploy/rolling.md", "deploy/rolling.md"),
            _document("ASGI", "asgi"),
            _document("TCP handlers", "tcp"),
            _document("WebSocket", "websocket"),
            _document("Coming from another server", "coming-from"),
            _guide("Which server?", "comparison"),
        ),
    ),
    Chapter(
        "Configuration",
        (
            Page("The file", "configuration/file.md", site_reference.configuration),
            *(
                Page(
                    f"[{section}]",
                    f"configuration/{section}.md",
                    partial(site_reference.section, section),
                )
                for section in SECTIONS
            ),
        ),
    ),
    Chapter(
        "Operating",
        (
            _document("From symptoms to causes", "operations"),
            Page("Commands", "commands.md", site_reference.commands),
            Page("Events of the log", "events.md", site_reference.events),
            Page("Metrics", "metrics.md", site_reference.metrics),
            _document("Performance", "performance"),
            _document("All figures", "performance/figures"),
            _document("Hardening", "security"),
            _document("Versions", "versions"),
            Page("Changelog", "changelog.md", "CHANGELOG.md"),
            Page("Security policy", "security-policy.md", "SECURITY.md"),
        ),
    ),
    Chapter(
        "How it works",
        (
            _document("Architecture", "architecture"),
            _document("From socket() to packets", "sockets"),
            _document("HTTP, rule by rule", "http"),
            _document("Why it is fast", "performance-design"),
            _document("Free-threaded CPython", "free-threading"),
            Page("Decisions", "decisions/records.md", "docs/decisions/README.md"),
            *(
                Page(title, f"decisions/{name}.md", f"docs/decisions/{name}.md")
                for title, name in (
                    ("Accepting and waiting", "accepting"),
                    ("Supervision", "supervision"),
                    ("Start and imports", "start"),
                    ("HTTP", "http"),
                    ("TLS and rights", "rights"),
                    ("Observing", "observing"),
                    ("Performance", "performance"),
                )
            ),
            _document("Glossary", "glossary"),
            Page("Contributing", "contributing.md", "CONTRIBUTING.md"),
        ),
    ),
)


def documents() -> dict[str, str]:
    """The path in the site of each document, by its path in the repository."""
    return {"conf/prefork.toml": "configuration/file.md"} | {
        page.source: page.path
        for chapter in CHAPTERS
        for page in chapter.pages
        if isinstance(page.source, str)
    }


def write_pages() -> None:
    """Writes all pages anew, with their pictures and llms.txt, to build/site/pages."""
    shutil.rmtree(PAGES, ignore_errors=True)
    texts = {page: page.markdown() for chapter in CHAPTERS for page in chapter.pages}
    for page, markdown in texts.items():
        _write(page.path, markdown)
        if isinstance(page.source, str):
            for picture in pictures(page.source):
                # Beside the pages, where the document has it beside itself.
                to = PAGES / picture.removeprefix("docs/")
                to.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(ROOT / picture, to)
    _write("llms.txt", "\n".join(_llms(texts)))


def _write(path: str, markdown: str) -> None:
    to = PAGES / path
    to.parent.mkdir(parents=True, exist_ok=True)
    to.write_text(markdown, encoding="utf-8")


def _llms(texts: dict[Page, str]) -> Iterator[str]:
    """llms.txt (https://llmstxt.org): the pages as Markdown, each with what it is about."""
    first = CHAPTERS[0].pages[0]
    yield from ("# prefork", "", f"> {summary(texts[first])}", "")
    yield f"This is of prefork {__version__}. Each page is also there as Markdown."
    for chapter in CHAPTERS:
        yield from ("", f"## {chapter.title}", "")
        for page in chapter.pages:
            what = summary(texts[page])
            yield f"- [{page.title}]({page.path})" + (f": {what}" if what else "")
    yield ""


def settings() -> dict[str, object]:
    """What zensical is told in addition to mkdocs.yml."""
    return {
        "INHERIT": "../../mkdocs.yml",
        "docs_dir": PAGES.name,
        "site_dir": HTML.name,
        "repo_url": source_url(),
        "nav": [
            {chapter.title: [{page.title: page.path} for page in chapter.pages]}
            for chapter in CHAPTERS
        ],
    }


def main() -> None:
    """Exits with 1 and the places of all links that lead nowhere, if there are any."""
    write_pages()
    # JSON is a part of YAML.
    configuration = BUILD / "mkdocs.yml"
    configuration.write_text(json.dumps(settings(), indent=1), encoding="utf-8")
    program = Path(sys.executable).with_name("zensical")
    command = (program, "build", "--strict", "--clean", "--config-file", configuration)
    done = subprocess.run(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode != 0:
        sys.exit(f"{done.stdout.partition('Traceback (most recent call last)')[0]}no site")
    for page in (page for chapter in CHAPTERS for page in chapter.pages):
        shutil.copyfile(PAGES / page.path, HTML / page.path)
    print(f"{HTML / 'index.html'}")


if __name__ == "__main__":
    main()
