"""Codec, digests, tables, errors, OCI documents: small pure parts."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel import digest, elf, make, oci, tables
from kernel.codec import CodecError, canonical, from_plain, to_plain
from kernel.errors import HANDLING, Code, FarmError, Fault
from kernel.spec import ConfigSpec, NamedBlob, RequestSpec, SourceKind, SourceSpec, expand
from kernel.steps import RESULTS, TASKS, Attempt, StepKind

specs = st.builds(
    RequestSpec,
    source=st.builds(SourceSpec, kind=st.sampled_from(SourceKind), ref=st.text(max_size=9), digest=st.text(max_size=9)),
    arches=st.lists(st.text(max_size=5), max_size=3).map(tuple),
    config=st.builds(ConfigSpec, file=st.none() | st.builds(NamedBlob, name=st.text(max_size=5), digest=st.text(max_size=5))),
    patches=st.lists(st.builds(NamedBlob, name=st.text(max_size=5), digest=st.text(max_size=5)), max_size=3).map(tuple),
)


@given(specs)
def test_specifications_survive_their_plain_form(spec: RequestSpec) -> None:
    assert from_plain(RequestSpec, json.loads(canonical(spec))) == spec


@given(specs)
def test_every_task_survives_inside_an_attempt(spec: RequestSpec) -> None:
    task = TASKS[StepKind.SOURCE](source=spec.source)  # type: ignore[call-arg]
    attempt = Attempt(attempt_id="a", build_id="b", kind=StepKind.SOURCE, task=task, domain="d", jobs=2, timeout_seconds=3)
    assert from_plain(Attempt, json.loads(json.dumps(to_plain(attempt)))) == attempt


def test_unknown_fields_and_wrong_types_are_refused_with_their_path() -> None:
    with pytest.raises(CodecError, match="unknown field 'more'"):
        from_plain(NamedBlob, {"name": "x", "digest": "y", "more": 1})
    with pytest.raises(CodecError, match=r"RequestSpec\.source\.kind"):
        from_plain(RequestSpec, {"source": {"kind": "tape", "ref": "x"}, "arches": []})


def test_every_kind_of_step_has_task_and_result() -> None:
    assert set(TASKS) == set(RESULTS) == set(StepKind)


def test_every_code_is_handled_and_faults_have_their_exit_codes() -> None:
    assert set(HANDLING) == set(Code)
    expected = {Fault.USER: 2, Fault.KERNEL: 3, Fault.INFRASTRUCTURE: 4, Fault.BUG: 1}
    assert all(handling.exit_code == expected[handling.fault] for handling in HANDLING.values())


def test_what_is_mutable() -> None:
    def mutable(kind: SourceKind, ref: str) -> bool:
        return SourceSpec(kind=kind, ref=ref).mutable

    assert mutable(SourceKind.DEBIAN, "6.1")
    assert not mutable(SourceKind.DEBIAN, "6.1=6.1.192-1")
    assert mutable(SourceKind.GIT, "https://x/y@master")
    assert not mutable(SourceKind.GIT, "https://x/y@" + "a" * 40)
    assert not mutable(SourceKind.KERNEL_ORG, "6.1.192")


def test_a_request_expands_into_arch_times_flavour() -> None:
    request = RequestSpec(source=SourceSpec(kind=SourceKind.DEBIAN, ref="6.1"), arches=("a", "b"), flavours=("p", "q"))
    assert [(build.arch, build.flavour) for build in expand(request, "t")] == [("a", "p"), ("a", "q"), ("b", "p"), ("b", "q")]


@pytest.mark.parametrize("table", ["arch", "toolchain", "flavour"])
def test_each_row_of_each_table_can_be_read(table: str) -> None:
    read = {"arch": tables.arch, "toolchain": tables.toolchain, "flavour": tables.flavour}[table]
    assert tables.names(table)
    assert all(read(name).name == name for name in tables.names(table))


def test_every_toolchain_makes_only_known_architectures_and_says_what_a_worker_needs_for_them() -> None:
    for name in tables.names("toolchain"):
        for arch, target in tables.toolchain(name).targets.items():
            assert tables.arch(arch).name == arch
            assert target.packages
            assert not any("{" in program for program in tables.programs(arch, name))


def test_how_make_is_called_follows_from_architecture_and_toolchain() -> None:
    def words(arch: str, toolchain: str) -> list[str]:
        return [word for word in make.command(("modules",), arch=arch, toolchain=toolchain) if "=" in word and not word.startswith("O=")]

    assert words("x86_64", "gcc-12") == ["ARCH=x86_64", "CC=gcc-12", "HOSTCC=gcc-12"]
    prefix = "aarch64-linux-gnu-"
    assert words("arm64", "gcc-12") == ["ARCH=arm64", f"CC={prefix}gcc-12", "HOSTCC=gcc-12", f"CROSS_COMPILE={prefix}"]
    assert words("arm64", "clang-14") == ["ARCH=arm64", "CC=clang-14", "HOSTCC=clang-14", "LLVM=-14"]
    line = make.reproduce(arch="arm64", toolchain="gcc-12", config="sha256:c")
    assert f"CROSS_COMPILE={prefix} Image.gz modules dtbs" in line


@pytest.mark.parametrize(
    ("data", "machine"),
    [
        (b"\x7fELF\x02\x01" + bytes(12) + b"\xb7\x00", 183),
        (b"\x7fELF\x02\x02" + bytes(12) + b"\x00\x16", 22),
        (b"\x7fELF\x02\x01" + bytes(13), 0),
        (b"#!/bin/sh\n" + bytes(20), 0),
    ],
)
def test_what_a_program_is_for(data: bytes, machine: int) -> None:
    assert elf.machine(data) == machine


def test_unknown_words_get_the_nearest_known_one() -> None:
    with pytest.raises(FarmError, match="did you mean 'x86_64'"):
        tables.arch("x86-64")
    with pytest.raises(FarmError, match="known: kernel"):
        tables.output("pizza")


def layer(name: str) -> oci.Layer:
    return oci.Layer(digest=digest.of_bytes(name.encode()), size=3, diff_id=digest.of_bytes(b"t" + name.encode()), holds=name)


def test_an_image_is_the_same_bytes_each_time_and_every_descriptor_has_a_platform() -> None:
    one = oci.ImageSpec(platform="linux/amd64", layers=(layer("a"), layer("b")), labels={"x": "1"})
    two = oci.ImageSpec(platform="linux/arm64", layers=(layer("a"),))
    assert oci.index([one, two]).digest == oci.index([two, one]).digest
    body = json.loads(oci.index([one, two]).data)
    assert [entry["platform"]["architecture"] for entry in body["manifests"]] == ["amd64", "arm64"]
    manifest = json.loads(oci.manifest(one).data)
    assert manifest["config"]["digest"] == oci.config(one).digest
    config = json.loads(oci.config(one).data)
    assert config["rootfs"]["diff_ids"] == [layer("a").diff_id, layer("b").diff_id]
    assert "Cmd" not in config["config"]
    assert "Entrypoint" not in config["config"]
    with pytest.raises(ValueError, match="two images for one platform"):
        oci.index([one, one])


@given(st.permutations(["linux/amd64", "linux/arm64", "linux/riscv64"]))
def test_indexes_of_single_images_put_together_are_the_index_of_all(platforms: list[str]) -> None:
    images = [oci.ImageSpec(platform=platform, layers=(layer(platform),)) for platform in platforms]
    entries = [entry for image in images for entry in json.loads(oci.index([image]).data)["manifests"]]
    assert oci.index_of(entries) == oci.index(images)


def test_layout_names_are_there_for_both_tools() -> None:
    top = oci.index([oci.ImageSpec(platform="linux/amd64", layers=())])
    entry = json.loads(oci.layout(top, reference="docker.io/a/kernel:1")["index.json"])["manifests"][0]
    assert entry["digest"] == top.digest
    assert set(entry["annotations"]) == {"io.containerd.image.name", "org.opencontainers.image.ref.name"}
