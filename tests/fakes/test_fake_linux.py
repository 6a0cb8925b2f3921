"""The stand-in has to behave like kbuild where the farm depends on it."""

from __future__ import annotations

import gzip
import re
import shutil
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from kernel import elf
from tests.fakes import fake_linux
from worker.inventory import DryRun, inventory

ANNOUNCED = re.compile(rb"^  (?:CC|AS)(?: \[M\])? +(\S+\.o)$", re.MULTILINE)
NAMES = {"KBUILD_BUILD_TIMESTAMP": "then", "KBUILD_BUILD_USER": "me", "KBUILD_BUILD_HOST": "here"}
PRODUCTS = ("vmlinux", "System.map", "arch/x86/boot/bzImage", "Module.symvers", "modules.order", "drivers/net/bundle.ko", "fs/fakefs.ko")
GOALS = ("bzImage", "modules")


@dataclass(frozen=True)
class Kernel:
    """A tree and an output folder; `make` runs goals as the farm does and gives the output."""

    source: Path
    out: Path
    version: str = "1"
    words: tuple[str, ...] = ("ARCH=x86_64", "CC=gcc-12", "HOSTCC=gcc-12")

    def run(self, *goals: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["make", "-C", str(self.source), f"O={self.out}", "-j2", *self.words, *goals]
        env = {"PATH": "/usr/bin:/bin:/usr/sbin:/sbin", "LC_ALL": "C", "KBUILD_BUILD_VERSION": self.version, **NAMES}
        return subprocess.run(argv, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60)

    def make(self, *goals: str) -> bytes:
        done = self.run(*goals)
        assert done.returncode == 0, done.stdout.decode()
        return done.stdout

    def compiled(self, *goals: str) -> set[str]:
        return {name.decode() for name in ANNOUNCED.findall(self.make(*goals))}

    def configure(self, fragment: str = "") -> None:
        self.make("defconfig")
        with (self.out / ".config").open("a") as config:
            config.write(fragment)
        self.make("olddefconfig", "prepare", "modules_prepare")

    def config(self) -> str:
        return (self.out / ".config").read_text()


@pytest.fixture
def kernel(tmp_path: Path) -> Kernel:
    (tmp_path / "out").mkdir()
    return Kernel(fake_linux.write(tmp_path / "src"), tmp_path / "out")


def test_a_build_has_what_a_kernel_has(kernel: Kernel) -> None:
    kernel.configure()
    kernel.make(*GOALS)
    assert all((kernel.out / name).stat().st_size > 0 for name in PRODUCTS)
    assert b"Linux version 6.1.999 (me@here)" in (kernel.out / "vmlinux").read_bytes()
    assert (kernel.out / "arch/x86/boot/bzImage").read_bytes()[0x202:0x206] == b"HdrS"
    assert kernel.make("-s", "--no-print-directory", "kernelrelease") == b"6.1.999\n"
    assert kernel.compiled(*GOALS) == set()


def test_an_arm64_build_has_what_an_arm64_kernel_has(kernel: Kernel, tmp_path: Path) -> None:
    prefix = "aarch64-linux-gnu-"
    kernel = replace(kernel, words=("ARCH=arm64", f"CC={prefix}gcc-12", "HOSTCC=gcc-12", f"CROSS_COMPILE={prefix}"))
    kernel.configure()
    kernel.make("Image.gz", "modules", "dtbs")
    assert {elf.machine((kernel.out / name).read_bytes()) for name in ("vmlinux", "fs/fakefs.ko")} == {183}
    assert gzip.decompress((kernel.out / "arch/arm64/boot/Image.gz").read_bytes()).count(b"Linux version 6.1.999") == 1
    kernel.make("dtbs_install", f"INSTALL_DTBS_PATH={tmp_path}/dtb")
    assert (tmp_path / "dtb/fake/board.dtb").is_file()
    assert kernel.compiled("Image.gz", "modules", "dtbs") == set()


def test_config_goals(kernel: Kernel) -> None:
    kernel.make("tinyconfig")
    assert "# CONFIG_FAKE_NET is not set" in kernel.config()
    assert "CONFIG_FAKE_DUMMY" not in kernel.config()
    (kernel.out / ".config").write_text('CONFIG_FAKE_FS=y\nCONFIG_FAKE_NEVER=y\nCONFIG_LOCALVERSION="-mine"\nCONFIG_GONE=y\n')
    kernel.make("olddefconfig")
    assert "CONFIG_FAKE_FS=y\n" in kernel.config()
    assert "CONFIG_FAKE_DUMMY=m\n" in kernel.config()
    assert "NEVER" not in kernel.config()
    assert "GONE" not in kernel.config()
    assert kernel.make("-s", "--no-print-directory", "kernelrelease") == b"6.1.999-mine\n"


def test_a_dry_run_lists_what_a_build_compiles_and_changes_nothing(kernel: Kernel) -> None:
    kernel.configure()
    before = {path: path.stat().st_mtime_ns for path in kernel.out.rglob("*") if path.is_file()}
    listener = DryRun()
    for line in kernel.make("-n", *GOALS).splitlines():
        listener(line)
    assert {path: path.stat().st_mtime_ns for path in kernel.out.rglob("*") if path.is_file()} == before
    compiled = {path for path in kernel.compiled(*GOALS) if path != "init/version.o" and not path.endswith(".mod.o")}
    assert set(listener.objects) == compiled
    assert len(compiled) > 20
    folders = inventory(listener, kernel.source).folders
    assert "drivers/gpu" in folders
    assert "drivers/gpu/gt" not in folders


def test_shards_and_a_link_make_the_bytes_of_a_plain_build(kernel: Kernel, tmp_path: Path) -> None:
    kernel.configure()
    prepared = tmp_path / "prepared"
    shutil.copytree(kernel.out, prepared, symlinks=True)
    kernel.make(*GOALS)
    plain = {name: (kernel.out / name).read_bytes() for name in PRODUCTS}
    made: dict[str, Path] = {}
    for number, goals in enumerate([("drivers/net/", "drivers/char/"), ("drivers/gpu/gt/pm.o", "fs/"), ("kernel/core.o", "lib/")]):
        shutil.rmtree(kernel.out)
        shutil.copytree(prepared, kernel.out, symlinks=True)
        assert kernel.compiled(*goals)
        shutil.copytree(kernel.out, tmp_path / str(number), symlinks=True)
        new = {str(path.relative_to(kernel.out)) for path in kernel.out.rglob("*") if path.is_file()}
        made |= {name: tmp_path / str(number) / name for name in new if not (prepared / name).exists()}
    shutil.rmtree(kernel.out)
    shutil.copytree(prepared, kernel.out, symlinks=True)
    for name, path in made.items():
        (kernel.out / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, kernel.out / name)
    left = kernel.compiled(*GOALS)
    assert {"kernel/sched.o", "drivers/gpu/gt/ring.o"} <= left
    assert not left & {"kernel/core.o", "lib/checksum.o", "drivers/gpu/gt/pm.o", "drivers/net/bundle_hw.o", "fs/fakefs.o"}
    assert {name: (kernel.out / name).read_bytes() for name in PRODUCTS} == plain


def test_a_folder_without_a_makefile_builds_nothing(kernel: Kernel) -> None:
    kernel.configure()
    assert kernel.compiled("drivers/gpu/gt/") == set()
    assert kernel.compiled("drivers/gpu/gt/ring.o") == {"drivers/gpu/gt/ring.o"}


def test_only_what_a_change_reaches_is_compiled_again(kernel: Kernel) -> None:
    kernel.configure()
    kernel.make(*GOALS)
    (kernel.source / "drivers/net/bundle.h").write_text("int bundle_reset(int port); /* changed */\n")
    assert kernel.compiled(*GOALS) == {"drivers/net/bundle_main.o", "drivers/net/bundle_hw.o"}
    (kernel.out / ".config").write_text(kernel.config().replace("CONFIG_FAKE_FS=m", "CONFIG_FAKE_FS=y"))
    kernel.make("olddefconfig")
    assert kernel.compiled(*GOALS) == {"fs/fakefs.o", "init/version.o"}


def test_links_are_counted_unless_the_version_is_given(kernel: Kernel) -> None:
    kernel = replace(kernel, version="")
    kernel.configure()
    kernel.make(*GOALS)
    assert b" #1 then" in (kernel.out / "vmlinux").read_bytes()
    (kernel.source / "kernel/sched.c").write_text("#include <linux/kernel.h>\nvoid sched_init(void) { }\n")
    kernel.make(*GOALS)
    assert b" #2 then" in (kernel.out / "vmlinux").read_bytes()


@pytest.mark.parametrize(
    ("symbol", "message"),
    [
        ("FAKE_FAIL_COMPILE", b"kernel/core.c:17:16: error: 'this_is_not_declared' undeclared"),
        ("FAKE_FAIL_LINK", b"undefined reference to `nobody_defines_this'"),
        ("FAKE_FAIL_MODPOST", b'ERROR: modpost: "nobody_exports_this" [drivers/net/dummy.ko] undefined!'),
    ],
)
def test_failures_on_command(kernel: Kernel, symbol: str, message: bytes) -> None:
    kernel.configure(f"CONFIG_{symbol}=y\n")
    done = kernel.run(*GOALS)
    assert done.returncode == 2
    assert message in done.stdout


def test_slow_on_command(kernel: Kernel) -> None:
    kernel.configure('CONFIG_FAKE_SLOW=y\nCONFIG_FAKE_SLOW_SECONDS="30"\n')
    argv = ["timeout", "1", "make", "-C", str(kernel.source), f"O={kernel.out}", "CC=gcc-12", "kernel/core.o"]
    assert subprocess.run(argv, capture_output=True).returncode == 124
    assert not (kernel.out / "kernel/core.o").exists()


def test_installing(kernel: Kernel, tmp_path: Path) -> None:
    kernel.configure()
    kernel.make(*GOALS)
    kernel.make("modules_install", f"INSTALL_MOD_PATH={tmp_path}/root", "INSTALL_MOD_STRIP=1")
    kernel.make("headers_install", f"INSTALL_HDR_PATH={tmp_path}/headers")
    modules = tmp_path / "root/lib/modules/6.1.999"
    assert (modules / "kernel/drivers/net/bundle.ko").is_file()
    assert "kernel/fs/fakefs.ko" in (modules / "modules.dep").read_text()
    assert (tmp_path / "headers/include/linux/fake.h").is_file()


def test_the_tarball_has_the_same_bytes_each_time(tmp_path: Path) -> None:
    one, two = (fake_linux.tarball(tmp_path / name) for name in ("one.tar.xz", "two.tar.xz"))
    assert one.read_bytes() == two.read_bytes()
    edited = fake_linux.tarball(tmp_path / "three.tar.xz", {"kernel/new.c": "int x;\n", "README": None})
    assert edited.read_bytes() != one.read_bytes()
