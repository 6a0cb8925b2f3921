"""The flavour `dbg` of a real kernel: debug information holds paths and times of the machine that made it, unless somebody sees to it."""

from __future__ import annotations

import tarfile
from pathlib import Path

import pytest

from kernfarm import process
from tests.e2e.comparison import assert_bytes_of_a_plain_make
from tests.e2e.conftest import Built, RealFarm
from tests.kernels import draft

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def built(real_farm: RealFarm) -> Built:
    return real_farm.build(draft("x86_64", flavours=("dbg",)))


def test_the_bytes_are_those_of_a_plain_make(built: Built, real_farm: RealFarm, plain_state: Path) -> None:
    assert_bytes_of_a_plain_make(built, real_farm, plain_state)


def test_it_has_booted_under_its_own_name(built: Built) -> None:
    assert built.info["release"].endswith("-linuxkit-dbg")
    assert [step["state"] for step in built.info["steps"] if step["kind"] == "boot"] == ["succeeded"]
    config = (built.files / "kernel_config").read_text().splitlines()
    assert {"CONFIG_PROVE_LOCKING=y", "CONFIG_DEBUG_INFO=y"} <= set(config)


def test_the_image_has_an_unstripped_vmlinux_and_stripped_modules(built: Built, tmp_path: Path) -> None:
    assert ".debug_info" in _sections(built.files / "vmlinux")
    with tarfile.open(built.files / "kernel.tar", "r:") as tar:
        tar.extractall(tmp_path, [member for member in tar if member.name.endswith(".ko")], filter="data")  # not `build`, which dangles
    modules = list(tmp_path.rglob("*.ko"))
    assert len(modules) >= 10
    assert [path.name for path in modules if ".debug_info" in _sections(path)] == []


def _sections(program: Path) -> str:
    done = process.run(
        ("readelf", "--section-headers", "--wide", str(program)), env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"}, timeout_seconds=60
    )
    assert done.code == 0, done.output.decode()
    return done.output.decode()
