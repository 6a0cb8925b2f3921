"""Links of the documentation lead somewhere, and every page can be found. Nothing outside of the project is asked."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page, pages, slug

PAGES = {page.path: page for page in pages()}
INDEX = ROOT / "docs/index.md"
# Where comments may name a page. The chart's and the images' files are looked after by their own tests.
CODE = ("kernel", "kernfarm", "coordinator", "worker", "proto", "tools", "tests", "bench", "demo", "helm", "deploy", "docker")


def targets(page: Page) -> list[tuple[str, Path, str]]:
    """(link, file, anchor) of the links to files of the project."""
    found = []
    for link in page.links:
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        found.append((link, (page.path.parent / name).resolve() if name else page.path, anchor))
    return found


@pytest.mark.parametrize("page", PAGES.values(), ids=str)
def test_links_and_anchors_are_there(page: Page) -> None:
    for link, path, anchor in targets(page):
        assert path.is_relative_to(ROOT), f"{page}: {link} leads out of the project"
        assert path.exists(), f"{page}: {link} leads nowhere"
        if anchor:
            assert path in PAGES, f"{page}: {link} has an anchor, and is no page"
            assert anchor in PAGES[path].anchors, f"{page}: {link}: that page has no such heading"


def test_every_page_is_on_the_map() -> None:
    """In one step: a page that only other pages lead to is found by chance."""
    docs = {path for path in PAGES if path.is_relative_to(ROOT / "docs")}
    assert docs - {INDEX} - {path for _, path, _ in targets(PAGES[INDEX])} == set()


def test_the_readme_leads_to_the_index() -> None:
    assert INDEX in [path for _, path, _ in targets(PAGES[ROOT / "README.md"])]


def test_pages_that_pages_and_code_name_are_there() -> None:
    named = re.compile(r"\bdocs/[\w./-]+\.md")
    for page in PAGES.values():
        for name in named.findall(page.text):
            assert (ROOT / name).is_file(), f"{page} names {name}"
    for folder in CODE:
        for path in (ROOT / folder).rglob("*"):
            if path.suffix in {".py", ".proto", ".toml", ".mk", ".sh", ".yaml", ""} and path.is_file() and "linux" not in path.parts:
                for name in named.findall(path.read_text(encoding="utf-8", errors="ignore")):
                    assert (ROOT / name).is_file(), f"{path.relative_to(ROOT)} names {name}"


def test_slugs_are_those_of_github() -> None:
    assert slug("What `kernfarm.yaml` is, and isn't") == "what-kernfarmyaml-is-and-isnt"
    assert slug("[ADR 1](adr/1.md): a-b  c") == "adr-1-a-b--c"
