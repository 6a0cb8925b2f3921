"""Patch files as `git format-patch` and `diff -u` write them: which files they touch, and where their hunks are.

Read by the rules of `git apply` (git's apply.c): what counts as a header depends on where it stands, since hunks and messages may
hold lines that look like one. Where git would refuse, or read a name in more than one way, the patch is refused here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from kernel.errors import Code, FarmError

_GIT = "diff --git "
_HUNK = re.compile(r"@@ -([0-9]{1,9})(?:,([0-9]{1,9}))? \+([0-9]{1,9})(?:,([0-9]{1,9}))? @@")
_MOVE = re.compile(r"(?:(?:rename|copy) (?:from|to)|rename (?:old|new)) (.*)", re.DOTALL)
_NEW, _GONE = "new file mode ", "deleted file mode "
_EXTENDED = (_NEW, _GONE, "old mode ", "new mode ", "similarity index ", "dissimilarity index ", "index ")
_DATE = re.compile(r"(.+?)[ \t]+(?:[0-9]{2}|[0-9]{4})-[0-9]{2}-[0-9]{2}[ \t]+[0-9]{2}:[0-9]{2}[0-9:.]*(?:[ \t]*[-+][0-9:]+)?\r?")
_DEV_NULL = re.compile(r"/dev/null(?:[ \t\r].*)?", re.DOTALL)
_BINARY = re.compile(r"(?:Binary files|Files) \S*/\S* and \S*/\S* differ\r?")
# Two paths as long as Linux takes them, and the words around.
_LONGEST_HEADER = 2 * 4096 + 100
_MOST_BLANKS = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """`touched`: paths in the tree that the patch reads or writes, without the a/ and b/ prefixes, in order of appearance."""

    name: str
    touched: tuple[str, ...]


@dataclass(slots=True)
class _File:
    """One file of a patch: every name that git could take from its headers, and where its hunks start in the old file."""

    paths: list[str] = field(default_factory=list)
    hunks: list[int] = field(default_factory=list)


def parse(text: str, name: str) -> Patch:
    """Raises FarmError(BAD_PATCH) for a patch that touches nothing, is binary or damaged, or names a path outside the tree."""
    touched = dict.fromkeys(path for file in _Reader(text, name).files() for path in file.paths)
    if not touched:
        raise FarmError(Code.BAD_PATCH, "this is no patch: it touches no file", where=name, hint="`git format-patch` makes the right form")
    return Patch(name=name, touched=tuple(touched))


def hunk_at(text: str, path: str, line: int) -> int:
    """The number (from 1) of the hunk of `path` that starts at `line` of the old file; 0 when there is none.

    Raises FarmError(BAD_PATCH) where parse does."""
    return next(
        (file.hunks.index(line) + 1 for file in _Reader(text, "").files() if path in file.paths and line in file.hunks),
        0,
    )


class _Reader:
    def __init__(self, text: str, name: str) -> None:
        # As git: only a line feed ends a line; splitlines would also split at form feeds and the like.
        self._lines = text.split("\n")
        self._name = name
        self._at = 0
        self._in_mail = False

    def files(self) -> Iterator[_File]:
        while self._at < len(self._lines):
            line = self._line()
            if line.startswith(_GIT):
                yield self._git_file()
            elif line.startswith("--- ") and self._line(1).startswith("+++ ") and self._line(2).startswith("@@ -"):
                yield self._plain_file()
            else:
                self._between(line)
                self._at += 1

    def _line(self, ahead: int = 0) -> str:
        at = self._at + ahead
        return self._lines[at] if at < len(self._lines) else ""

    def _between(self, line: str) -> None:
        """A line outside of files: most often of a message, which may say anything."""
        if line.startswith(("From ", "From: ", "Subject: ", "commit ")):
            self._in_mail = True
        elif _HUNK.match(line):
            raise self._bad("a hunk without a file it belongs to")
        elif not self._in_mail and len(line) < _LONGEST_HEADER and _BINARY.fullmatch(line):
            # `diff -r` writes it between files, and git would leave the file as it is without a word.
            raise self._bad("binary patches are not supported")

    def _git_file(self) -> _File:
        start = self._at
        self._at += 1
        file = _File()
        self._in_mail = False
        null = set[str]()  # which sides are no file
        while True:
            line = self._line()
            if move := _MOVE.fullmatch(line):
                self._add(file, move[1].partition("\r")[0])
            elif line.startswith(("--- ", "+++ ")):
                # /dev/null is a name like any other, unless the headers before say that the file is new or gone.
                if line[0] not in null or not _DEV_NULL.fullmatch(line[4:]):
                    self._add_side(file, line[4:])
            elif line.startswith(_EXTENDED):
                null |= {"-"} if line.startswith(_NEW) else {"+"} if line.startswith(_GONE) else set()
            else:
                break
            self._at += 1
        if line.rstrip("\r") == "GIT binary patch" or (line.startswith(("Binary files ", "Files ")) and line.endswith(" differ")):
            raise self._bad("binary patches are not supported")
        if self._at == start + 1:
            # git goes on to the next header then, but keeps the name from here for it.
            raise self._bad("a `diff --git` line without the header lines of a file after it")
        if not file.paths:  # a mode that changes, or an empty file that comes or goes
            for path in self._same_names(start):
                self._add(file, path)
        if not file.paths:
            raise self._bad("its headers name no file")
        self._hunks(file)
        return file

    def _plain_file(self) -> _File:
        file = _File()
        self._in_mail = False
        for _ in range(2):
            side = self._line()[4:]
            if not _DEV_NULL.fullmatch(side):
                self._add_side(file, side)
                if dated := _DATE.fullmatch(side):
                    self._add(file, _stripped(dated[1]))
            self._at += 1
        if not file.paths:
            raise self._bad("its headers name no file")
        self._hunks(file)
        return file

    def _same_names(self, at: int) -> list[str]:
        """What `diff --git a/NAME b/NAME` can mean, when the name may hold blanks."""
        both = self._lines[at].removeprefix(_GIT).rstrip("\r")
        if len(both) > _LONGEST_HEADER or '"' in both or "\0" in both:
            raise self._bad("file names that need quotes or are too long are not supported")
        cuts = [index for index, character in enumerate(both) if character in " \t"]
        if len(cuts) > _MOST_BLANKS:
            raise self._bad("file names with that many blanks are not supported")
        pairs = ((_stripped(both[:cut]), _stripped(both[cut + 1 :])) for cut in cuts)
        return [one for one, other in pairs if one and one == other]

    def _add_side(self, file: _File, side: str) -> None:
        if side.startswith('"') or len(side) > _LONGEST_HEADER:
            raise self._bad("file names that need quotes or are too long are not supported")
        if path := _stripped(re.split(r"[\t\r]", side, maxsplit=1)[0]):
            self._add(file, path)

    def _add(self, file: _File, path: str) -> None:
        if path.startswith('"') or len(path) > _LONGEST_HEADER:
            raise self._bad("file names that need quotes or are too long are not supported")
        parts = path.split("/")
        if {"", ".", "..", ".git"} & set(parts) or not path.isprintable():
            raise self._bad(f"the path {path[:200]!r} leads out of the tree")
        if path not in file.paths:
            file.paths.append(path)

    def _hunks(self, file: _File) -> None:
        while self._line().startswith("@@ -"):
            head = _HUNK.match(self._line())
            if head is None:
                raise self._bad("damaged: no head of a hunk")
            file.hunks.append(int(head[1]))
            self._at += 1
            self._body(old=int(head[2] or 1), new=int(head[4] or 1))

    def _body(self, *, old: int, new: int) -> None:
        """As many lines as the hunk's head says, whatever they look like."""
        while old > 0 or new > 0:
            # The text's last piece is what follows the last line feed: nothing, of a whole patch.
            kind = self._line()[:1] if self._at < len(self._lines) - 1 else "end"
            if kind not in ("", " ", "-", "+", "\\"):
                raise self._bad("damaged: a hunk has fewer lines than its head says")
            old -= kind in ("", " ", "-")
            new -= kind in ("", " ", "+")
            self._at += 1
        if old or new:
            raise self._bad("damaged: a hunk has more lines than its head says")
        if self._line().startswith("\\ "):
            self._at += 1

    def _bad(self, why: str) -> FarmError:
        return FarmError(Code.BAD_PATCH, why, where=f"{self._name}:{min(self._at, len(self._lines) - 1) + 1}")


def _stripped(side: str) -> str:
    """Without the first folder, as `git apply -p1` takes names; empty when there is none."""
    return side.partition("/")[2]
