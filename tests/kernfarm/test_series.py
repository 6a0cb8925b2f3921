from __future__ import annotations

from pathlib import Path

import pytest

from kernel import kconfig
from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec, expand
from kernfarm import request, series
from kernfarm.request import Draft


@pytest.mark.parametrize(
    ("kind", "ref", "name"),
    [
        (SourceKind.KERNEL_ORG, "6.1.192", "6.1.x"),
        (SourceKind.KERNEL_ORG, "6.12", "6.12.x"),
        (SourceKind.DEBIAN, "6.1", "6.1.x"),
        (SourceKind.DEBIAN, "6.12=6.12.43-1~bpo12+1", "6.12.x"),
        (SourceKind.GIT, "https://example.org/linux.git@v6.1.3", "6.1.x"),
        (SourceKind.GIT, "https://example.org/linux.git@v6.12-rc1", "6.12.x"),
    ],
)
def test_a_source_tells_its_series(kind: SourceKind, ref: str, name: str) -> None:
    assert series.of_source(SourceSpec(kind=kind, ref=ref)) == name


@pytest.mark.parametrize(
    "source",
    [
        SourceSpec(kind=SourceKind.FILE, ref="linux-6.1.tar.xz", digest="sha256:0"),
        SourceSpec(kind=SourceKind.GIT, ref="https://example.org/linux.git@main"),
    ],
)
def test_one_that_does_not_is_refused_with_the_mend(source: SourceSpec) -> None:
    with pytest.raises(FarmError) as caught:
        series.of_source(source)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert "--series" in caught.value.problem.hint


@pytest.mark.parametrize("name", series.names())
def test_shipped_series_are_whole_and_in_their_own_words_consistent(name: str) -> None:
    found = series.load(name)
    assert set(found.arch_configs) == {"x86_64", "arm64"}
    for path in (found.config, *found.arch_configs.values()):
        options = kconfig.parse(path.read_text(), path.name)
        kconfig.refuse_unsafe(kconfig.merge([options]))
        assert len({option.symbol for option in options}) == len(options)


def test_an_unknown_series_is_refused_with_the_nearest() -> None:
    with pytest.raises(FarmError) as caught:
        series.load("6.1")
    assert "6.1.x" in caught.value.problem.hint


def test_a_series_is_the_base_and_the_users_words_go_on_top(tmp_path: Path) -> None:
    (tmp_path / "my.config").write_text("CONFIG_X=y\n")
    (tmp_path / "arm.config").write_text("CONFIG_Y=y\n")
    (tmp_path / "foo.config").write_text("CONFIG_Z=y\n")
    (tmp_path / "kernfarm.yaml").write_text(
        """
source: debian:6.1
arch: [x86_64]
flavours: [plain, dbg, {name: foo, extends: dbg, fragments: [foo.config]}]
config: {base: series, fragments: [my.config], x86_64: [arm.config]}
"""
    )
    prepared = request.prepare(request.read_file(tmp_path / "kernfarm.yaml"))
    plain, dbg, foo = expand(prepared.spec, domain="t")
    assert plain.config.base == "defconfig"
    assert [blob.name for blob in plain.config.base_fragments] == ["config", "config-x86_64"]
    assert [blob.name for blob in plain.config.fragments] == ["my.config", "arm.config"]
    assert [blob.name for blob in foo.config.fragments] == ["foo.config", "my.config", "arm.config"]
    assert (plain.base_flavour, dbg.base_flavour, foo.base_flavour) == ("plain", "dbg", "dbg")
    assert (foo.flavour, foo.local_version) == ("foo", "-linuxkit-foo")
    assert {blob.digest for build in (plain, dbg, foo) for blob in (*build.config.fragments, *build.config.base_fragments)} == set(
        prepared.uploads
    )


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("flavours: [{fragments: [x]}]", "flavours"),
        ("flavours: [{name: foo, colour: red}]", "flavours"),
        ("config: {riscv: [x]}", "config"),
        ("boot: maybe", "boot"),
    ],
)
def test_wrong_words_are_refused_with_their_place(tmp_path: Path, text: str, where: str) -> None:
    path = tmp_path / "kernfarm.yaml"
    path.write_text(f"source: debian:6.1\n{text}\n")
    with pytest.raises(FarmError) as caught:
        request.read_file(path)
    assert where in caught.value.problem.where


def test_a_series_that_is_not_there_for_a_source_is_named() -> None:
    with pytest.raises(FarmError) as caught:
        request.prepare(Draft(source="debian:4.19", base="series"))
    assert caught.value.problem.code is Code.UNKNOWN_VALUE
