"""The promise, as an assertion: what the farm made of a real kernel has the bytes that one plain make gives."""

from __future__ import annotations

from pathlib import Path

from bench.plain import plain_make
from kernel import tables
from kernel.steps import Tree
from tests.e2e.conftest import Built, RealFarm
from tests.kernels import linked, sha


def assert_bytes_of_a_plain_make(built: Built, farm: RealFarm, state: Path, *, modules: int = 10, trees: int = 0) -> None:
    """One make, without ccache, of the same tree and config at the same paths; on other times and with two jobs. `state`: an empty
    folder for it. `modules` and `trees`: how many modules and device trees there must be at least."""
    source = built.record["inputs"]["tree"]
    tree = Tree(tarball=source["tarball"], upper=source["upper"], version=source["version"])
    config = built.files / "kernel_config"
    arch, toolchain = built.info["arch"], built.info["toolchain"]
    blobs = f"file://{farm.state}/blobs"
    with plain_make(state=state, blobs_url=blobs, tree=tree, config=config, arch=arch, toolchain=toolchain, jobs=2) as plain:
        out = plain.out
        assert (out / ".config").read_bytes() == config.read_bytes()
        assert sha(out / tables.arch(arch).image_path) == sha(built.files / "kernel")
        assert sha(out / "System.map") == sha(built.files / "System.map")
        if (published := built.files / "vmlinux").exists():
            assert sha(out / "vmlinux") == sha(published)
        layer = linked(plain, farm.state, built.info["id"])
        names = {suffix: [str(path.relative_to(out)) for path in out.rglob(f"*.{suffix}")] for suffix in ("ko", "dtb")}
        assert len(names["ko"]) >= modules
        assert len(names["dtb"]) >= trees
        for name in ("vmlinux", "Module.symvers", *names["ko"], *names["dtb"]):
            assert sha(out / name) == sha(layer / name), name
        compiled = len(plain.compiled)
    steps = built.record["steps"]
    assert next(step for step in steps if step["key"] == "link")["unplanned"] == [], "the link step compiled what a shard should have made"
    assert sum(step["compiled"] for step in steps if step["key"].startswith("compile")) == built.info["objects_planned"]
    assert built.record["objects_compiled"] == compiled, "something was compiled twice, or not at all"
