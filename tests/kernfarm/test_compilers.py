"""What this machine can build, with its real compilers and with ones that lie."""

from __future__ import annotations

from pathlib import Path

import pytest

from kernel import tables
from kernfarm import compilers

CROSS = tables.programs("arm64", "gcc-12")


def test_all_toolchains_work_with_the_packages_that_the_tables_name() -> None:
    assert set(compilers.buildable()) == {(arch, name) for name in tables.names("toolchain") for arch in tables.toolchain(name).targets}


def offer(folder: Path, monkeypatch: pytest.MonkeyPatch, **programs: str) -> None:
    """A PATH with just these."""
    for name, target in programs.items():
        (folder / name.replace("_", "-")).symlink_to(target)
    monkeypatch.setattr(compilers, "PATH", str(folder))


def test_a_compiler_of_that_name_for_another_architecture_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """As gcc-12 is on an arm64 machine."""
    others = {name: f"/usr/bin/{name}" for name in ("as", "ld", "objcopy")}
    offer(tmp_path, monkeypatch, **others, **{"gcc-12": "/usr/bin/aarch64-linux-gnu-gcc-12"})
    assert not compilers.works("x86_64", "gcc-12")
    (tmp_path / "gcc-12").unlink()
    (tmp_path / "gcc-12").symlink_to("/usr/bin/gcc-12")
    assert compilers.works("x86_64", "gcc-12")


@pytest.mark.parametrize("lacking", CROSS)
def test_each_program_of_a_toolchain_has_to_be_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, lacking: str) -> None:
    offer(tmp_path, monkeypatch, **{name: f"/usr/bin/{name}" for name in CROSS if name != lacking})
    assert not compilers.works("arm64", "gcc-12")


def test_a_compiler_that_can_not_link_a_program_is_none(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    offer(tmp_path, monkeypatch, **{name: f"/usr/bin/{name}" for name in CROSS})
    assert compilers.works("arm64", "gcc-12")
    (tmp_path / CROSS[0]).unlink()
    (tmp_path / CROSS[0]).write_text("#!/bin/sh\necho aarch64-linux-gnu\ncase $1 in -dumpmachine) exit 0 ;; esac\nexit 1\n")
    (tmp_path / CROSS[0]).chmod(0o755)
    assert not compilers.works("arm64", "gcc-12")
