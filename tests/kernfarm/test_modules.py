"""Modules of a kernel.tar: the order in which they can be loaded, and their contents."""

from __future__ import annotations

import gzip
import io
import lzma
import tarfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Code, FarmError
from kernfarm import modules
from kernfarm.modules import Modules

NAMES = "abcdefgh"


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(f"./lib/modules/6.1/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return path


# Each may need those before it in the alphabet, as modules can't need each other.
needs = st.fixed_dictionaries({name: st.lists(st.sampled_from(NAMES[:index] or "z"), max_size=4) for index, name in enumerate(NAMES)})


@given(needs=needs, asked=st.lists(st.sampled_from(NAMES + "z"), max_size=5))
def test_each_comes_once_behind_all_it_needs_and_nothing_else_comes(needs: dict[str, list[str]], asked: list[str]) -> None:
    there = Modules(files={name: f"{name}.ko" for name in NAMES}, needs={name: tuple(each) for name, each in needs.items()})
    order = there.order(asked)
    assert len(order) == len(set(order))
    for at, name in enumerate(order):
        assert {each for each in needs[name] if each in NAMES} <= set(order[:at])
    needed = set(asked) & set(NAMES)
    while more := {each for name in needed for each in needs[name] if each in NAMES} - needed:
        needed |= more
    assert set(order) == needed


def test_modules_that_need_each_other_or_a_very_long_chain_end() -> None:
    ring = Modules(files={"a": "a.ko", "b": "b.ko"}, needs={"a": ("b",), "b": ("a",)})
    assert sorted(ring.order(["a"])) == ["a", "b"]
    long = Modules(files={str(at): "x" for at in range(50_000)}, needs={str(at): (str(at + 1),) for at in range(50_000)})
    assert long.order(["0"])[0] == "49999"


def test_what_depmod_wrote_is_read(tmp_path: Path) -> None:
    files = {
        "modules.dep": b"kernel/fs/fat/vfat.ko.xz: kernel/fs/fat/fat.ko.xz\nkernel/fs/fat/fat.ko.xz:\n",
        "modules.builtin": b"kernel/fs/nls/nls_iso8859-1.ko\n",
    }
    there = modules.read(pack(tmp_path / "k.tar", files))
    assert there.files == {"vfat": "lib/modules/6.1/kernel/fs/fat/vfat.ko.xz", "fat": "lib/modules/6.1/kernel/fs/fat/fat.ko.xz"}
    assert there.needs["vfat"] == ("fat",)
    assert there.built_in == {"nls_iso8859_1"}
    assert modules.read(pack(tmp_path / "none.tar", {})) == Modules()


def test_compressed_modules_come_out_plain(tmp_path: Path) -> None:
    data = b"\x7fELF" + bytes(3_000_000)
    files = {"a.ko": data, "b.ko.gz": gzip.compress(data), "c.ko.xz": lzma.compress(data), "d.ko.zst": zstandard.compress(data)}
    paths = [f"lib/modules/6.1/{name}" for name in files]
    assert modules.contents(pack(tmp_path / "k.tar", files), paths) == dict.fromkeys(paths, data)


@pytest.mark.parametrize(("name", "packed"), [("b.ko.gz", gzip.compress), ("c.ko.xz", lzma.compress), ("d.ko.zst", zstandard.compress)])
def test_broken_and_exploding_modules_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, packed: object) -> None:
    assert callable(packed)
    path = f"lib/modules/6.1/{name}"
    with pytest.raises(FarmError, match="can't be unpacked") as caught:
        modules.contents(pack(tmp_path / "broken.tar", {name: b"not packed at all"}), [path])
    assert (caught.value.problem.code, caught.value.problem.where) == (Code.BAD_ARCHIVE, path)
    monkeypatch.setattr(modules, "_LARGEST", 1000)
    with pytest.raises(FarmError, match="more than"):
        modules.contents(pack(tmp_path / "bomb.tar", {name: packed(bytes(5000))}), [path])
