"""A page's sessions (```console) as steps that can be run: each command, what the page shows of its output, and its exit code."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.docs.pages import Page

_BUILD = r"\d{8}-\d{6}-[0-9a-f]{6}"
_ESCAPE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
# In what a page shows: the id of a build, any text, an age, a number or version, space between words.
_PARTS = re.compile(rf"(?P<build>{_BUILD})|(?P<any>\.\.\.)|(?P<age>\b\d+[smhd]\b)|(?P<number>\d+(?:\.\d+)*)|(?P<space>[ \t]+)")
ASK_CODE = "echo $?"


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """`shown`: lines of output, of which `...` stands for any number of lines, or for the rest of a line."""

    command: str
    shown: tuple[str, ...]
    code: int
    line: int


def steps(page: Page) -> list[Step]:
    """All commands, in order. A command ends with 0, unless the page asks for its exit code next (`echo $?`) and shows another."""
    found: list[Step] = []
    for block in page.blocks:
        if block.language != "console":
            continue
        for command, shown, line in _commands(block.text.rstrip("\n").split("\n"), block.line):
            if command != ASK_CODE:
                found.append(Step(command=command, shown=shown, code=0, line=line))
                continue
            last = found.pop()
            found.append(Step(command=last.command, shown=last.shown, code=int(shown[0]), line=last.line))
    return found


def _commands(lines: Sequence[str], first: int) -> Iterator[tuple[str, tuple[str, ...], int]]:
    starts = [index for index, line in enumerate(lines) if line.startswith("$ ")]
    assert starts and starts[0] == 0, f"line {first}: a session begins with a command"
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        yield lines[start][2:], tuple(lines[start + 1 : end]), first + start


def substituted(text: str, words: Mapping[str, str]) -> str:
    """The text with some words replaced, longest first."""
    for word in sorted(words, key=len, reverse=True):
        text = text.replace(word, words[word])
    return text


def compare(step: Step, output: str, ids: dict[str, str]) -> str:
    """ "" when a command has said what the page shows: its lines in their order, with other numbers and any space between words; else the
    first line that is not there. Ids of builds that the page shows become keys of `ids`, with the real ones as values."""
    lines = [line for raw in _ESCAPE.sub("", output).replace("\r", "\n").split("\n") if (line := raw.strip())]
    at, anywhere = 0, False
    for shown in (line.strip() for line in step.shown):
        if shown == "...":
            anywhere = True
            continue
        if not shown:
            continue
        pattern = _pattern(shown, ids)
        here = next((index for index in range(at, len(lines)) if pattern.fullmatch(lines[index])), None)
        if here is None or (here > at and not anywhere):
            return f"{shown!r} is not what comes next in:\n" + "\n".join(lines[at:])
        for name, real in _ids(shown, lines[here], pattern):
            ids[name] = real
        at, anywhere = here + 1, False
    return "" if anywhere or at == len(lines) else "the page does not show:\n" + "\n".join(lines[at:])


def _pattern(shown: str, ids: Mapping[str, str]) -> re.Pattern[str]:
    parts: list[str] = []
    at = 0
    for match in _PARTS.finditer(shown):
        parts.append(re.escape(shown[at : match.start()]))
        match match.lastgroup:
            case "build":
                parts.append(f"({re.escape(ids[match[0]]) if match[0] in ids else _BUILD})")
            case "any":
                parts.append(".*")
            case "age":
                parts.append(r"\d+[smhd]")
            case "number":
                parts.append(r"\d+(?:\.\d+)*")
            case _:
                parts.append(r"\s+")
        at = match.end()
    parts.append(re.escape(shown[at:]))
    return re.compile("".join(parts))


def _ids(shown: str, line: str, pattern: re.Pattern[str]) -> list[tuple[str, str]]:
    found = pattern.fullmatch(line)
    return list(zip(re.findall(_BUILD, shown), found.groups() if found else (), strict=True))
