from __future__ import annotations

import platform
from pathlib import Path

import pytest

from kernel import tables
from kernfarm import compilers, guest
from kernfarm.cli import doctor

PACKAGES = Path(__file__).parents[2] / "packages.txt"


def wanted() -> list[str]:
    lines = [line.strip() for line in PACKAGES.read_text().splitlines()]
    return [line for line in lines if line and not line.startswith("#")]


def test_on_a_machine_that_has_nothing_every_package_we_ask_for_is_a_mend(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor.shutil, "which", lambda *_, **__: None)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(doctor, "_INCLUDE", tmp_path)
    for module in (guest, compilers):
        monkeypatch.setattr(module, "PATH", "/nowhere")
    found = doctor.examine(tmp_path)
    mends = {word for finding in found for word in finding.mend.removeprefix("apt-get install ").split()}
    assert set(wanted()) - mends == set()
    # Other architectures and toolchains are shown with their mends, but nobody has to have them.
    assert {finding.name for finding in found if finding.ok} & {"arm64 with gcc-12", "x86_64 with clang-14"}
    missing = {finding.name for finding in found if not finding.ok}
    native = next(name for name in tables.names("arch") if tables.arch(name).machine == platform.machine())
    assert {f"{native} with gcc-12", f"{native} in QEMU", "make"} <= missing


def test_programs_of_debian_sources_are_looked_for(tmp_path: Path) -> None:
    assert {"apt-get", "dpkg-deb"} <= {finding.name for finding in doctor.examine(tmp_path)}


def test_a_header_that_is_there_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(doctor, "_INCLUDE", tmp_path)
    (tmp_path / "gelf.h").touch()
    found = {finding.name: finding.ok for finding in doctor.examine(tmp_path)}
    assert found["gelf.h"]
    assert not found["openssl/opensslv.h"]
