"""What there is to compile, asked of kbuild itself: a dry run of the ordinary build lists every compile it would do.

`make -n` descends into every folder with the real makefiles and the real config, so nothing about them has to be known here.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Sequence
from pathlib import Path

from kernel.errors import Code, FarmError
from kernel.plan import Inventory, Unit

# The announcement and, in the same recipe, the source: `echo '  CC      a/b.o'; ... -c -o a/b.o /build/src/a/b.c`.
_ANNOUNCED = re.compile(rb"echo '  (?:CC|AS|CXX|RUSTC)(?: \[M\])? +(\S+\.o)'")


# The archive at the top lists the folders that the top descends into: `printf "./%s " init/built-in.a ... | xargs ar ... built-in.a`.
_TOPS = re.compile(rb"printf \"(?:\./)?%s \" ([^|]+) \| xargs \S+ \S+ built-in\.a;")


# A kernel with everything has about 30,000 objects, at most 10 folders deep. Makefiles are hostile: they can announce anything.
_MOST_OBJECTS = 200_000
_DEEPEST = 50
_LONGEST = 1024
_LARGEST_SOURCE = 64 << 20


class DryRun:
    """Collects the objects that a dry run announces, and the folders `tops` that kbuild enters from the top; feed it line by line.

    Paths that no kernel has are left out. Raises FarmError(BAD_SOURCE) for more objects than any kernel has.
    """

    def __init__(self) -> None:
        self.objects: dict[str, None] = {}
        self.tops: tuple[str, ...] = ()

    def __call__(self, line: bytes) -> None:
        for match in _ANNOUNCED.finditer(line):
            path = match[1].decode(errors="replace").removeprefix("./")
            if _plausible(path):
                self.objects[path] = None
        if len(self.objects) > _MOST_OBJECTS:
            raise FarmError(Code.BAD_SOURCE, f"its makefiles announce more than {_MOST_OBJECTS} objects", where="inventory")
        if not self.tops and (top := _TOPS.search(line)):
            words = top[1].decode(errors="replace").split()
            self.tops = tuple(word.removesuffix("/built-in.a") for word in words if word.endswith("/built-in.a") and _plausible(word))


def _plausible(path: str) -> bool:
    """Whether a path can be one of an output tree: relative, inside, and neither longer nor deeper than a kernel's."""
    if len(path) > _LONGEST or path.startswith("/") or not path.isprintable():
        return False
    parts = path.split("/")
    return len(parts) - 1 <= _DEEPEST and ".." not in parts


def inventory(objects: list[str], tree: Path, tops: Sequence[str] = (), link_only: tuple[str, ...] = ()) -> Inventory:
    """Objects with the sizes of their sources, and the folders that can be goals; `link_only` as in Inventory.

    Raises FarmError(INTERNAL) when there is nothing."""
    if not objects:
        raise FarmError(Code.INTERNAL, "the dry run announced nothing to compile", where="inventory")
    parents = _parents(objects, tree)
    folders = sorted(folder for folder in parents if any(_size(tree, f"{folder}/{name}") for name in ("Kbuild", "Makefile")))
    units = tuple(Unit(path=path, size=_source_size(tree, path)) for path in sorted(objects))
    detached = sorted(top for top in tops if any(top.startswith(f"{other}/") for other in tops))
    return Inventory(units=units, folders=tuple(folders), detached=tuple(detached), link_only=link_only)


def _parents(objects: list[str], tree: Path) -> list[str]:
    """Folders of the tree with objects below them. Below a folder that is not there none is looked for: a build may announce many."""
    there: dict[str, bool] = {}
    for path in objects:
        for at, letter in enumerate(path):
            if letter == "/":
                folder = path[:at]
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
