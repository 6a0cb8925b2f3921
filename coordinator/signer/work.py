"""The signer's one duty: from builds' ids to signatures and signed documents in the blob store."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from coordinator.signer.evidence import Evidence, facts_of, made, record_of, refused, release_of
from coordinator.signer.keys import SigningKey
from coordinator.signer.reading import Reading
from coordinator.signer.refusals import Refusals
from coordinator.state import Build, BuildState
from kernel import oci
from kernel.codec import to_plain
from kernel.errors import Code, FarmError, Problem
from kernel.signing import attach, bundle, cosign, dsse, provenance, spdx, statement
from kernel.signing.attach import Made, Target
from kernel.signing.dsse import Envelope
from kernel.signing.provenance import BuildFacts
from kernel.signing.spdx import ImageFile
from kernel.signing.statement import Statement, Subject
from kernel.signing.times import rfc3339
from kernel.steps import Artifact, Attachment, Image, PackageResult, SignedIndex, SignResult
from kernfarm import claims, contents
from kernfarm.blobs import BlobStore
from kernfarm.contents import Contents, Fetch

# Of the store or of the machine, not of what is to be signed: those go to the coordinator as they are.
_NOT_OURS = (Code.BLOB_LOST, Code.UNAVAILABLE, Code.DISK_FULL, Code.TIMEOUT)
_SMALL = contents.DOCUMENT_BYTES

# Whether the caller has gone; asked between two chunks.
Gone = Callable[[], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Read:
    """A build's facts and its images, each with what was found in it."""

    facts: BuildFacts
    images: tuple[tuple[Image, Contents], ...]


class Signer:
    """`builder_id` says in provenance who built; `reference` is the repository that cosign's payload names."""

    def __init__(self, key: SigningKey, evidence: Evidence, blobs: BlobStore, *, builder_id: str, reference: str) -> None:
        self._key = key
        self._evidence = evidence
        self._blobs = blobs
        self._builder_id = builder_id
        self._reference = reference
        self._refusals = Refusals()

    def sign(self, build_id: str, gone: Gone = lambda: False) -> SignResult:
        """Sign what a build made. Blocks, until `gone` says that nobody waits for it. Raises FarmError: SIGNING_REFUSED, BLOB_LOST naming
        a blob that is missing or damaged, UNAVAILABLE (also when the caller has gone) and others of journal and store."""
        build = self._evidence.build(build_id)
        record, reading = record_of(build), Reading(self._blobs, gone)
        with self._refusals.about(record, reading):
            read = self._read_build(build, record, reading.fetch)
            documents = [self._documents(read.facts, image, each) for image, each in read.images]
        attached: list[Made] = []
        for (image, each), statements in zip(read.images, documents, strict=True):
            attached += self._attach(read.facts, image, each, statements)
        return SignResult(attachments=self._store(attached), record=read.facts.record)

    def sign_index(self, build_ids: Sequence[str], gone: Gone = lambda: False) -> SignedIndex:
        """Sign the index over the images of several builds, which are signed themselves. Blocks and raises as `sign`. They were read then,
        so a refusal now is not worth remembering."""
        builds = [self._evidence.build(build_id) for build_id in build_ids]
        _check_together(builds)  # before a byte is read
        reading = Reading(self._blobs, gone)
        read = [self._read_build(build, record_of(build), reading.fetch) for build in builds]
        entries: list[dict[str, Any]] = []
        for each in read:
            entries += json.loads(self._blobs.get_bytes(each.images[0][1].index, limit=_SMALL))["manifests"]
        try:
            top = oci.index_of(entries)
        except ValueError as error:
            raise refused(str(error), ", ".join(build_ids)) from error
        target = Target(media_type=oci.INDEX, digest=top.digest, size=len(top.data))
        name = f"image {read[0].images[0][0].name}"
        statements = [
            made
            for each in read
            for image, found in each.images
            for made in self._documents(each.facts, image, replace(found, index=top.digest))
        ]
        sealed = [(each.predicate_type, self._seal(each)) for each in statements]
        attached = self._signatures(target, name, sealed, max(each.facts.finished_at for each in read))
        attached.append(attach.attestations(target, sealed))
        index = Artifact(name="index", digest=self._blobs.put_bytes(top.data), size=len(top.data))
        return SignedIndex(index=index, attachments=self._store(attached))

    def _read_build(self, build: Build, record: bytes, fetch: Fetch) -> _Read:
        """A build that may be signed, with everything in its images read anew."""
        result = made(build)
        found = [self._inspect(image, build.build_id, fetch) for image in result.images]
        _check_artifacts(result, found, build.build_id, fetch)
        facts = facts_of(build, self._builder_id, self._blobs.put_bytes(record))
        return _Read(facts=facts, images=tuple(zip(result.images, found, strict=True)))

    def _store(self, attached: Sequence[Made]) -> tuple[Attachment, ...]:
        for each in attached:
            for data in each.data:
                self._blobs.put_bytes(data)
        return tuple(each.attachment for each in attached)

    def _inspect(self, image: Image, build_id: str, fetch: Fetch) -> Contents:
        """Read an image back from the store: what the journal says of it, its documents and its bytes have to agree."""
        listed = {blob.digest: blob.size for blob in image.blobs}
        if image.index not in listed or listed[image.index] > _SMALL:
            raise refused(f"the journal does not list the index of the image {image.name}", build_id)
        found = contents.inspect(self._blobs.get_bytes(image.index, limit=_SMALL), fetch)
        _raise(found.problem, f"the image {image.name}", build_id)
        if found.reached != listed:
            odd = min(set(found.reached.items()) ^ set(listed.items()))
            raise refused(f"journal and index of the image {image.name} don't agree about {odd[0]} ({odd[1]} bytes)", build_id)
        if not any((digest, platform) == (image.manifest, image.platform) for digest, _, platform in found.manifests):
            raise refused(f"the index of the image {image.name} has no {image.manifest} for {image.platform}", build_id)
        return found

    def _documents(self, facts: BuildFacts, image: Image, found: Contents) -> list[Statement]:
        """Provenance and bill of materials, held against the image as `kernfarm verify` will do it. `found.index` is what they hang on."""
        files = [ImageFile(name=each.name, digest=each.digest, sha1=each.sha1, size=each.size) for each in found.files]
        subjects = (
            Subject(name=f"image {image.name}", digest=found.index),
            *(Subject(name=f"image {image.name} {platform}", digest=digest) for digest, _, platform in found.manifests),
            *(Subject(name=each.name, digest=each.digest) for each in found.files),
        )
        origin = Statement(predicate_type=statement.PROVENANCE, subjects=subjects, predicate=provenance.predicate(facts))
        bill = Statement(
            predicate_type=statement.SPDX,
            subjects=subjects[: 1 + len(found.manifests)],
            predicate=spdx.document(facts, image.name, found.index, files),
        )
        try:
            for look in claims.PROVENANCE_CHECKS.values():
                look(origin, found)
            claims.check_sbom(bill, found)
        except FarmError as error:
            _raise(error.problem, f"the image {image.name}", facts.build_id)
        return [origin, bill]

    def _attach(self, facts: BuildFacts, image: Image, found: Contents, statements: list[Statement]) -> list[Made]:
        """Signatures of the index and of each manifest in it; documents about the index."""
        top = Target(media_type=oci.INDEX, digest=found.index, size=found.reached[found.index])
        sealed = [(each.predicate_type, self._seal(each)) for each in statements]
        done = self._signatures(top, f"image {image.name}", sealed, facts.finished_at)
        done.append(attach.attestations(top, sealed))
        for digest, size, platform in found.manifests:
            target = Target(media_type=oci.MANIFEST, digest=digest, size=size)
            done += self._signatures(target, f"image {image.name} {platform}", [], facts.finished_at)
        return done

    def _signatures(self, target: Target, name: str, sealed: list[tuple[str, Envelope]], made_at: float) -> list[Made]:
        payload = cosign.payload(target.digest, self._reference)
        plain = statement.signature_of(Subject(name=name, digest=target.digest))
        created = rfc3339(made_at)
        referrers = [
            attach.referrer(target, kind, bundle.encode(envelope, self._key.public_der), created)
            for kind, envelope in [(plain.predicate_type, self._seal(plain)), *sealed]
        ]
        return [attach.signature(target, payload, self._key.sign(payload)), *referrers, attach.fallback(target, referrers)]

    def _seal(self, made: Statement) -> Envelope:
        payload = made.encoded()
        signature = self._key.sign(dsse.pae(dsse.IN_TOTO, payload))
        return Envelope(payload_type=dsse.IN_TOTO, payload=payload, signatures=(signature,))


def _check_artifacts(result: PackageResult, found: list[Contents], build_id: str, fetch: Fetch) -> None:
    """Each file that the journal lists is the one in the image; one that is in no image is read for itself."""
    for artifact in result.artifacts:
        inside = [(file.digest, file.size) for each in found for file in each.files if file.name == artifact.name]
        if not inside:
            size = sum(len(chunk) for chunk in fetch(artifact.digest))
            if size != artifact.size:
                raise refused(f"{artifact.name} has {size} bytes, the journal says {artifact.size}", build_id)
        elif (artifact.digest, artifact.size) not in inside:
            raise refused(f"the image has another {artifact.name} than the journal: {inside[0][0]}", build_id)


def _check_together(builds: Sequence[Build]) -> None:
    """Whether there is an index over the builds, by the journal. Raises FarmError(SIGNING_REFUSED)."""
    for build in builds:
        if build.state is not BuildState.SUCCEEDED:
            raise refused(f"the build is {build.state}", build.build_id)
    platforms: set[str] = set()
    release = release_of(builds[0])
    for build in builds:
        images = made(build).images
        if len(images) != 1 or release_of(build) != release:
            raise refused(f"it is not another architecture's build of {release}", build.build_id)
        if images[0].platform in platforms:
            raise refused(f"two images for one platform, {images[0].platform}", build.build_id)
        platforms.add(images[0].platform)


def answer(result: SignResult | SignedIndex) -> dict[str, object]:
    """The result as the message that is sent."""
    plain: dict[str, object] = to_plain(result)
    return plain


def _raise(problem: Problem | None, what: str, build_id: str) -> None:
    if problem is None:
        return
    if problem.code in _NOT_OURS:
        raise FarmError.of(problem)
    place = f"{problem.where}: " if problem.where else ""
    raise refused(f"{what}: {place}{problem.message}", build_id)
