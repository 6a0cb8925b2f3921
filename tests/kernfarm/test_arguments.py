"""The command line's words: what is wrong is said with the usage of the verb that it concerns."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernfarm.cli import arguments


@pytest.mark.parametrize(
    ("words", "usage", "says"),
    [
        ("logs X extra", "usage: kernfarm logs ", "kernfarm logs: error: unrecognized arguments: extra"),
        ("list --limt 3", "usage: kernfarm list ", "kernfarm list: error: unrecognized arguments: --limt 3"),
        ("token new --team a --role admin b", "usage: kernfarm token new ", "kernfarm token new: error: unrecognized arguments: b"),
        ("--quick list", "usage: kernfarm [-h] [--debug] VERB", "kernfarm: error: unrecognized arguments: --quick"),
    ],
)
def test_what_is_not_known_is_refused_with_the_usage_that_helps(
    words: str, usage: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        arguments.parser(Path("state")).parse_args(words.split())
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.startswith(usage) and said.endswith(f"{says}\n")
