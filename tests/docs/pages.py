"""Markdown pages as far as tests need them: links, headings' anchors as GitHub makes them, blocks of code, code within lines."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
_FENCE = re.compile(r"^```(\w*)\s*$")
_SPAN = re.compile(r"(`+)(.+?)\1", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} +(.+?)\s*$", re.MULTILINE)
_HEREDOC = re.compile(r"<<-?'?(\w+)'?")
_SEPARATORS = frozenset(";|&()<>")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A fenced block: its language ("" for none), its text, and the number of its first line."""

    language: str
    text: str
    line: int


class Page:
    """One file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.text = path.read_text(encoding="utf-8")

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT))

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        return tuple(self._split()[0])

    @cached_property
    def prose(self) -> str:
        """Everything outside of blocks, with the lines where they were."""
        return self._split()[1]

    def _split(self) -> tuple[list[Block], str]:
        blocks: list[Block] = []
        prose: list[str] = []
        inside: list[str] | None = None
        language, start = "", 0
        for number, line in enumerate(self.text.split("\n"), 1):
            fence = _FENCE.match(line)
            if inside is None and fence is not None:
                inside, language, start = [], fence[1], number + 1
            elif inside is not None and line.startswith("```"):
                blocks.append(Block(language=language, text="".join(f"{each}\n" for each in inside), line=start))
                inside = None
            elif inside is not None:
                inside.append(line)
            prose.append("" if inside is not None or line.startswith("```") else line)
        assert inside is None, f"{self}:{start}: this block does not end"
        return blocks, "\n".join(prose)

    @property
    def spans(self) -> list[str]:
        """Code within lines."""
        return [" ".join(match[2].split()) for match in _SPAN.finditer(self.prose)]

    @property
    def links(self) -> list[str]:
        """Targets of links, code left out."""
        return _LINK.findall(_SPAN.sub("code", self.prose))

    @cached_property
    def anchors(self) -> frozenset[str]:
        """What can stand behind `#` in a link to this page."""
        found: dict[str, int] = {}
        names: set[str] = set()
        for heading in _HEADING.findall(self.prose):
            name = slug(heading)
            names.add(f"{name}-{found[name]}" if name in found else name)
            found[name] = found.get(name, 0) + 1
        return frozenset(names)


def slug(heading: str) -> str:
    """The anchor that GitHub gives a heading."""
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def pages() -> list[Page]:
    """Every page of the project, sorted."""
    found = [
        path for path in ROOT.rglob("*.md") if not any(part.startswith((".", "node_modules")) for part in path.relative_to(ROOT).parts)
    ]
    return [Page(path) for path in sorted(found)]


def commands(block: Block) -> Iterator[list[str]]:
    """The simple commands of a block of shell or of a session, as words; bodies of here-documents and what programs say left out."""
    lines = iter(block.text.split("\n"))
    for line in lines:
        if block.language == "console":
            if not line.startswith("$ "):
                continue
            line = line[2:]
        while line.endswith("\\"):
            line = line[:-1] + next(lines)
        if heredoc := _HEREDOC.search(line):
            while next(lines) != heredoc[1]:
                pass
        yield from _simple(line)


def _simple(line: str) -> Iterator[list[str]]:
    lexer = shlex.shlex(line, posix=True, punctuation_chars="".join(sorted(_SEPARATORS)))
    lexer.whitespace_split = True
    words: list[str] = []
    for word in lexer:
        if set(word) <= _SEPARATORS:
            if words:
                yield words
            words = []
        elif not (not words and re.fullmatch(r"\w+=.*|\$|\w+=\$", word)):
            words.append(word)
    if words:
        yield words
