"""Ways to tamper with a signed image, for whoever has no key, another one, or the farm's."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from coordinator.signer.keys import SigningKey
from kernel import digest as digests
from kernel import oci
from kernel.signing import attach, bundle, cosign, dsse, statement
from kernel.signing.dsse import Envelope
from kernel.signing.statement import PROVENANCE, SPDX, Subject
from tests.fakes.built import layer
from tests.fakes.signed import REFERENCE, Layout, new_key, seal, with_predicate

_REF = "org.opencontainers.image.ref.name"
KEY = new_key()
STRANGER = new_key()

# Each takes an image and the other signed image; behind it what the report has to name: a check, and words of its problem.
Tamper = Callable[[Layout, Layout], None]


def flip(image: Layout, digest: str, at: int = -1) -> None:
    data = bytearray(image.read(digest))
    data[at] ^= 1
    image.path(digest).write_bytes(bytes(data))


def rebuild(image: Layout, change: Callable[[dict[str, Any], dict[str, Any], dict[str, Any]], None]) -> None:
    """Change index, manifest and config, and make all digests fit again: only a signature can tell."""
    index = image.json(image.image)
    manifest = image.json(index["manifests"][0]["digest"])
    config = image.json(manifest["config"]["digest"])
    change(index, manifest, config)
    data = json.dumps(config).encode()
    manifest["config"] |= {"digest": image.put(data), "size": len(data)}
    data = json.dumps(manifest).encode()
    index["manifests"][0] |= {"digest": image.put(data), "size": len(data)}
    put_index(image, index)


def put_index(image: Layout, index: dict[str, Any]) -> None:
    data = json.dumps(index).encode()
    digest = image.put(data)
    image.edit(lambda entries: entries[0].update({"digest": digest, "size": len(data)}))


def sign_index(image: Layout) -> None:
    """The farm's own signature over whatever index there is: what is wrong inside has to be noticed by itself."""
    target = image.target
    payload = cosign.payload(target.digest, REFERENCE)
    image.add(attach.signature(target, payload, KEY.sign(payload)))
    sealed = seal(statement.signature_of(Subject(name="kernel", digest=target.digest)), KEY)
    image.add(attach.referrer(target, statement.COSIGN_SIGNATURE, bundle.encode(sealed, KEY.public_der), "2026-01-01T00:00:00Z"))


def other_layer(image: Layout, _: Layout) -> None:
    packed, made = layer({"kernel": b"a kernel of mine"})

    def change(_: dict[str, Any], manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0] |= {"digest": image.put(packed), "size": made.size}
        config["rootfs"]["diff_ids"][0] = made.diff_id

    rebuild(image, change)


def wrong_diff_id(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: config["rootfs"]["diff_ids"].__setitem__(0, digests.of_bytes(b"")))
    sign_index(image)


def other_platform(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: index["manifests"][0]["platform"].update(architecture="arm64"))
    sign_index(image)


def no_platform(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: index["manifests"][0].pop("platform"))
    sign_index(image)


def twice_one_platform(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: index["manifests"].append(dict(index["manifests"][0])))
    sign_index(image)


def wrong_size(image: Layout, _: Layout) -> None:
    rebuild(image, lambda index, manifest, config: manifest["layers"][0].update(size=manifest["layers"][0]["size"] + 1))
    sign_index(image)


def not_a_tar(image: Layout, _: Layout) -> None:
    data = gzip.compress(b"no tar" * 1000)

    def change(_: dict[str, Any], manifest: dict[str, Any], config: dict[str, Any]) -> None:
        manifest["layers"][0] |= {"digest": image.put(data), "size": len(data)}

    rebuild(image, change)
    sign_index(image)


def first_layer(image: Layout) -> str:
    return str(image.json(image.platform_manifest())["layers"][0]["digest"])


def other_signature(image: Layout, other: Layout) -> None:
    """The farm's signature of another image, at this one's tag."""
    donor = other.json(other.tagged(cosign.signature_tag(other.image)))["layers"][0]
    payload = other.read(donor["digest"])
    signature = dsse.decode(donor["annotations"][cosign.SIGNATURE_ANNOTATION])
    image.add(attach.signature(image.target, payload, signature))


def strange_signature(image: Layout, _: Layout) -> None:
    payload = cosign.payload(image.image, REFERENCE)
    image.add(attach.signature(image.target, payload, STRANGER.sign(payload)))


def changed_payload(image: Layout, _: Layout) -> None:
    layer = image.json(image.tagged(cosign.signature_tag(image.image)))["layers"][0]
    signature = dsse.decode(layer["annotations"][cosign.SIGNATURE_ANNOTATION])
    image.add(attach.signature(image.target, cosign.payload(image.image, "docker.io/evil/kernel"), signature))


def payload_of_another_kind(image: Layout, _: Layout) -> None:
    """Signed with the key, but not as an image's signature: a key must not be an oracle."""
    payload = dsse.to_json({"critical": {"type": "something else", "image": {"docker-manifest-digest": image.image}}})
    image.add(attach.signature(image.target, payload, KEY.sign(payload)))


def without(kind: str) -> Tamper:
    return lambda image, _: image.replace(kind, None, KEY)


def resealed(kind: str, key: SigningKey) -> Tamper:
    return lambda image, _: image.restate(kind, key, lambda made: made)


def of_another(kind: str) -> Tamper:
    return lambda image, other: image.replace(kind, other.envelope(kind), KEY)


def changed_document(kind: str) -> Tamper:
    def tamper(image: Layout, _: Layout) -> None:
        sealed = image.envelope(kind)
        image.replace(kind, replace(sealed, payload=sealed.payload.replace(b"6.1.999", b"6.1.998")), KEY)

    return tamper


def other_type_of_payload(image: Layout, _: Layout) -> None:
    """Signed with the key under another type of payload."""
    image.replace(PROVENANCE, seal(image.statement(PROVENANCE), KEY, "text/plain"), KEY)


def stated(kind: str, change: Callable[[dict[str, Any]], None]) -> Tamper:
    return lambda image, _: image.restate(kind, KEY, lambda made: with_predicate(made, change))


def subjects(change: Callable[[tuple[Subject, ...]], tuple[Subject, ...]]) -> Tamper:
    return lambda image, _: image.restate(PROVENANCE, KEY, lambda made: replace(made, subjects=change(made.subjects)))


def dependency(name: str) -> Callable[[dict[str, Any]], None]:
    def change(predicate: dict[str, Any]) -> None:
        found = [each for each in predicate["buildDefinition"]["resolvedDependencies"] if each["name"] == name]
        found[0]["digest"]["sha256"] = "0" * 64

    return change


def other_sum(document: dict[str, Any]) -> None:
    for each in document["files"][0]["checksums"]:
        each["checksumValue"] = "0" * len(each["checksumValue"])


def no_bundles(image: Layout, _: Layout) -> None:
    image.remove(lambda entry: entry.get("artifactType") == bundle.MEDIA_TYPE)


def no_tag(tag: Callable[[str], str]) -> Tamper:
    return lambda image, _: image.remove(lambda entry: entry.get("annotations", {}).get(_REF) == tag(image.image))


def bundle_of_another_version(image: Layout, _: Layout) -> None:
    image.remove(lambda entry: image.is_referrer(entry, PROVENANCE))
    sealed = bundle.encode(image_envelope(image), KEY.public_der).replace(b"v0.3+json", b"v9.9+json")
    image.add(attach.referrer(image.target, PROVENANCE, sealed, "2026-01-01T00:00:00Z"))


def image_envelope(image: Layout) -> Envelope:
    manifest = image.json(image.tagged(cosign.attestation_tag(image.image)))
    return dsse.parse(json.loads(image.read(manifest["layers"][0]["digest"])))


def hidden_referrer(image: Layout, _: Layout) -> None:
    """An index of referrers that leaves the provenance out: what a registry without the API would show."""
    image.add(attach.fallback(image.target, []))


def renamed(found: tuple[Subject, ...]) -> tuple[Subject, ...]:
    """kernel and System.map with each other's digest."""
    swap = {"kernel": "System.map", "System.map": "kernel"}
    return tuple(replace(each, name=swap.get(each.name, each.name)) if index > 1 else each for index, each in enumerate(found))


def recorded(*path: str, value: str) -> Tamper:
    """Another result record beside the image, which nothing signs."""

    def tamper(image: Layout, _: Layout) -> None:
        change_record(image, *path, value=value)

    return tamper


def change_record(image: Layout, *path: str, value: str, name: str = "result.json") -> None:
    body = json.loads((image.folder / name).read_text())
    place = body
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    (image.folder / name).write_text(json.dumps(body))


def another_index(image: Layout, _: Layout) -> None:
    """The record leads to an index of the same image that nobody has signed; its tag would be the one of the architecture."""
    index = image.json(image.image) | {"annotations": {"mine": "yes"}}
    body = json.loads((image.folder / "result.json").read_text())
    body["outputs"]["images"][0]["index"] = image.put(json.dumps(index).encode())
    (image.folder / "result.json").write_text(json.dumps(body))


def second_record(image: Layout, other: Layout) -> None:
    (image.folder / "result-arm64.json").write_bytes((other.folder / "result.json").read_bytes())
    change_record(image, "release", value="6.1.999-linuxkit-rt", name="result-arm64.json")


def strangers_image(tag: str = "", *, of: Callable[[Layout], str] = lambda image: image.image) -> Tamper:
    """Somebody's own image, which says that it refers to a digest (the index's), at a tag; and no list tells what refers to what."""

    def tamper(image: Layout, _: Layout) -> None:
        lists = [cosign.referrers_tag(digest) for digest in (image.image, image.platform_manifest())]
        image.remove(lambda entry: entry.get("annotations", {}).get(_REF) in lists)
        packed, made = layer({"kernel": b"a kernel of mine"})
        body = image.json(image.platform_manifest()) | {"artifactType": "application/x", "subject": {"digest": of(image)}}
        body["layers"] = [{"mediaType": oci.LAYER, "digest": image.put(packed), "size": made.size}]
        data = json.dumps(body).encode()
        entry: dict[str, Any] = {"mediaType": oci.MANIFEST, "digest": image.put(data), "size": len(data), "artifactType": "application/x"}
        if tag:
            entry["annotations"] = {_REF: tag.format(own=digests.hex_of(image.platform_manifest()))}
        image.edit(lambda entries: entries.append(entry))

    return tamper


# Nothing of these would be pushed either, and no key is needed to see that.
STRANGERS: dict[str, Tamper] = {
    "beside the index, at a free tag": strangers_image("latest"),
    "beside the index, at a version's tag": strangers_image("6.1.998"),
    "beside the platform's manifest, at a free tag": strangers_image("latest", of=Layout.platform_manifest),
    "at cosign's tag for another digest": strangers_image(f"sha256-{'0' * 64}.sig"),
    "at a tag like cosign's": strangers_image("sha256-{own}.sbom"),
    "at the tag of a list of referrers": strangers_image("sha256-{own}"),
    "at cosign's tag, beside another image": strangers_image("sha256-{own}.att", of=lambda _: digests.of_bytes(b"")),
    "without a tag, beside another image": strangers_image(of=lambda _: digests.of_bytes(b"")),
}

TAMPERED: dict[str, tuple[Tamper, str, str]] = {
    "index changed": (lambda image, _: flip(image, image.image), "index digest", "damaged"),
    "index of another image": (
        lambda image, other: put_index(image, other.json(other.image)),
        "signature",
        "is not signed",
    ),
    "manifest changed": (lambda image, _: flip(image, image.platform_manifest()), "manifest", "damaged"),
    "manifest cut": (
        lambda image, _: image.path(image.platform_manifest()).write_bytes(image.read(image.platform_manifest())[:-5]),
        "manifest",
        "damaged",
    ),
    "config changed": (lambda image, _: flip(image, image.json(image.platform_manifest())["config"]["digest"], 3), "config", "damaged"),
    "layer changed": (lambda image, _: flip(image, first_layer(image), 30), "layer", "damaged"),
    "layer cut": (lambda image, _: image.path(first_layer(image)).write_bytes(image.read(first_layer(image))[:100]), "layer", "damaged"),
    "layer longer": (
        lambda image, _: image.path(first_layer(image)).write_bytes(image.read(first_layer(image)) + b"more"),
        "layer",
        "longer than",
    ),
    "layer gone": (lambda image, _: image.path(first_layer(image)).unlink(), "layer", "lacks"),
    "another layer, all digests fitting": (other_layer, "signature", "is not signed"),
    "another tar than the config says": (wrong_diff_id, "layer", "the config says"),
    "another size than the manifest says": (wrong_size, "layer", "bytes"),
    "a layer that is no tar": (not_a_tar, "layer", "no gzip-compressed tar"),
    "another platform than the config's": (other_platform, "config", "linux/arm64"),
    "no platform": (no_platform, "platform", "no platform"),
    "one platform twice": (twice_one_platform, "platform", "two images"),
    "unsigned": (no_tag(cosign.signature_tag), "signature", "is not signed"),
    "no bundles": (no_bundles, "signature bundle", "there is no signature"),
    "signed with another key": (strange_signature, "signature", "another key"),
    "signature of another image": (other_signature, "signature", "of another image"),
    "signature of another text": (changed_payload, "signature", "another key, or was changed"),
    "signature of another kind": (payload_of_another_kind, "signature", "something else"),
    "bundle of another image": (of_another(statement.COSIGN_SIGNATURE), "signature bundle", "about another image"),
    "no provenance": (without(PROVENANCE), "provenance bundle", "there is no provenance"),
    "no provenance at the tag": (no_tag(cosign.attestation_tag), "provenance tag", "there is no sha256-"),
    "provenance of another key": (resealed(PROVENANCE, STRANGER), "provenance bundle", "another key"),
    "provenance of another image": (of_another(PROVENANCE), "provenance tag", "about another image"),
    "provenance changed": (changed_document(PROVENANCE), "provenance bundle", "was changed"),
    "provenance under another type": (other_type_of_payload, "provenance tag", "another key, or was changed"),
    "a bundle of another version": (bundle_of_another_version, "provenance bundle", "no Sigstore bundle"),
    "another builder": (
        stated(PROVENANCE, lambda body: body["runDetails"]["builder"].update(id="urn:somebody-else")),
        "builder",
        "urn:somebody-else",
    ),
    "no builder": (stated(PROVENANCE, lambda body: body["runDetails"].pop("builder")), "builder", "no builder"),
    "another source": (stated(PROVENANCE, dependency("source")), "source", "SOURCE_SHA256"),
    "another patch": (stated(PROVENANCE, dependency("patch")), "source", "PATCH"),
    "another config": (stated(PROVENANCE, dependency("config")), "kernel config", "the provenance"),
    "a subject that is not there": (
        subjects(lambda found: (*found, Subject(name="vmlinux", digest=digests.of_bytes(b"x")))),
        "subjects",
        "not in the image",
    ),
    "a file that is no subject": (subjects(lambda found: found[:-1]), "subjects", "does not name"),
    "files that swapped names": (subjects(renamed), "subjects", "the image has"),
    "no SBOM": (without(SPDX), "SBOM bundle", "there is no SBOM"),
    "SBOM of another key": (resealed(SPDX, STRANGER), "SBOM tag", "another key"),
    "SBOM of another image": (of_another(SPDX), "SBOM bundle", "about another image"),
    "SBOM with another sum": (stated(SPDX, other_sum), "SBOM files", "not in the image"),
    "SBOM that leaves a file out": (stated(SPDX, lambda body: body["files"].pop()), "SBOM files", "does not list"),
    "referrers hidden": (hidden_referrer, "referrers", "does not list"),
    "a record of another release": (recorded("release", value="6.1.999-linuxkit-rt"), "result record", "record's release"),
    "a record of another build": (
        recorded("build", value="20260101-000000-ffffff"),
        "result record",
        "of the build 20260101-000000-ffffff",
    ),
    "a record of another flavour": (recorded("inputs", "spec", "flavour", value="dbg"), "result record", "record's inputs"),
    "a record of another architecture": (recorded("inputs", "spec", "arch", value="arm64"), "result record", "record's inputs"),
    "a record of another version": (recorded("inputs", "tree", "version", value="6.1"), "result record", "record's inputs"),
    "a record of another config": (recorded("inputs", "config", value="sha256:0"), "result record", "record's inputs"),
    "a record of another compiler": (recorded("toolchain", "compiler", value="gcc"), "result record", "record's inputs"),
    "a record of another index": (another_index, "result record", "the record leads to the index"),
    "a record that is none": (
        lambda image, _: (image.folder / "result.json").write_bytes(b"[" * 100_000) and None,
        "result record",
        "no record of a build",
    ),
    "a second record": (second_record, "result record", "record's release"),
    "a record that provenance says nothing about": (
        stated(PROVENANCE, lambda body: body["buildDefinition"]["internalParameters"].pop("inputs")),
        "result record",
        "signed by an older kernfarm",
    ),
    **{f"a stranger's image {how}": (tamper, "nothing else", "not of this image") for how, tamper in STRANGERS.items()},
}
