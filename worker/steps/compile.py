"""The compile step: one shard's goals on top of the prepared layer; everything new becomes the shard's layer."""

from __future__ import annotations

from kernel.errors import Code, FarmError
from kernel.steps import CompileResult, CompileTask
from worker import archive, layers
from worker.context import Context
from worker.kbuild import Place

# Written by every make call, whatever its goals; the same in all of them, so never part of a layer.
REWRITTEN = frozenset({"Makefile", ".missing-syscalls.d", "source", ".gitignore"})


def run(context: Context, task: CompileTask) -> CompileResult:
    """Compile a shard. Raises FarmError(INTERNAL) when it touched what the prepared layer holds: then its objects can't be trusted."""
    out = archive.make_folder(context.scratch / "out", context.sandbox)
    layers.unpack(context, task.prepared, out, name="prepared layer")
    before = layers.scan(out)
    with context.checkout(task.tree) as source:
        made = Place(context=context, source=source, out=out, arch=task.arch, toolchain=task.toolchain).make(*task.goals)
    after = layers.scan(out)
    new = [path for path in layers.changed(before, after) if path not in REWRITTEN]
    touched = [path for path in new if path in before]
    if touched:
        raise FarmError(Code.INTERNAL, f"a shard rewrote {len(touched)} files of the prepared layer", where=touched[0])
    return CompileResult(layer=layers.pack(context, out, new, after, layers.Base.SHARD), compiled=len(made.compiled))
