"""Patches as an upper layer over a tree: applied in order, strictly, on a copy of just the files they touch."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from kernel import patch
from kernel.errors import Code, FarmError
from kernel.spec import NamedBlob
from worker import archive, layers, trees
from worker.cgroup import Limits
from worker.context import Context
from worker.sandbox import Bind, Job
from worker.trees import Checkout

_MAX_PATCH = 64 << 20
_REJECTED = re.compile(r"error: patch failed: (.+):(\d+)")
_OTHER = re.compile(r"error: (.+)")


def apply(context: Context, source: Checkout, named: Sequence[NamedBlob]) -> str:
    """The digest of the upper layer. Raises FarmError(BAD_PATCH) naming patch, file and hunk."""
    texts = [(blob.name, context.blobs.get_bytes(blob.digest, limit=_MAX_PATCH)) for blob in named]
    touched = {path for name, data in texts for path in patch.parse(data.decode(errors="replace"), name).touched}
    work = archive.make_folder(context.scratch / "patched", context.sandbox)
    for path in sorted(touched):
        _copy(source.path, work, path, context)
    archive.normalize(work, archive.SOURCE_EPOCH, owner=context.sandbox.uid)
    before = layers.scan(work)
    for name, data in texts:
        _apply_one(context, work, name, data)
    after = layers.scan(work)
    for path in sorted(before.keys() - after.keys()):
        _mark_gone(work, path)
    after = layers.scan(work)
    return layers.pack(context, work, layers.changed(before, after), after, layers.Base.PREPARED)


def _copy(source: Path, work: Path, path: str, context: Context) -> None:
    """Copy one file of the tree, mode included; a path that leads through a symbolic link is left out, so the patch fails there."""
    try:
        data = trees.read_bytes(source, path)
    except OSError:
        return  # a file that the patch creates
    target = work / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)
    target.chmod(0o755 if (source / path).stat().st_mode & 0o100 else 0o644)


def _mark_gone(work: Path, path: str) -> None:
    """Leave a whiteout where a patch removed a file. A patch may also have put a link in place of the folder: follow none."""
    *parents, name = path.split("/")
    try:
        folder = trees.open_folder(work, parents)
    except OSError as error:
        raise FarmError(Code.BAD_PATCH, "the patches put something else in place of a folder", where=path) from error
    try:
        os.close(os.open(f"{trees.WHITEOUT}{name}", os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644, dir_fd=folder))
    finally:
        os.close(folder)


def _apply_one(context: Context, work: Path, name: str, data: bytes) -> None:
    file = context.scratch / "patch"
    file.write_bytes(data)
    file.chmod(0o644)
    job = Job(
        argv=("git", "apply", "--whitespace=nowarn", "-p1", "/build/patch"),
        binds=(Bind(host=file, inside="/build/patch"), Bind(host=work, inside="/build/work", writable=True)),
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "HOME": "/tmp", "GIT_CONFIG_NOSYSTEM": "1"},
        cwd="/build/work",
        limits=Limits(memory_bytes=1 << 30),
        timeout_seconds=300,
    )
    outcome = context.sandbox.run(job, on_line=context.log, cancel=context.cancel)
    if outcome.code == 0:
        return
    said = outcome.output.decode(errors="replace")
    rejected = _REJECTED.search(said)
    if rejected is not None:
        path, line = rejected[1], int(rejected[2])
        hunk = patch.hunk_at(data.decode(errors="replace"), path, line)
        raise FarmError(
            Code.BAD_PATCH,
            f"hunk {hunk} (line {line}) does not apply to {path}",
            where=name,
            hint="rebase the patch on this version of the kernel; patches are applied without fuzz",
        )
    other = _OTHER.search(said)
    raise FarmError(Code.BAD_PATCH, f"does not apply: {other[1] if other else said.strip()[-200:]}", where=name)
