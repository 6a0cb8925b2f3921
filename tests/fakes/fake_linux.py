"""A stand-in for a kernel tree: real make and gcc, kbuild's goals, messages and habits, a whole build in about a second.

Symbols that make it misbehave: FAKE_FAIL_COMPILE, FAKE_FAIL_LINK, FAKE_FAIL_MODPOST, FAKE_SLOW with FAKE_SLOW_SECONDS.
FAKE_NEVER cannot be set; drivers/gpu/gt has objects but no Makefile; fs/fakefs is a module or built in.
"""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from collections.abc import Mapping
from pathlib import Path

import zstandard

VERSION = "6.1.999"
TREE = Path(__file__).parent / "linux"
_EPOCH = 1_000_000_000

Edits = Mapping[str, str | None]


def files(edits: Edits | None = None) -> dict[str, bytes]:
    """The tree's files by path, sorted. `edits` replaces, adds or (None) removes some."""
    found: dict[str, bytes] = {str(path.relative_to(TREE)): path.read_bytes() for path in TREE.rglob("*") if path.is_file()}
    for name, text in (edits or {}).items():
        if text is None:
            del found[name]
        else:
            found[name] = text.encode()
    return dict(sorted(found.items()))


def write(folder: Path, edits: Edits | None = None) -> Path:
    """The tree as a folder."""
    for name, data in files(edits).items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


def tarball(path: Path, edits: Edits | None = None) -> Path:
    """The tree as kernel.org would pack it, with the same bytes each time; compressed as the name says (.tar.xz, .tar.gz, .tar)."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, data in files(edits).items():
            member = tarfile.TarInfo(f"linux-{VERSION}/{name}")
            member.size, member.mtime, member.mode = len(data), _EPOCH, 0o644
            archive.addfile(member, io.BytesIO(data))
    path.write_bytes(_compress(path.suffix, raw.getvalue()))
    return path


def _compress(suffix: str, data: bytes) -> bytes:
    match suffix:
        case ".xz":
            return lzma.compress(data, preset=0)
        case ".gz":
            return gzip.compress(data, mtime=0)
        case ".zst":
            return zstandard.compress(data)
        case ".tar":
            return data
    raise ValueError(f"no compression is called {suffix}")
