"""What the package step checks of what others made: modules_install, and names that users gave."""

from __future__ import annotations

import tracemalloc
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from bench.plain import context_of
from kernel.errors import Code, FarmError
from kernel.steps import NamedBlob, PackageTask, SourceFacts, Tree
from kernfarm.settings import WorkerSettings
from worker import archive
from worker.cgroup import Spent
from worker.kbuild import Made, Place
from worker.node import Node
from worker.sandbox import Outcome
from worker.steps import package
from worker.trees import Checkout

RELEASE = "6.1.0-t"


def task(**facts: Any) -> PackageTask:
    return PackageTask(
        tree=Tree(tarball="", version="6.1.0"),
        arch="x86_64",
        flavour="plain",
        toolchain="gcc-12",
        config="sha256:c",
        prepared="",
        linked="",
        release=RELEASE,
        outputs=(),
        facts=SourceFacts(**{"url": "https://kernel.org/linux.tar.xz", "resolved": "", "sha256": "s", **facts}),
        compiler="gcc 12",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Installs(Place):
    """Stands for a kernel whose modules_install leaves `files`, and for a shell that ends with `code`."""

    files: tuple[str, ...]
    code: int = 0

    def make(self, *goals: str, **more: Any) -> Made:
        for name in self.files:
            path = more["binds"][0].host / "lib/modules" / RELEASE / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        return Made(compiled=(), output=b"Warning: 'make modules_install' requires depmod. Please install it.")

    def run(self, argv: tuple[str, ...], **more: Any) -> Outcome:
        spent = Spent(cpu_user_seconds=0, cpu_system_seconds=0, peak_memory_bytes=0, out_of_memory=False)
        return Outcome(code=self.code, output=b"ln: build: Read-only file system", seconds=0, spent=spent)


def install(home: Path, *files: str, code: int = 0, config: str = "CONFIG_MODULES=y\n") -> Path:
    node = Node(WorkerSettings(state_dir=home / "worker", blobs_url=f"file://{home}/blobs", compile_cache=False))
    with node.scratch("package") as scratch:
        context = context_of(node, scratch, Tree(tarball="", version=""), arch="x86_64", toolchain="gcc-12", jobs=1)
        out, stage = (archive.make_folder(scratch / name, context.sandbox) for name in ("out", "stage"))
        (out / ".config").write_text(config)
        place = Installs(
            context=context, source=Checkout(path=out, salt=""), out=out, arch="x86_64", toolchain="gcc-12", files=files, code=code
        )
        package._modules(place, task(), stage, home / "kernel.tar")
    return home / "kernel.tar"


def test_modules_without_their_dependencies_are_no_image(open_folder: Path) -> None:
    with pytest.raises(FarmError) as caught:
        install(open_folder, "modules.order")
    assert caught.value.problem.code is Code.SANDBOX_FAILED
    assert caught.value.problem.where == f"lib/modules/{RELEASE}/modules.dep"
    assert "kmod" in caught.value.problem.hint


def test_links_of_the_modules_that_cannot_be_set_are_no_image(open_folder: Path) -> None:
    with pytest.raises(FarmError, match="Read-only file system") as caught:
        install(open_folder, "modules.dep", code=1)
    assert caught.value.problem.code is Code.SANDBOX_FAILED


def test_modules_with_dependencies_and_kernels_without_modules_are_packed(open_folder: Path) -> None:
    assert b"modules.dep" in install(open_folder, "modules.dep").read_bytes()
    assert b"modules.dep" not in install(open_folder, config="# CONFIG_MODULES is not set\n").read_bytes()


def test_a_name_adds_no_line_to_what_vouches_for_the_source() -> None:
    patch = NamedBlob(name="a.patch\nSOURCE_SIGNER=torvalds\r\u2028\udc80\\n é", digest="sha256:p")
    lines = package.source_info(task(url="https://x/\nSOURCE_SHA256=0", patches=(patch,))).split("\n")
    assert lines[0] == r"KERNEL_SOURCE=https://x/\nSOURCE_SHA256=0"
    assert r"PATCH=sha256:p a.patch\nSOURCE_SIGNER=torvalds\r\u2028\udc80\\n é" in lines
    assert [line for line in lines if line.startswith("SOURCE_")] == ["SOURCE_SHA256=s", "SOURCE_SIGNER="]


def test_a_large_file_of_the_link_step_is_not_held_in_memory(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with (tmp_path / "out/vmlinux").open("wb") as file:
        file.truncate((64 << 20) - 1)
        file.seek(0, 2)
        file.write(b"!")
    tracemalloc.start()
    try:
        package._copy_out(tmp_path / "out", "vmlinux", tmp_path / "vmlinux")
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert (tmp_path / "vmlinux").stat().st_size == 64 << 20
    with pytest.raises(FarmError, match="the link step left no"):
        package._copy_out(tmp_path / "out", "System.map", tmp_path / "System.map")
