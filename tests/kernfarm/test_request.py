from __future__ import annotations

import hashlib
from pathlib import Path

import pytest

from kernel.errors import Code, FarmError
from kernel.spec import SourceKind
from kernfarm import request
from kernfarm.request import Draft


def digest(data: bytes) -> str:
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


def test_a_whole_file(tmp_path: Path) -> None:
    (tmp_path / "patches").mkdir()
    (tmp_path / "patches/0002-b.patch").write_bytes(b"b")
    (tmp_path / "patches/0001-a.patch").write_bytes(b"a")
    (tmp_path / "patches/README").write_bytes(b"no patch")
    (tmp_path / "my.config").write_bytes(b"CONFIG_X=y\n")
    path = tmp_path / "kernfarm.yaml"
    path.write_text(
        "source: debian:6.1\narch: [x86_64]\nconfig: {base: tinyconfig, fragments: [my.config]}\npatches: patches\ntoolchain: gcc-12\n"
    )
    prepared = request.prepare(request.read_file(path))
    assert prepared.spec.source.kind is SourceKind.DEBIAN
    assert prepared.spec.config.base == "tinyconfig"
    assert [fragment.digest for fragment in prepared.spec.config.fragments] == [digest(b"CONFIG_X=y\n")]
    assert [patch.name for patch in prepared.spec.patches] == ["0001-a.patch", "0002-b.patch"]
    assert prepared.uploads[digest(b"a")].read_bytes() == b"a"


def test_flags_win_and_count_from_the_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "here.config").write_text("CONFIG_X=y\n")
    monkeypatch.chdir(tmp_path)
    draft = Draft(source="debian:6.1", folder=Path("/elsewhere"))
    draft = request.override(draft, {"fragments": (Path("here.config"),), "toolchain": None, "source": "debian:6.12", "unrelated": 1})
    prepared = request.prepare(draft)
    assert prepared.spec.source.ref == "6.12"
    assert prepared.spec.toolchain == "gcc-12"
    assert prepared.spec.config.fragments[0].name == "here.config"


def test_a_config_file_as_base_and_a_tarball(tmp_path: Path) -> None:
    (tmp_path / "full.config").write_bytes(b"CONFIG_Y=y\n")
    (tmp_path / "linux.tar.xz").write_bytes(b"tar")
    prepared = request.prepare(Draft(source="file:linux.tar.xz", base="full.config", folder=tmp_path))
    assert prepared.spec.config.base == "file"
    assert prepared.spec.config.file is not None
    assert prepared.spec.source.digest == digest(b"tar")


@pytest.mark.parametrize(
    ("text", "code", "said"),
    [
        ("sorce: debian:6.1", Code.UNKNOWN_VALUE, "did you mean 'source'"),
        ("source: debain:6.1", Code.INVALID_ARGUMENT, "did you mean debian:6.1"),
        ("source: debian", Code.INVALID_ARGUMENT, "names no source"),
        ("source: [debian:6.1]", Code.INVALID_ARGUMENT, "expected a word"),
        ("source: debian:6.1\nconfig: {fragment: x}", Code.UNKNOWN_VALUE, "did you mean 'fragments'"),
        ("source: debian:6.1\nconfig: {base: defconfg}", Code.MISSING_FILE, "did you mean 'defconfig'"),
        ("source: debian:6.1\nconfig: {fragments: none.config}", Code.MISSING_FILE, "none.config"),
        ("source: file:none.tar.xz", Code.MISSING_FILE, "none.tar.xz"),
        ("source: debian:6.1\npatches: [none.patch]", Code.MISSING_FILE, "none.patch"),
        ("source: debian:6.1\npatches: .", Code.MISSING_FILE, "no *.patch"),
        ("- a", Code.INVALID_ARGUMENT, "expected a mapping"),
        ("a: {", Code.INVALID_ARGUMENT, "not YAML"),
    ],
)
def test_bad_requests_name_the_thing_and_the_mend(text: str, code: Code, said: str, tmp_path: Path) -> None:
    path = tmp_path / "kernfarm.yaml"
    path.write_text(text)
    with pytest.raises(FarmError) as caught:
        request.prepare(request.read_file(path))
    assert caught.value.problem.code is code
    assert said in str(caught.value)
