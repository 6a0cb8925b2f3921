"""arm64 from x86_64 workers: the bytes of a plain cross make, an image that boots, tools in kernel-dev that run on arm64."""

from __future__ import annotations

import platform
import tarfile
from pathlib import Path

import pytest

from kernel import elf, tables
from kernfarm import boot, process
from tests.e2e.comparison import assert_bytes_of_a_plain_make
from tests.e2e.conftest import Built, RealFarm
from tests.kernels import MODULES, draft, make_hello

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="cross-compiling is from x86_64"),
]

ARM64 = tables.arch("arm64")
# How make is called by hand for each.
TOOLCHAINS = {
    "gcc-12": ("CROSS_COMPILE=aarch64-linux-gnu-", "CC=aarch64-linux-gnu-gcc-12"),
    "clang-14": ("CC=clang-14", "LLVM=-14"),
}
# The C library that Debian's cross compiler links against, for programs that run emulated.
SYSROOT = "/usr/aarch64-linux-gnu"
ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


@pytest.fixture(scope="module", params=list(TOOLCHAINS))
def built(real_farm: RealFarm, request: pytest.FixtureRequest) -> Built:
    return real_farm.build(draft("arm64", toolchain=request.param))


def test_the_farm_has_booted_it(built: Built) -> None:
    assert [step["state"] for step in built.info["steps"] if step["kind"] == "boot"] == ["succeeded"]
    assert built.info["images"][0]["platform"] == "linux/arm64"


def test_kernel_tar_has_modules_and_device_trees_of_arm64(built: Built) -> None:
    with tarfile.open(built.files / "kernel.tar", "r:") as tar:
        members = {member.name: member for member in tar.getmembers()}
        trees = [name for name in members if name.startswith("./boot/dtb/") and name.endswith(".dtb")]
        assert "./boot/dtb/amd/amd-overdrive-rev-b1.dtb" in trees
        modules = [name for name in members if name.endswith(".ko")]
        assert len(modules) >= 10
        for name in modules:
            source = tar.extractfile(members[name])
            assert source is not None
            assert elf.machine(source.read(20)) == ARM64.elf_machine


def test_kernel_devs_tools_run_on_arm64_and_make_a_module_that_loads(built: Built, tmp_path: Path) -> None:
    """The compiler is the cross compiler of this machine; every other program is kernel-dev's own, run by QEMU as on arm64."""
    with tarfile.open(built.files / "kernel-dev.tar") as tar:
        tar.extractall(tmp_path, filter="data")
    (headers,) = (tmp_path / "usr/src").iterdir()
    programs = [path for path in headers.rglob("*") if path.is_file() and not path.is_symlink() and elf.machine(path.read_bytes()[:20])]
    assert {str(path.relative_to(headers)) for path in programs} >= {"scripts/basic/fixdep", "scripts/mod/modpost"}
    for path in programs:
        assert elf.machine(path.read_bytes()[:20]) == ARM64.elf_machine, path
        path.rename(f"{path}.arm64")
        path.write_text(f'#!/bin/sh\necho "$0" >> {tmp_path}/ran\nexec qemu-aarch64 -L {SYSROOT} "$0.arm64" "$@"\n')
        path.chmod(0o755)
    module = make_hello(tmp_path / "hello")
    words = ("ARCH=arm64", *TOOLCHAINS[built.info["toolchain"]])
    done = process.run(("make", "-C", str(headers), f"M={module}", *words, "modules"), env=ENV, timeout_seconds=240)
    assert done.code == 0, done.output.decode()
    assert {"fixdep", "modpost"} <= {line.rpartition("/")[2] for line in (tmp_path / "ran").read_text().splitlines()}
    booted = boot.boot(built.files, arch="arm64", modules=MODULES, extra=(module / "hello.ko",), timeout_seconds=120)
    assert booted.release == built.info["release"]
    assert set(booted.loaded) == {*MODULES, "hello"}


def test_the_bytes_are_those_of_a_plain_make(built: Built, real_farm: RealFarm, plain_state: Path) -> None:
    assert_bytes_of_a_plain_make(built, real_farm, plain_state, trees=2)
