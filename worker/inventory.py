"""What there is to compile, asked of kbuild itself: a dry run of the ordinary build lists every compile it would do.

`make -n` descends into every folder with the real makefiles and the real config, so nothing about them has to be known here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from kernel.errors import Code, FarmError
from kernel.plan import Detached, Inventory, Unit

# The announcement and, in the same recipe, the source: `echo '  CC      a/b.o'; ... -c -o a/b.o /build/src/a/b.c`.
_ANNOUNCED = re.compile(rb"echo '  (?:CC|AS|CXX|RUSTC)(?: \[M\])? +(\S+\.o)'")
# Which folder's makefile compiles it, behind the announcement: `-DKBUILD_MODFILE='"a/b"'` is FOLDER/MODULE, for built-in objects too.
_MODULE = re.compile(rb"-DKBUILD_MODFILE='\"(\S{1,1024}?)/[^/\"\s]+\"'")
# What a folder descends into: its archive, `printf "a/%s " b/built-in.a c.o ... | xargs ar ... a/built-in.a`, and its list of modules,
# `{ cat a/b/modules.order; echo a/d.ko; :; } > a/modules.order`. At the top there is no `a/`.
_ARCHIVE = re.compile(rb"printf \"(?:\./)?(\S{0,1024}?)/?%s \" ([^|\"]+) \| xargs ")
_ORDER = re.compile(rb"\{((?: +(?:cat|echo) [^;\s]+;)+) +:; \} > ([^;\s]*?)/?modules\.order;")
_CAT = re.compile(rb"cat ([^;\s]+)/modules\.order;")

# A kernel with everything has about 30,000 objects, at most 10 folders deep. Makefiles are hostile: they can announce anything.
_MOST_OBJECTS = 200_000
_DEEPEST = 50
_LONGEST = 1024
_LARGEST_SOURCE = 64 << 20


class DryRun:
    """Collects what a dry run announces; feed it line by line. `objects`: each with the folder whose makefile compiles it ("" when the line
    does not say); `entered`: each folder that kbuild enters, with the one that it enters it from, "" for the top.

    Paths that no kernel has are left out. Raises FarmError(BAD_SOURCE) for more objects or folders than any kernel has.
    """

    def __init__(self) -> None:
        self.objects: dict[str, str] = {}
        self.entered: dict[str, str] = {}

    def __call__(self, line: bytes) -> None:
        announced = list(_ANNOUNCED.finditer(line))
        # Up to the next announcement only: a line can have as many as a kernel, and none that names a module.
        ends = [*(match.start() for match in announced[1:]), len(line)]
        for match, end in zip(announced, ends, strict=False):
            path = _text(match[1])
            if _plausible(path):
                module = _MODULE.search(line, match.end(), end)
                self.objects[path] = _text(module[1]) if module else ""
        for match in _ARCHIVE.finditer(line):
            above = _text(match[1])
            words = (f"{above}/{_text(word)}".removeprefix("/") for word in match[2].split())
            self._enter(above, [word.removesuffix("/built-in.a") for word in words if word.endswith("/built-in.a")])
        for match in _ORDER.finditer(line):
            self._enter(_text(match[2]), [_text(folder) for folder in _CAT.findall(match[1])])
        if len(self.objects) > _MOST_OBJECTS or len(self.entered) > _MOST_OBJECTS:
            message = f"its makefiles announce more than {_MOST_OBJECTS} objects or folders"
            raise FarmError(Code.BAD_SOURCE, message, where="inventory")

    def _enter(self, above: str, folders: Iterable[str]) -> None:
        prefix = f"{above}/" if above else ""
        for folder in folders:
            if folder.startswith(prefix) and _plausible(folder):
                self.entered.setdefault(folder, above)


def _text(path: bytes) -> str:
    return path.decode(errors="replace").removeprefix("./")


def _plausible(path: str) -> bool:
    """Whether a path can be one of an output tree: relative, inside, and neither longer nor deeper than a kernel's."""
    if len(path) > _LONGEST or path.startswith("/") or not path.isprintable():
        return False
    parts = path.split("/")
    return len(parts) - 1 <= _DEEPEST and ".." not in parts


def inventory(found: DryRun, tree: Path, link_only: tuple[str, ...] = ()) -> Inventory:
    """Objects with the sizes of their sources, and the folders that can be goals; `link_only` as in Inventory.

    Raises FarmError(INTERNAL) when there is nothing."""
    if not found.objects:
        raise FarmError(Code.INTERNAL, "the dry run announced nothing to compile", where="inventory")
    parents = _parents(found.objects, tree)
    folders = sorted(folder for folder in parents if any(_size(tree, f"{folder}/{name}") for name in ("Kbuild", "Makefile")))
    units = tuple(
        Unit(path=path, size=_source_size(tree, path), made_in=_made_in(path, maker, found.entered))
        for path, maker in sorted(found.objects.items())
    )
    detached = tuple(
        Detached(folder=folder, entered_from=above)
        for folder, above in sorted(found.entered.items())
        if any(between in found.entered for between in _above(folder) if len(between) > len(above))
    )
    return Inventory(units=units, folders=tuple(folders), detached=detached, link_only=link_only)


def _made_in(path: str, maker: str, entered: Mapping[str, str]) -> str:
    """The folder that compiles an object, where kbuild enters a folder below it that the object is in; else "".

    Parts of one module lie in folders without a makefile (fs/xfs/libxfs): those are named as goals like any other."""
    below = any(folder in entered for folder in _above(path) if maker and folder.startswith(f"{maker}/"))
    return maker if below else ""


def _above(path: str) -> Iterator[str]:
    """The folders that a path is in, the top left out."""
    return (path[:at] for at, letter in enumerate(path) if letter == "/")


def _parents(objects: Iterable[str], tree: Path) -> list[str]:
    """Folders of the tree with objects below them. Below a folder that is not there none is looked for: a build may announce many."""
    there: dict[str, bool] = {}
    for path in objects:
        for folder in _above(path):
            if folder not in there:
                there[folder] = (tree / folder).is_dir()
            if not there[folder]:
                break
    return [folder for folder, is_there in there.items() if is_there]


def _source_size(tree: Path, path: str) -> int:
    """0 for an object whose source is generated. Bounded: a file with holes can claim any size, and sizes decide about shards."""
    stem = path.removesuffix(".o")
    return min(next((size for suffix in (".c", ".S") if (size := _size(tree, stem + suffix))), 0), _LARGEST_SOURCE)


def _size(tree: Path, path: str) -> int:
    try:
        info = os.lstat(tree / path)
    except OSError:
        return 0
    return info.st_size if stat.S_ISREG(info.st_mode) else 0
