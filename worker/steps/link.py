"""The link step: prepared layer and all shards, then the ordinary make; only linking and what no shard covers is left to do."""

from __future__ import annotations

import json
import re

from kernel import tables
from kernel.codec import from_plain
from kernel.plan import Inventory
from kernel.steps import LinkResult, LinkTask
from worker import archive, layers
from worker.context import Context
from worker.kbuild import Place
from worker.steps.compile import REWRITTEN

# What packaging does not need: intermediate links, and objects, which are inside their modules and vmlinux.
_DISPENSABLE = re.compile(r"(.*/)?(\.tmp_[^/]*|[^/]*\.(o|a|mod|cmd|mod\.c|usyms))")
# What packaging needs of the shards' files.
_PACKAGED = (".h", "/modules.order")


def run(context: Context, task: LinkTask) -> LinkResult:
    """Link. What it compiles although a shard should have made it is reported as `unplanned`: more than none is a bug."""
    out = archive.make_folder(context.scratch / "out", context.sandbox)
    layers.unpack(context, task.prepared, out, name="prepared layer")
    prepared = layers.scan(out)
    for index, shard in enumerate(task.shards):
        staging = archive.make_folder(context.scratch / f"shard-{index}", context.sandbox)
        layers.unpack(context, shard, staging, name=f"shard {index}")
        layers.merge(staging, out, prepared, name=f"shard {index}")
        archive.remove_tree(staging)
    before = layers.scan(out)
    with context.checkout(task.tree) as source:
        place = Place(context=context, source=source, out=out, arch=task.arch, toolchain=task.toolchain)
        made = place.make(*tables.arch(task.arch).goals)
    after = layers.scan(out)
    kept = {path for path in layers.changed(before, after) if path not in REWRITTEN and not _DISPENSABLE.fullmatch(path)}
    kept |= {path for path in before.keys() - prepared.keys() if path.endswith(_PACKAGED)}
    found = from_plain(Inventory, json.loads(context.blobs.get_bytes(task.inventory)))
    covered = {unit.path for unit in found.units if found.coverable(unit)}
    return LinkResult(
        layer=layers.pack(context, out, kept, after, layers.Base.LINK),
        compiled=len(made.compiled),
        unplanned=tuple(path for path in made.compiled if path in covered),
    )
