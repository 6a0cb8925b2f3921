"""The patch step: patches as an upper layer over a tree."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench.plain import context_of
from kernel.errors import Code, FarmError
from kernel.spec import NamedBlob
from kernel.steps import PatchResult, PatchTask
from tests.fakes import fake_linux
from tests.worker.sourcing import run, upload
from worker import trees
from worker.node import Node
from worker.steps import patch


def patched(node: Node, tmp_path: Path, *texts: str) -> PatchResult:
    named = tuple(NamedBlob(name=f"{number:04}.patch", digest=node.blobs.put_bytes(text.encode())) for number, text in enumerate(texts, 1))
    tree = run(node, upload(node, fake_linux.tarball(tmp_path / "linux.tar"))).tree
    with node.scratch("patch") as scratch:
        context = context_of(node, scratch, tree, arch="x86_64", toolchain="gcc-12", jobs=1)
        return patch.run(context, PatchTask(tree=tree, patches=named))


NEW = "diff --git a/new.txt b/new.txt\nnew file mode 100644\n--- /dev/null\n+++ b/new.txt\n@@ -0,0 +1 @@\n+hello\n"
CHANGE = "--- a/new.txt\n+++ b/new.txt\n@@ -1 +1 @@\n-hello\n+world\n"


def gone(path: str) -> str:
    """A patch that removes a file of the fake kernel."""
    lines = fake_linux.files()[path].decode().splitlines()
    body = "".join(f"-{line}\n" for line in lines)
    return f"diff --git a/{path} b/{path}\ndeleted file mode 100644\n--- a/{path}\n+++ /dev/null\n@@ -1,{len(lines)} +0,0 @@\n{body}"


def test_patches_add_change_and_remove_in_order_and_leave_the_base_alone(node: Node, tmp_path: Path) -> None:
    victim = next(path for path in fake_linux.files() if path.endswith(".c") and fake_linux.files()[path])
    result = patched(node, tmp_path, NEW, CHANGE, gone(victim))
    with node.trees.checkout(result.tree, node.sandbox) as checkout:
        assert trees.read_text(checkout.path, "new.txt") == "world\n"
        assert not (checkout.path / victim).exists()
        newer = (checkout.path / "new.txt").stat().st_mtime
        assert newer > (checkout.path / "Makefile").stat().st_mtime, "make has to see that a patched file is newer"
    with node.trees.checkout(replace(result.tree, upper=""), node.sandbox) as base:
        assert (base.path / victim).exists()
        assert not (base.path / "new.txt").exists()


def test_the_same_patches_give_the_same_layer(node: Node, tmp_path: Path) -> None:
    assert patched(node, tmp_path, NEW, CHANGE).tree == patched(node, tmp_path, NEW, CHANGE).tree


def test_a_patch_that_does_not_apply_names_patch_file_and_hunk(node: Node, tmp_path: Path) -> None:
    with pytest.raises(FarmError) as caught:
        patched(node, tmp_path, NEW, CHANGE, CHANGE)
    assert caught.value.problem.code is Code.BAD_PATCH
    assert caught.value.problem.where == "0003.patch"
    assert "hunk 1" in caught.value.problem.message
    assert "new.txt" in caught.value.problem.message


def test_a_link_in_place_of_a_folder_leads_nobody_out_of_the_tree(node: Node, tmp_path: Path) -> None:
    """Remove all of a folder, put a link there: what marks the removed files must not be written through the link."""
    outside = tmp_path / "outside"
    outside.mkdir(mode=0o777)
    folder = next(path.rpartition("/")[0] for path in fake_linux.files() if path.count("/") == 1 and not path.startswith("scripts"))
    inside = [path for path in fake_linux.files() if path.startswith(f"{folder}/")]
    link = f"diff --git a/{folder} b/{folder}\nnew file mode 120000\n--- /dev/null\n+++ b/{folder}\n@@ -0,0 +1 @@\n+{outside}\n"
    link += "\\ No newline at end of file\n"
    with pytest.raises(FarmError) as caught:
        patched(node, tmp_path, *(gone(path) for path in inside if fake_linux.files()[path]), link)
    assert caught.value.problem.code is Code.BAD_PATCH
    assert list(outside.iterdir()) == []
