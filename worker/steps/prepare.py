"""The prepare step: everything that all compiles need, and the list of what there is to compile."""

from __future__ import annotations

from kernel import randstruct, tables
from kernel import release as kernel_release
from kernel.codec import canonical
from kernel.steps import PrepareResult, PrepareTask
from worker import archive, layers
from worker.context import Context
from worker.inventory import DryRun, inventory
from worker.kbuild import Place


def run(context: Context, task: PrepareTask) -> PrepareResult:
    """`make prepare modules_prepare`; the whole output tree becomes the prepared layer."""
    out = archive.make_folder(context.scratch / "out", context.sandbox)
    with context.checkout(task.tree) as source:
        context.blobs.get_file(task.config, out / ".config")
        archive.give(out / ".config", context.sandbox)
        place = Place(context=context, source=source, out=out, arch=task.arch, toolchain=task.toolchain)
        seed = _fix_seed(place, task)
        made = place.make("olddefconfig", "prepare", "modules_prepare")
        release = kernel_release.check(place.ask("kernelrelease"))
        compiler = place.run((tables.compiler(task.arch, task.toolchain), "--version")).output.decode(errors="replace").partition("\n")[0]
        entries = layers.scan(out)
        layer = layers.pack(context, out, entries, entries, layers.Base.PREPARED, folders=layers.folders(out))
        listener = DryRun()
        arch = tables.arch(task.arch)
        place.dry_run(*arch.goals, on_line=listener)
        found = inventory(listener, source.path, arch.link_only_folders)
    return PrepareResult(
        layer=layer,
        inventory=context.blobs.put_bytes(canonical(found)),
        release=release,
        compiler=compiler,
        compiled=len(made.compiled),
        randstruct_seed=seed,
    )


def _fix_seed(place: Place, task: PrepareTask) -> str:
    """Let kbuild make its random seed, and put ours in its place: kbuild keeps a file whose command line is the same."""
    if layers.read_config(place.out).get("RANDSTRUCT") != "y":
        return ""
    place.make("scripts_basic")
    seed = randstruct.seed(task.tree, task.config)
    for path, text in randstruct.files(seed).items():
        layers.overwrite(place.out, path, text.encode())
    return seed
