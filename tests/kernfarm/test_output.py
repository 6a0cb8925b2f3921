from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Code, Problem
from kernfarm.cli.output import Output, visible


@given(st.text())
def test_no_control_character_reaches_a_terminal(text: str) -> None:
    assert all(letter in "\t\n" or letter.isprintable() for letter in visible(text))


@given(st.text(st.characters(categories=["L", "N", "P", "S"])))
def test_ordinary_text_stays_as_it_is(text: str) -> None:
    assert visible(text) == text


def test_escape_sequences_are_shown() -> None:
    assert visible("a\x1b]0;owned\x07b\r") == "a\\x1b]0;owned\\x07b\\r"


def test_problems_go_to_stderr_with_place_and_mend(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json_mode=False).problem(Problem(code=Code.BAD_PATCH, message="no [red]\x1b[0m", where="0001.patch", hint="rebase"))
    out, err = capsys.readouterr()
    assert out == ""
    assert err == "error: 0001.patch: no [red]\\x1b[0m\nhint: rebase\n"


def test_without_a_terminal_tables_are_lines_that_scripts_can_cut(capsys: pytest.CaptureFixture[str]) -> None:
    Output(json_mode=False).table(("a", "b"), [("1", "x y"), ("2", "\x1b[2J")])
    assert capsys.readouterr().out == "1\tx y\n2\t\\x1b[2J\n"


def test_json_is_all_of_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    out = Output(json_mode=True)
    out.data({"b": 1, "a": "\x1b"})
    out.say("talk")
    captured = capsys.readouterr()
    assert json.loads(captured.out) == {"a": "\x1b", "b": 1}
    assert captured.err == "talk\n"
