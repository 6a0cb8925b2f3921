from __future__ import annotations

from pathlib import Path

import pytest

from tests.docs.pages import Page
from tests.docs.session import Step, compare, steps, substituted


def step(*shown: str) -> Step:
    return Step(command="x", shown=shown, code=0, line=1)


def test_commands_output_and_exit_codes_are_read(tmp_path: Path) -> None:
    path = tmp_path / "a.md"
    path.write_text("# A\n\n```console\n$ one\nsaid\n$ two --x\n$ echo $?\n2\n```\n\n```sh\nthree\n```\n")
    found = steps(Page(path))
    assert [(each.command, each.shown, each.code, each.line) for each in found] == [("one", ("said",), 0, 4), ("two --x", (), 2, 6)]


def test_numbers_space_and_colours_may_differ_and_ids_are_remembered() -> None:
    ids: dict[str, str] = {}
    shown = step("build    20260101-000000-aaaaaa took 1.5 s  16m", "...", "kernel sha256:...")
    said = "\x1b[1mbuild\x1b[0m\t20261124-200452-d38b42 took 33 s\t11s\r\nnoise\nmore\nkernel   sha256:0123\n"
    assert not compare(shown, said, ids)
    assert ids == {"20260101-000000-aaaaaa": "20261124-200452-d38b42"}
    assert compare(step("20260101-000000-aaaaaa"), "20261124-200453-ffffff\n", ids), "another build than the page's"


@pytest.mark.parametrize(
    ("shown", "said"),
    [
        (("a", "b"), "b\na\n"),
        (("a",), "a\nb\n"),
        (("b",), "a\nb\n"),
        (("a", "...", "c"), "a\nb\n"),
        (("release 6.1.192-linuxkit",), "release 6.1.192-other\n"),
        (("a",), ""),
        ((), "a\n"),
    ],
)
def test_what_differs_is_said(shown: tuple[str, ...], said: str) -> None:
    assert compare(step(*shown), said, {})


def test_longer_words_are_replaced_first() -> None:
    assert substituted("kernfarm up --x", {"kernfarm": "k", "kernfarm up": "u"}) == "u --x"
