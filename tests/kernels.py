"""What tests of real kernels share: where the link step's files are, and a module that says hello."""

from __future__ import annotations

import hashlib
import shutil
from pathlib import Path

from bench.plain import PlainBuild
from coordinator.events import Succeeded
from coordinator.journal import Journal
from kernel.steps import LinkResult
from kernfarm.request import Draft
from worker import archive, layers

HELLO = """#include <linux/module.h>
static int __init hello_init(void) { pr_info("hello from a module\\n"); return 0; }
static void __exit hello_exit(void) { }
module_init(hello_init);
module_exit(hello_exit);
MODULE_LICENSE("GPL");
"""


# Of the demo's configurations, for all architectures.
MODULES = ("isofs", "vfat", "squashfs", "loop", "md5")
_DEMO = Path(__file__).resolve().parents[1] / "demo"


def draft(*arches: str, toolchain: str = "gcc-12", flavours: tuple[str, ...] = ("plain",)) -> Draft:
    """The demo's request."""
    fragments = tuple((arch, (_DEMO / f"{arch}.config",)) for arch in arches)
    return Draft(source="debian:6.1", arch=arches, flavours=flavours, toolchain=toolchain, base="tinyconfig", arch_fragments=fragments)


def linked(plain: PlainBuild, farm_state: Path, build_id: str) -> Path:
    """The layer of a build's link step, found in the coordinator's journal, unpacked beside a plain build."""
    copy = plain.scratch / "journal.sqlite"
    shutil.copyfile(farm_state / "coordinator/journal.sqlite", copy)
    if (wal := farm_state / "coordinator/journal.sqlite-wal").exists():
        shutil.copyfile(wal, plain.scratch / "journal.sqlite-wal")
    journal = Journal(f"sqlite:///{copy}")
    results = [event.result for event in journal.read() if isinstance(event, Succeeded) and event.attempt_id.startswith(f"{build_id}/")]
    journal.close()
    layer = next(result.layer for result in results if isinstance(result, LinkResult))
    folder = archive.make_folder(plain.scratch / "linked", plain.context.sandbox)
    layers.unpack(plain.context, layer, folder, name="linked layer")
    return folder


def sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def make_hello(folder: Path) -> Path:
    """The sources of the module `hello`."""
    folder.mkdir()
    (folder / "hello.c").write_text(HELLO)
    (folder / "Makefile").write_text("obj-m := hello.o\n")
    return folder
