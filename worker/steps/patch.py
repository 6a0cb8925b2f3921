"""The patch step: the request's patches as an upper layer over the tree. A step of its own, so that builds with other patches
share the fetch, and a mended patch costs no download."""

from __future__ import annotations

from dataclasses import replace

from kernel.steps import PatchResult, PatchTask
from worker import patches
from worker.context import Context


def run(context: Context, task: PatchTask) -> PatchResult:
    """Raises FarmError(BAD_PATCH) naming patch, file and hunk."""
    with context.checkout(task.tree) as source:
        upper = patches.apply(context, source, task.patches)
    return PatchResult(tree=replace(task.tree, upper=upper))
