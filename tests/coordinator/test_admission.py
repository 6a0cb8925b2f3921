"""What is refused at submit, with a real blob store."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from coordinator import admission
from coordinator.fleet import WorkerInfo
from kernel import digest
from kernel.errors import Code, FarmError, Problem
from kernel.spec import ArchConfig, ConfigSpec, NamedBlob, OwnFlavour, RequestSpec, SourceKind, SourceSpec
from kernfarm.blobs import BlobStore

WORKER = WorkerInfo(
    worker_id="w",
    name="worker-1",
    arches=("x86_64",),
    toolchains=("gcc-12",),
    slots=1,
    jobs=1,
    memory_bytes=1 << 30,
    sandbox="bubblewrap",
    cgroup="v2",
    ccache="4",
    boots=("x86_64",),
    builds=("x86_64/gcc-12",),
)
ABSENT = digest.of_bytes(b"never uploaded")
GIT = RequestSpec(source=SourceSpec(kind=SourceKind.GIT, ref="https://example.org/linux.git@v6.1"), arches=("x86_64",))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore.open(f"file://{tmp_path}/blobs")


def refused(spec: RequestSpec, blobs: BlobStore) -> Problem:
    with pytest.raises(FarmError) as caught:
        admission.check(spec, blobs, [WORKER])
    return caught.value.problem


def file_source(name: str, uploaded: str) -> RequestSpec:
    return replace(GIT, source=SourceSpec(kind=SourceKind.FILE, ref=name, digest=uploaded))


def test_an_uploaded_source_is_fine(blobs: BlobStore) -> None:
    admission.check(file_source("linux 6.1.tar", blobs.put_bytes(b"a tarball")), blobs, [WORKER])


@pytest.mark.parametrize("text", ["garbage", "../../etc/passwd", ABSENT.upper(), ABSENT + "0", ABSENT + "\n"])
def test_a_source_with_a_digest_that_is_none_is_refused(blobs: BlobStore, text: str) -> None:
    problem = refused(file_source("linux.tar", text), blobs)
    assert (problem.code, problem.where) == (Code.INVALID_ARGUMENT, "source")


def test_a_source_that_was_never_uploaded_is_refused(blobs: BlobStore) -> None:
    problem = refused(file_source("linux.tar", ABSENT), blobs)
    assert (problem.code, problem.where) == (Code.MISSING_FILE, "linux.tar")


@pytest.mark.parametrize("name", ["a\nURL: https://evil", "a\x1b[2J", "a\u2028b", "a\x00", "x" * 1001])
@pytest.mark.parametrize("place", ["source", "git", "fragment", "patch", "base"])
def test_names_that_would_write_more_than_a_name_are_refused(blobs: BlobStore, place: str, name: str) -> None:
    file = NamedBlob(name=name, digest=blobs.put_bytes(b""))
    spec = {
        "source": file_source(name, file.digest),
        "git": replace(GIT, source=SourceSpec(kind=SourceKind.GIT, ref=f"https://example.org/{name}@v6.1")),
        "fragment": replace(GIT, config=ConfigSpec(fragments=(file,))),
        "patch": replace(GIT, patches=(file,)),
        "base": replace(GIT, config=ConfigSpec(base="file", file=file)),
    }[place]
    problem = refused(spec, blobs)
    assert problem.code is Code.INVALID_ARGUMENT
    assert problem.where in ("source", "file name")
    assert str(problem).isprintable()


@pytest.mark.parametrize(
    "ref",
    [
        "https://user:s3cret@example.org/linux.git@v6.1",
        "https://s3cret@example.org/linux.git@v6.1",
        "HTTPS://s3cret@example.org/linux.git@v6.1",
        "https:///x:s3cret@example.org/linux.git@v6.1",
        "https://user:s3cret@example.org/linux.git",
        "http://user:p@s3cret@example.org/linux.git@v6.1",
        "ssh://git:s3cret@example.org/linux.git@v6.1",
    ],
)
def test_a_token_in_a_git_address_is_refused_and_not_repeated(blobs: BlobStore, ref: str) -> None:
    problem = refused(replace(GIT, source=SourceSpec(kind=SourceKind.GIT, ref=ref)), blobs)
    assert (problem.code, problem.where) == (Code.INVALID_ARGUMENT, "source")
    assert "s3cret" not in str(problem)
    assert problem.hint


@pytest.mark.parametrize(
    "ref",
    ["https://example.org/linux.git@v6.1", "https://example.org:8443/a@b/linux@v6.1", "ssh://git@example.org/x@v1", "file:///srv/a@v1"],
)
def test_git_addresses_without_a_secret_are_fine(blobs: BlobStore, ref: str) -> None:
    admission.check(replace(GIT, source=SourceSpec(kind=SourceKind.GIT, ref=ref)), blobs, [WORKER])


@pytest.mark.parametrize("text", ["-a+b", "-a~b", "-a b", "-é", "-x\n", "-" * 41])
def test_a_local_version_that_can_be_in_no_tag_is_refused(blobs: BlobStore, text: str) -> None:
    problem = refused(replace(GIT, local_version=text), blobs)
    assert (problem.code, problem.where) == (Code.INVALID_ARGUMENT, "local_version")


@pytest.mark.parametrize("text", ["", "-linuxkit", "_a.b-1"])
def test_other_local_versions_are_fine(blobs: BlobStore, text: str) -> None:
    admission.check(replace(GIT, local_version=text), blobs, [WORKER])


def own(**words: Any) -> RequestSpec:
    flavour = OwnFlavour(**{"name": "foo", "suffix": "-foo", **words})
    return replace(GIT, flavours=(flavour.name,), own_flavours=(flavour,))


@pytest.mark.parametrize(
    "spec",
    [
        own(name="dbg"),
        own(name="Foo"),
        own(name="a/b"),
        own(suffix="foo"),
        own(suffix="-dbg"),
        own(suffix="-a b"),
        own(suffix="-" + "x" * 39),
        replace(own(), flavours=("plain",)),
        replace(GIT, arch_configs=(ArchConfig(arch="arm64"),)),
    ],
)
def test_flavours_and_configurations_that_could_not_be_told_apart_or_are_not_built_are_refused(blobs: BlobStore, spec: RequestSpec) -> None:
    assert refused(spec, blobs).code is Code.INVALID_ARGUMENT


def test_a_flavour_that_extends_none_of_the_farms_is_refused(blobs: BlobStore) -> None:
    assert refused(own(extends="dgb"), blobs).code is Code.UNKNOWN_VALUE


@pytest.mark.parametrize("place", ["own", "arch", "base", "arch base"])
def test_fragments_are_read_wherever_they_stand(blobs: BlobStore, place: str) -> None:
    bad = (NamedBlob(name="bad.config", digest=blobs.put_bytes(b'CONFIG_INITRAMFS_SOURCE="/etc"\n')),)
    spec = {
        "own": own(fragments=bad),
        "arch": replace(GIT, arch_configs=(ArchConfig(arch="x86_64", fragments=bad),)),
        "base": replace(GIT, config=ConfigSpec(base_fragments=bad)),
        "arch base": replace(GIT, arch_configs=(ArchConfig(arch="x86_64", base_fragments=bad),)),
    }[place]
    assert refused(spec, blobs).code is Code.UNSAFE_CONFIG


def test_a_flavour_of_the_users_own_is_fine(blobs: BlobStore) -> None:
    admission.check(own(extends="dbg"), blobs, [WORKER])


def test_no_worker_that_can_boot_it_is_refused_unless_no_boot_is_wanted(blobs: BlobStore) -> None:
    without = replace(WORKER, boots=())
    with pytest.raises(FarmError) as caught:
        admission.check(GIT, blobs, [without])
    assert caught.value.problem.code is Code.NO_WORKER
    admission.check(replace(GIT, skip_boot=True), blobs, [without])


def test_an_architecture_that_no_worker_can_build_is_refused_with_what_would_make_it_possible(blobs: BlobStore) -> None:
    problem = refused(replace(GIT, arches=("x86_64", "arm64")), blobs)
    assert (problem.code, problem.where) == (Code.NO_WORKER, "arch")
    assert "arm64 with gcc-12" in problem.message
    for package in ("gcc-12-aarch64-linux-gnu", "libc6-dev-arm64-cross", "qemu-system-arm"):
        assert package in problem.hint
    able = replace(WORKER, builds=("arm64/gcc-12", "x86_64/gcc-12"), boots=("arm64", "x86_64"))
    admission.check(replace(GIT, arches=("x86_64", "arm64")), blobs, [able])
