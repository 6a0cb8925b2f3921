"""Packages of builds that are not what the journal says of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from kernel.steps import Artifact
from tests.fakes.built import FakeBuild


def lie_about_size(build: FakeBuild) -> None:
    blobs = tuple(replace(blob, size=blob.size + 1) if blob.name == "layer-0" else blob for blob in build.image.blobs)
    repackage(build, blobs=blobs)


def name_another_blob(build: FakeBuild) -> None:
    extra = Artifact(name="layer-9", digest=build.blobs.put_bytes(b"extra"), size=5)
    repackage(build, blobs=(*build.image.blobs, extra))


def name_no_index(build: FakeBuild) -> None:
    repackage(build, blobs=tuple(blob for blob in build.image.blobs if blob.name != "index"))


def repackage(build: FakeBuild, **changes: Any) -> None:
    build.packaged = replace(build.packaged, images=(replace(build.image, **changes),))


def another_artifact(build: FakeBuild) -> None:
    made = Artifact(name="kernel", digest=build.blobs.put_bytes(b"mine"), size=4)
    build.packaged = replace(build.packaged, artifacts=(made, *build.packaged.artifacts[1:]))


def artifact_of_another_size(build: FakeBuild) -> None:
    made = Artifact(name="vmlinux", digest=build.blobs.put_bytes(b"mine"), size=5)
    build.packaged = replace(build.packaged, artifacts=(*build.packaged.artifacts, made))


LIES: dict[str, tuple[Callable[[FakeBuild], None], str]] = {
    "another size": (lie_about_size, "don't agree"),
    "a blob that the index does not lead to": (name_another_blob, "don't agree"),
    "no index": (name_no_index, "does not list the index"),
    "another platform": (lambda build: repackage(build, platform="linux/arm64"), "linux/arm64"),
    "another manifest": (lambda build: repackage(build, manifest=build.image.index), "has no"),
    "another artifact": (another_artifact, "another kernel than the journal"),
    "an artifact of another size": (artifact_of_another_size, "vmlinux has 4 bytes"),
    "no image": (lambda build: setattr(build, "packaged", replace(build.packaged, images=())), "no image"),
}
