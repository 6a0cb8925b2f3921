"""Commands and flags that the documentation names exist."""

from __future__ import annotations

import contextlib
import importlib.util
import io
import re

import pytest

from tests.docs.pages import ROOT, Page, commands, pages
from tools.reference import cli

PAGES = pages()
PARSER = cli.parser()
VERBS = {words: verb for words, verb, _ in cli.verbs(PARSER)}
FLAGS = frozenset().union(*(cli.options(verb) for verb in VERBS.values()), cli.options(PARSER))
# Of other programs that the pages speak of.
OTHERS = frozenset({"--check", "--config"})


def refused(words: list[str]) -> str:
    """What the parser says against a command; "" when it takes it."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            PARSER.parse_args([word for word in words if word != "..."])
    except SystemExit:
        return said.getvalue().strip().rpartition("\n")[2]
    return ""


def unknown(words: list[str]) -> str:
    """What in a mention of a command does not exist: its verb, or a flag."""
    name = next((name for name in (" ".join(words[:2]), words[0]) if name in VERBS), "")
    if not name:
        return "" if words[0] == "token" or words[0].isupper() else words[0]
    flags = [word.partition("=")[0].rstrip(",.;:") for word in words if re.match(r"--?[a-z]", word)]
    return ", ".join(flag for flag in flags if flag not in cli.options(VERBS[name]))


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_in_blocks_are_taken_by_the_parser(page: Page) -> None:
    for block in page.blocks:
        if block.language not in ("sh", "console"):
            continue
        for words in commands(block):
            where = f"{page}:{block.line}: {' '.join(words)}"
            if words[0] == "kernfarm":
                assert not refused(words[1:]), f"{where}: {refused(words[1:])}"
                assert not unknown(words[1:]), f"{where}: there is no {unknown(words[1:])}"  # the parser takes abbreviations
            elif words[:2] == ["python", "-m"]:
                assert importlib.util.find_spec(words[2]) is not None, where
            elif words[0] == "make":
                goals = re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
                assert [word for word in words[1:] if "=" not in word and word not in goals] == [], where


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_and_flags_in_prose_exist(page: Page) -> None:
    for span in page.spans:
        words = span.split()
        if words[0] == "kernfarm" and len(words) > 1:
            assert not unknown(words[1:]), f"{page}: `{span}`: there is no {unknown(words[1:])}"
        elif re.match(r"--[a-z]", span):
            flags = [word for word in words if word.startswith("--")]
            assert [flag for flag in flags if flag not in FLAGS | OTHERS] == [], f"{page}: `{span}`"


@pytest.mark.parametrize("page", PAGES, ids=str)
def test_commands_stand_where_they_are_checked(page: Page) -> None:
    assert re.search(r"^(    |\t)+(\$ )?kernfarm ", page.prose, re.MULTILINE) is None, f"{page}: put commands into ```sh or ```console"
    for block in page.blocks:
        if block.language in ("sh", "console", "yaml"):
            continue
        assert "kernfarm " not in block.text or page.path.parent.name == "reference", f"{page}:{block.line}: a block of which language?"


def test_what_does_not_exist_is_found() -> None:
    assert refused(["build", "--sauce", "debian:6.1"])
    assert unknown(["build", "--sourc", "debian:6.1"]) == "--sourc"
    assert refused(["workers", "--farm"])
    assert refused(["--farm", "x", "workers"])
    assert unknown(["bild", "--source", "x"]) == "bild"
    assert unknown(["boot", "BUILD", "--chek"]) == "--chek"
    assert not unknown(["token", "new", "--team", "x"])
