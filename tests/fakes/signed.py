"""A signed image as a layout on disk, and hands to change it: with no key, with the farm's, or with another."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec

from coordinator import views
from coordinator.journal_reader import JournalReader
from coordinator.signer.evidence import Evidence
from coordinator.signer.keys import SigningKey
from coordinator.signer.work import Signer
from kernel import digest as digests
from kernel import oci
from kernel.signing import attach, bundle, cosign, dsse, statement
from kernel.signing.attach import Made, Target
from kernel.signing.dsse import Envelope
from kernel.signing.statement import Statement
from kernel.steps import SignedIndex, SignResult
from kernfarm import layout
from kernfarm.wire import from_struct, to_struct
from tests.fakes.built import FakeBuild

BUILDER = "urn:kernfarm:builder:test"
REFERENCE = "docker.io/linuxkit/kernel"


def new_key() -> SigningKey:
    return SigningKey(ec.generate_private_key(ec.SECP256R1()))


def signer(build: FakeBuild, key: SigningKey) -> Signer:
    """The signer's duty in this process, over a build's journal and blobs."""
    evidence = Evidence(JournalReader(build.journal_url))
    return Signer(key, evidence, build.blobs, builder_id=BUILDER, reference=REFERENCE)


def fetch(build: FakeBuild, signed: SignResult, folder: Path) -> Layout:
    """What `kernfarm fetch` writes."""
    blobs = [*build.image.blobs, *(blob for each in signed.attachments for blob in (each.manifest, *each.blobs))]
    (folder / "blobs" / "sha256").mkdir(parents=True)
    for blob in blobs:
        build.blobs.get_file(blob.digest, layout.blob_path(folder, blob.digest))
    layout.finish(folder, build.image.index, reference=f"{REFERENCE}:6.1.999", attachments=signed.attachments)
    write_record(build, folder / "result.json")
    return Layout(folder)


def write_record(build: FakeBuild, to: Path) -> None:
    """The record as it comes over the wire: all its numbers are floats."""
    to.write_text(json.dumps(from_struct(to_struct(views.result_record(build.state)))))


def two_builds(home: Path, key: SigningKey) -> tuple[list[FakeBuild], SignedIndex, Layout]:
    """Signed builds of one kernel for two architectures, and the layout that `kernfarm fetch` of both writes."""
    arm64 = {"kernel": b"an arm64 kernel", "kernel.tar": b"its modules"}
    builds = [
        FakeBuild(home, build_id="20260101-000000-aaaaaa"),
        FakeBuild(home, build_id="20260101-000000-bbbbbb", platform="linux/arm64", files=arm64),
    ]
    results = []
    for build in builds:
        journal = build.play()
        results.append(signer(build, key).sign(build.build_id))
        build.sign(journal, results[-1])
        journal.close()
    made = signer(builds[0], key).sign_index([build.build_id for build in builds])
    folder = home / "both"
    (folder / "blobs" / "sha256").mkdir(parents=True)
    attachments = [each for result in (*results, made) for each in result.attachments]
    blobs = [blob for build in builds for blob in build.image.blobs]
    for blob in [*blobs, *(blob for each in attachments for blob in (each.manifest, *each.blobs))]:
        builds[0].blobs.get_file(blob.digest, layout.blob_path(folder, blob.digest))
    assert layout.unite(folder, [build.image.index for build in builds]) == made.index.digest
    layout.finish(folder, made.index.digest, reference=f"{REFERENCE}:6.1.999", attachments=attachments)
    for build in builds:
        write_record(build, folder / f"result-{build.arch}.json")
    return builds, made, Layout(folder)


@dataclass(slots=True)
class Layout:
    """A layout that can be changed."""

    folder: Path

    @property
    def index(self) -> dict[str, Any]:
        body: dict[str, Any] = json.loads((self.folder / "index.json").read_text())
        return body

    def edit(self, change: Callable[[list[dict[str, Any]]], None]) -> None:
        """Change index.json's list of manifests."""
        body = self.index
        change(body["manifests"])
        (self.folder / "index.json").write_text(json.dumps(body))

    @property
    def image(self) -> str:
        return str(self.index["manifests"][0]["digest"])

    @property
    def target(self) -> Target:
        return Target(media_type=oci.INDEX, digest=self.image, size=len(self.read(self.image)))

    def path(self, digest: str) -> Path:
        return layout.blob_path(self.folder, digest)

    def read(self, digest: str) -> bytes:
        return self.path(digest).read_bytes()

    def json(self, digest: str) -> Any:
        return json.loads(self.read(digest))

    def put(self, data: bytes) -> str:
        digest = digests.of_bytes(data)
        self.path(digest).write_bytes(data)
        return digest

    def platform_manifest(self) -> str:
        return str(self.json(self.image)["manifests"][0]["digest"])

    def tagged(self, tag: str) -> str:
        """The digest behind a tag."""
        notes = [(each.get("annotations", {}).get("org.opencontainers.image.ref.name"), each["digest"]) for each in self.index["manifests"]]
        return str(dict(notes)[tag])

    def remove(self, wanted: Callable[[dict[str, Any]], bool]) -> None:
        """Take entries out of index.json."""

        def change(entries: list[dict[str, Any]]) -> None:
            kept = [entry for entry in entries if not wanted(entry)]
            assert len(kept) < len(entries), "nothing was removed"
            entries[:] = kept

        self.edit(change)

    def add(self, made: Made) -> None:
        """Attach something, in place of what has the same tag."""
        for data in made.data:
            self.put(data)
        attachment = made.attachment
        entry: dict[str, Any] = {
            "mediaType": attachment.media_type,
            "digest": attachment.manifest.digest,
            "size": attachment.manifest.size,
        }
        if attachment.artifact_type:
            entry["artifactType"] = attachment.artifact_type
        if attachment.tag:
            entry["annotations"] = {"org.opencontainers.image.ref.name": attachment.tag}

        def change(entries: list[dict[str, Any]]) -> None:
            tagged = [each for each in entries if not attachment.tag or each.get("annotations") != entry.get("annotations")]
            entries[:] = [*tagged, entry]

        self.edit(change)

    def is_referrer(self, entry: dict[str, Any], kind: str) -> bool:
        """Whether an entry is a bundle about the image's index, of that predicate type."""
        if entry.get("artifactType") != bundle.MEDIA_TYPE:
            return False
        body = self.json(entry["digest"])
        return body["subject"]["digest"] == self.image and body["annotations"][bundle.PREDICATE_ANNOTATION] == kind

    def envelope(self, kind: str) -> Envelope:
        """The sealed document of a predicate type, from its bundle."""
        entry = next(each for each in self.index["manifests"] if self.is_referrer(each, kind))
        return bundle.parse(self.read(self.json(entry["digest"])["layers"][0]["digest"]))

    def statement(self, kind: str) -> Statement:
        return statement.parse(self.envelope(kind).payload)

    def replace(self, kind: str, envelope: Envelope | None, key: SigningKey) -> None:
        """Another sealed document of that type (None: none) in all places where it hangs."""
        target = self.target
        envelopes = {each: self.envelope(each) for each in (statement.COSIGN_SIGNATURE, statement.PROVENANCE, statement.SPDX)}
        if envelope is None:
            del envelopes[kind]
        else:
            envelopes[kind] = envelope
        self.remove(lambda entry: self.is_referrer(entry, kind))
        made = {
            each: attach.referrer(target, each, bundle.encode(sealed, key.public_der), "2026-01-01T00:00:00Z")
            for each, sealed in envelopes.items()
        }
        if envelope is not None:
            self.add(made[kind])
        self.add(attach.attestations(target, [(each, sealed) for each, sealed in envelopes.items() if each != statement.COSIGN_SIGNATURE]))

        def unlist(entries: list[dict[str, Any]]) -> None:
            entries[:] = [each for each in entries if each.get("annotations", {}).get(_REF) != cosign.referrers_tag(target.digest)]

        self.edit(unlist)

    def restate(self, kind: str, key: SigningKey, change: Callable[[Statement], Statement]) -> None:
        """Change what a document says, and seal it with a key."""
        self.replace(kind, seal(change(self.statement(kind)), key), key)


_REF = "org.opencontainers.image.ref.name"


def seal(made: Statement, key: SigningKey, kind: str = dsse.IN_TOTO) -> Envelope:
    payload = made.encoded()
    return Envelope(payload_type=kind, payload=payload, signatures=(key.sign(dsse.pae(kind, payload)),))


def with_predicate(made: Statement, change: Callable[[dict[str, Any]], None]) -> Statement:
    predicate = copy.deepcopy(made.predicate)
    change(predicate)
    return Statement(predicate_type=made.predicate_type, subjects=made.subjects, predicate=predicate)
