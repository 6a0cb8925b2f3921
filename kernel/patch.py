"""Patch files as `git format-patch` and `diff -u` write them: which files they touch, and where their hunks are."""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel.errors import Code, FarmError

_GIT = re.compile(r'^diff --git (?:"?a/)(.+?)"? "?b/(.+?)"?$')
_SIDE = re.compile(r"^(?:---|\+\+\+) (.+?)(?:\t.*)?$")
_HUNK = re.compile(r"^@@ -(\d+)(?:,\d+)? \+\d+(?:,\d+)? @@")
_RENAME = re.compile(r"^(?:rename|copy) (?:from|to) (.+)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Patch:
    """`touched`: paths in the tree that the patch reads or writes, without the a/ and b/ prefixes, in order of appearance."""

    name: str
    touched: tuple[str, ...]


def parse(text: str, name: str) -> Patch:
    """Raises FarmError(BAD_PATCH) for a patch that touches nothing, is binary, or names a path outside the tree."""
    touched: dict[str, None] = {}
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{name}:{number}"
        if line == "GIT binary patch" or line.startswith("Binary files "):
            raise FarmError(Code.BAD_PATCH, "binary patches are not supported", where=where)
        if match := _GIT.match(line):
            for path in match.groups():
                touched[_inside(path, where)] = None
        elif match := _RENAME.match(line):
            touched[_inside(match[1], where)] = None
        elif (match := _SIDE.match(line)) and match[1] != "/dev/null":
            prefix, slash, path = match[1].partition("/")
            if slash and not prefix.startswith("-"):
                touched[_inside(path, where)] = None
    if not touched:
        raise FarmError(Code.BAD_PATCH, "this is no patch: it touches no file", where=name, hint="`git format-patch` makes the right form")
    return Patch(name=name, touched=tuple(touched))


def hunk_at(text: str, path: str, line: int) -> int:
    """The number (from 1) of the hunk of `path` that starts at `line` of the old file; 0 when there is none."""
    current, number = "", 0
    for each in text.splitlines():
        match = _SIDE.match(each)
        if match is not None:
            current, number = match[1].partition("/")[2], 0
        elif (match := _HUNK.match(each)) and current == path:
            number += 1
            if int(match[1]) == line:
                return number
    return 0


def _inside(path: str, where: str) -> str:
    parts = path.split("/")
    if path.startswith("/") or ".." in parts or "" in parts or ".git" in parts or "\0" in path:
        raise FarmError(Code.BAD_PATCH, f"the path {path!r} leads out of the tree", where=where)
    return path
