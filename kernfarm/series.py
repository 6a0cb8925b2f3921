"""Series: the folders below kernel/series that hold configuration and patches for all versions of, say, 6.1."""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

from kernel import tables
from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec

_VERSION = re.compile(r"v?(\d+)\.(\d+)(?:[.-].*)?")


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """`config` is on top of each architecture's defconfig, `arch_configs` on top of that; `patches` in the order of their names."""

    name: str
    config: Path
    arch_configs: dict[str, Path]
    patches: tuple[Path, ...]


def names(root: Path | None = None) -> tuple[str, ...]:
    """All series, oldest first."""
    found = [entry.name for entry in _root(root).iterdir() if (entry / "config").is_file()]
    return tuple(sorted(found, key=lambda name: [int(word) for word in re.findall(r"\d+", name)]))


def load(name: str, root: Path | None = None) -> Series:
    """Raises FarmError(UNKNOWN_VALUE) with the nearest known name."""
    known = names(root)
    if name not in known:
        raise tables.unknown("series", name, known)
    folder = _root(root) / name
    arch_configs = {path.name.removeprefix("config-"): path for path in folder.glob("config-*")}
    return Series(name=name, config=folder / "config", arch_configs=arch_configs, patches=tuple(sorted(folder.glob("patches/*.patch"))))


def of_source(source: SourceSpec) -> str:
    """The series of a source: `6.1.x` for kernel.org:6.1.192 and debian:6.1. Raises FarmError(INVALID_ARGUMENT) when it doesn't say."""
    ref = source.ref.rpartition("@")[2] if source.kind is SourceKind.GIT else source.ref
    match = None if source.kind is SourceKind.FILE else _VERSION.fullmatch(ref.partition("=")[0])
    if match is None:
        hint = f"name it: --series {names()[-1]}"
        raise FarmError(Code.INVALID_ARGUMENT, f"which series {source} belongs to can't be told", where="series", hint=hint)
    return f"{match[1]}.{match[2]}.x"


def _root(root: Path | None) -> Path:
    # The package is always installed as files: it holds configurations that people read and change.
    return root if root is not None else Path(str(resources.files("kernel") / "series"))
