"""Generated pages: complete, the same for everybody, and compared with what is there."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path

import pytest

from kernel.errors import Code
from kernfarm import rpc
from tools.reference import __main__ as program
from tools.reference import api, cli, errors


def test_every_verb_and_flag_says_what_it_does() -> None:
    for words, verb, says in cli.verbs(cli.parser()):
        assert says, words
        for action in verb._actions:
            assert action.help, f"kernfarm {words} {'/'.join(action.option_strings) or action.dest}"


def test_the_command_line_is_the_same_for_everybody(monkeypatch: pytest.MonkeyPatch) -> None:
    page = cli.page()
    monkeypatch.setenv("ORG", "acme")
    monkeypatch.setenv("XDG_STATE_HOME", "/elsewhere")
    monkeypatch.setenv("COLUMNS", "20")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert cli.page() == page
    assert "kernfarm token new" in page


def test_each_method_has_its_role_and_each_code_its_row() -> None:
    page = api.page()
    for name, policy in rpc.POLICIES.items():
        assert re.search(rf"^\| `{name}` \| {policy} \| .* \| .* \|", page, re.MULTILINE), name
    rows = errors.page()
    assert [code for code in Code if f"| `{code}` |" not in rows] == []


def test_links_within_the_pages_lead_somewhere_also_for_nested_settings() -> None:
    from tests.docs.pages import slug

    page = program.PAGES["settings.md"]()
    anchors = {slug(line.lstrip("# ")) for line in page.splitlines() if line.startswith("#")}
    links = set(re.findall(r"\(#([\w-]+)\)", page))
    assert {"accesstls", "accessoidc"} <= links <= anchors


def test_check_fails_when_a_page_differs_or_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(program, "HOME", tmp_path)
    monkeypatch.setattr(program, "PAGES", {"a.md": lambda: "one\n", "b.md": lambda: "two\n"})
    monkeypatch.setattr(sys, "argv", ["reference"])
    program.main()
    monkeypatch.setattr(sys, "argv", ["reference", "--check"])
    program.main()
    (tmp_path / "a.md").write_text("other\n")
    (tmp_path / "b.md").unlink()
    with pytest.raises(SystemExit, match=r"a\.md, b\.md; run `make reference`"):
        program.main()
