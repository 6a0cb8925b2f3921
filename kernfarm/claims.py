"""What signed documents claim about an image, held against what is in it. All functions raise FarmError(BAD_DIGEST, BAD_SIGNATURE)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from kernel.errors import Code, FarmError
from kernel.signing import provenance, spdx
from kernel.signing.statement import Statement
from kernfarm.contents import Contents
from kernfarm.layers import File
from kernfarm.records import Record

_INFO, _CONFIG = "kernel-source-info", "kernel_config"


def builder_of(made: Statement) -> str:
    """The builder's id in a provenance statement; "" for none."""
    return provenance.builder_of(made.predicate)


def check_builder(made: Statement, wanted: str) -> None:
    """The provenance names a builder, and the one that is wanted ("" for any)."""
    found = builder_of(made)
    if not found:
        raise FarmError(Code.BAD_SIGNATURE, "the provenance names no builder", where="provenance")
    if wanted and found != wanted:
        raise FarmError(Code.BAD_SIGNATURE, f"built by {found!r}, expected {wanted!r}", where="provenance")


def check_booted(made: Statement) -> None:
    """The farm has booted the image, by its own word."""
    if not provenance.booted(made.predicate):
        raise FarmError(Code.BAD_SIGNATURE, "the provenance does not say that the image was booted", where="provenance")


def check_subjects(made: Statement, found: Contents) -> None:
    """Each subject is in the image under its name, and each manifest of the image is a subject."""
    inside = {file.digest for file in found.files} | {digest for digest, _, _ in found.manifests} | {found.index}
    for subject in made.subjects:
        if subject.digest not in inside:
            raise FarmError(Code.BAD_DIGEST, f"the provenance is of {subject.name} {subject.digest}, which is not in the image")
        named = {file.digest for file in found.files if file.name == subject.name}
        if named and subject.digest not in named:
            raise FarmError(Code.BAD_DIGEST, f"the provenance says {subject.digest}, the image has {min(named)}", where=subject.name)
    for digest, _, platform in found.manifests:
        if digest not in made.digests():
            raise FarmError(Code.BAD_DIGEST, f"the provenance is not of the image for {platform}", where=digest)
    missing = sorted(file.name for file in found.files if file.digest not in made.digests())
    if missing:
        raise FarmError(Code.BAD_DIGEST, f"the provenance does not name {missing[0]} of the image", where=missing[0])


def check_source(made: Statement, found: Contents) -> None:
    """kernel-source-info in the image names the source, patches and config of the provenance."""
    wanted = {
        "SOURCE_SHA256": [sha256 for _, sha256 in provenance.dependencies_of(made.predicate, provenance.SOURCE)],
        "CONFIG_DIGEST": [f"sha256:{sha256}" for _, sha256 in provenance.dependencies_of(made.predicate, provenance.CONFIG)],
        "PATCH": [f"sha256:{sha256}" for _, sha256 in provenance.dependencies_of(made.predicate, provenance.PATCH)],
    }
    for file in _named(found, _INFO):
        lines = [line.partition("=") for line in (file.text or b"").decode(errors="replace").splitlines()]
        for key, expected in wanted.items():
            values = [value.partition(" ")[0] for name, _, value in lines if name == key]
            if values != expected:
                raise FarmError(
                    Code.BAD_DIGEST,
                    f"{_INFO} says {key} {' '.join(values) or 'nothing'}, the provenance {' '.join(expected) or 'nothing'}",
                    where=_INFO,
                )


def check_config(made: Statement, found: Contents) -> None:
    """kernel_config in the image is the config of the provenance."""
    expected = [f"sha256:{sha256}" for _, sha256 in provenance.dependencies_of(made.predicate, provenance.CONFIG)]
    for file in _named(found, _CONFIG):
        if [file.digest] != expected:
            raise FarmError(Code.BAD_DIGEST, f"the image has the config {file.digest}, the provenance {' '.join(expected)}", where=_CONFIG)


def check_all(made: Sequence[Statement], what: str, found: Contents) -> None:
    """For the image of each platform there is a document about it."""
    about = {digest for each in made for digest in each.digests()}
    for digest, _, platform in found.manifests:
        if digest not in about:
            raise FarmError(Code.BAD_SIGNATURE, f"no {what} is about the image for {platform}", where=digest)


def check_record(record: Record, made: Sequence[Statement]) -> Statement:
    """What lies beside the image as a build's record, and chooses its tags, is what provenance says of that build; which is returned."""
    builds = {provenance.build_of(each.predicate): each for each in made}
    if record.build not in builds:
        known = ", ".join(sorted(builds)) or "of none"
        raise FarmError(Code.BAD_SIGNATURE, f"the record is of the build {record.build}, the provenance {known}", where=record.name)
    mine = builds[record.build]
    for what, said, signed in (
        ("release", record.release, provenance.release_of(mine.predicate)),
        ("inputs", record.inputs, provenance.inputs_of(mine.predicate)),
    ):
        if not signed:
            message = f"the provenance does not name the build's {what}, so nothing vouches for the tags"
            hint = "signed by an older kernfarm: build it again"
            raise FarmError(Code.BAD_SIGNATURE, message, where=record.name, hint=hint)
        if said != signed:
            message = f"the record's {what} {said}, the provenance's {signed}"
            raise FarmError(Code.BAD_SIGNATURE, message, where=record.name, hint="fetch the build again; the tags would be wrong ones")
    return mine


def check_sbom(made: Statement, found: Contents) -> None:
    """The bill lists the files of the image, with their digests, and no others."""
    listed = spdx.files_of(made.predicate)
    inside = {(file.name, file.digest) for file in found.files}
    wrong = sorted(set(listed.items()) - inside)
    if wrong:
        raise FarmError(Code.BAD_DIGEST, f"the SBOM lists {wrong[0][0]} with {wrong[0][1]}, which is not in the image", where=wrong[0][0])
    missing = sorted(name for name, digest in inside if listed.get(name) != digest)
    if missing:
        raise FarmError(Code.BAD_DIGEST, f"the SBOM does not list {missing[0]}", where=missing[0])


PROVENANCE_CHECKS: dict[str, Callable[[Statement, Contents], None]] = {
    "subjects": check_subjects,
    "source": check_source,
    "kernel config": check_config,
}


def _named(found: Contents, name: str) -> list[File]:
    return [file for file in found.files if file.name == name]
