from __future__ import annotations

from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from worker import toolchain


def test_the_fingerprint_covers_what_the_driver_runs_and_links(tmp_path: Path) -> None:
    (tmp_path / "system.h").write_text("#define A 1\n")
    files = {path.name for path in toolchain.inputs(("gcc-12",), (tmp_path,))}
    assert {"cc1", "system.h", "stddef.h"} <= files
    assert any(name.startswith("x86_64-linux-gnu-as") for name in files)
    assert any(name.startswith("x86_64-linux-gnu-gcc-12") for name in files)
    assert any(name.startswith("libmpfr.so") for name in files)
    before = toolchain.fingerprint(("gcc-12",), (tmp_path,))
    assert toolchain.fingerprint(("gcc-12",), (tmp_path,)) == before
    (tmp_path / "system.h").write_text("#define A 2\n")
    assert toolchain.fingerprint(("gcc-12",), (tmp_path,)) != before


@pytest.mark.parametrize("name", ["gcc-99", "/usr/bin/gcc-12", "../gcc-12", ""])
def test_what_is_no_compiler_is_named(name: str) -> None:
    with pytest.raises(FarmError) as caught:
        toolchain.locate(name)
    assert caught.value.problem.code is Code.MISSING_FILE
    assert caught.value.problem.where == name


def test_a_cross_compiler_has_a_fingerprint_of_its_own() -> None:
    names = {path.name for path in toolchain.inputs(("aarch64-linux-gnu-gcc-12",), ())}
    assert {"cc1", "aarch64-linux-gnu-as", "arm_neon.h"} <= names
