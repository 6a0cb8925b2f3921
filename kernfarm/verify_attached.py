"""What hangs beside an image: cosign's signatures and attestations at their tags, Sigstore bundles among its referrers.

Anybody who can write to a registry can hang something there. So what another key has signed, or what can't be read, doesn't count, but is
remembered: when nothing that counts is left, it is the reason.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from kernel import digest as digests
from kernel import oci
from kernel.errors import Code, FarmError, Problem
from kernel.signing import bundle, cosign, dsse, statement
from kernel.signing.dsse import Envelope
from kernel.signing.statement import Statement
from kernfarm import contents
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import ImageSource


@dataclass(slots=True, kw_only=True)
class Found:
    """Envelopes of one place, and why others there could not be read."""

    place: str
    envelopes: list[Envelope] = field(default_factory=list)
    broken: list[Problem] = field(default_factory=list)


def check_tag_signature(source: ImageSource, digest: str, key: VerifyKey) -> None:
    """Raises FarmError(BAD_SIGNATURE) unless the image at cosign's tag holds a signature of `digest` by this key."""
    tag = cosign.signature_tag(digest)
    manifest = _tagged(source, tag, f"{digest} is not signed: there is no {tag}")
    others: list[str] = []
    problems: list[str] = []
    for layer in _layers(manifest, tag):
        try:
            payload = contents.read(source.blob, layer)
            signature = dsse.decode(_annotation(layer, cosign.SIGNATURE_ANNOTATION))
            about = cosign.signed_digest(payload)
        except FarmError as error:
            problems.append(error.problem.message)
            continue
        except ValueError as error:
            problems.append(str(error))
            continue
        if not key.signed(signature, payload):
            problems.append("it is signed with another key, or was changed")
        elif about != digest:
            others.append(about)
        else:
            return
    if others:
        raise _bad(f"the signature is of another image, {others[0]}", tag)
    raise _bad(f"no signature of this key: {problems[0] if problems else 'the signature image has no layer'}", tag)


def bundles(source: ImageSource, digest: str) -> Found:
    """The envelopes of all bundles that refer to `digest`. Raises FarmError when the place can't say what refers to it."""
    found = Found(place=f"referrers of {digest}")
    for entry in source.referrers(digest):
        if entry.get("artifactType") not in (None, bundle.MEDIA_TYPE):
            continue
        try:
            manifest = contents.document(contents.read(source.blob, entry), oci.MANIFEST)
            if manifest.get("artifactType") != bundle.MEDIA_TYPE:
                continue
            layers = _layers(manifest, str(entry.get("digest")))
            if len(layers) != 1:
                raise ValueError(f"a bundle's manifest has {len(layers)} layers, expected one")
            found.envelopes.append(bundle.parse(contents.read(source.blob, layers[0])))
        except FarmError as error:
            found.broken.append(error.problem)
        except ValueError as error:
            found.broken.append(Problem(code=Code.BAD_SIGNATURE, message=str(error), where=str(entry.get("digest"))))
    return found


def attestations(source: ImageSource, digest: str) -> Found:
    """The envelopes at the tag where cosign before 3 looks. Raises FarmError(BAD_SIGNATURE) when there is no such tag."""
    tag = cosign.attestation_tag(digest)
    found = Found(place=tag)
    for layer in _layers(_tagged(source, tag, f"there is no {tag}"), tag):
        try:
            found.envelopes.append(_envelope(contents.read(source.blob, layer)))
        except FarmError as error:
            found.broken.append(error.problem)
        except ValueError as error:
            found.broken.append(Problem(code=Code.BAD_SIGNATURE, message=str(error), where=tag))
    return found


def signed(found: Found, kind: str, what: str, digest: str, key: VerifyKey) -> list[Statement]:
    """The statements of one predicate type about `digest` that the key has signed. Raises FarmError(BAD_SIGNATURE) when there is none."""
    good: list[Statement] = []
    others: list[Statement] = []
    strangers = 0
    for envelope in found.envelopes:
        mine = envelope.payload_type == dsse.IN_TOTO and any(key.signed(each, envelope.signed) for each in envelope.signatures)
        try:
            made = statement.parse(envelope.payload)
        except ValueError as error:
            found.broken.append(Problem(code=Code.BAD_SIGNATURE, message=str(error), where=found.place))
            continue
        if made.predicate_type != kind:
            continue
        if not mine:
            strangers += 1
        elif digest not in made.digests():
            others.append(made)
        else:
            good.append(made)
    if good:
        return good
    if others:
        raise _bad(f"the {what} is about another image, {others[0].subjects[0].digest}", found.place)
    if strangers:
        raise _bad(f"the {what} is signed with another key, or was changed", found.place)
    if found.broken:
        raise _bad(f"no {what}: {found.broken[0].message}", found.place)
    raise _bad(f"there is no {what}", found.place)


def claimed(found: Found, kind: str) -> list[Statement]:
    """The statements of one predicate type, whoever has signed them; what can't be read is none."""
    made = []
    for envelope in found.envelopes:
        with suppress(ValueError):
            made.append(statement.parse(envelope.payload))
    return [each for each in made if each.predicate_type == kind]


def check_referrers_index(source: ImageSource, digest: str) -> bool:
    """Whether there is an index of referrers at the fallback tag. Raises FarmError when it does not list what refers to `digest`."""
    tag = cosign.referrers_tag(digest)
    try:
        data = source.manifest(tag)
    except FarmError as error:
        if error.problem.code is Code.NOT_FOUND:
            return False  # only for registries without the API
        raise
    listed = contents.document(data, oci.INDEX).get("manifests")
    entries = listed if isinstance(listed, list) else []
    for entry in entries:
        contents.read(source.blob, entry)
    missing = _digests(source.referrers(digest)) - _digests(entries)
    if missing:
        raise FarmError(Code.BAD_ARCHIVE, f"the index of referrers does not list {min(missing)}", where=tag)
    return True


def check_nothing_else(source: ImageSource, index: bytes) -> None:
    """Nothing comes with the image that does not hang beside it: `push` takes all of it along, each to the tag that it names."""
    if strangers := source.strangers(_holders(index)):
        message = f"the layout also has {strangers[0]}, which is not of this image"
        raise FarmError(Code.BAD_ARCHIVE, message, where=strangers[0], hint="fetch the build again, into an empty folder")


def _holders(index: bytes) -> set[str]:
    """Digests that something may hang beside: the index of an image, its manifests, and the indexes of the builds that it is put together
    from. Of an index that is none just its own."""
    found = {digests.of_bytes(index)}
    with suppress(KeyError, TypeError, AttributeError, ValueError, RecursionError):
        for entry in json.loads(index)["manifests"]:
            found |= {str(entry["digest"]), oci.index_of([entry]).digest}
    return {each for each in found if digests.is_digest(each)}


def _envelope(data: bytes) -> Envelope:
    try:
        return dsse.parse(json.loads(data))
    except RecursionError as error:
        raise ValueError("the envelope is nested too deeply") from error


def _tagged(source: ImageSource, tag: str, absent: str) -> dict[str, Any]:
    try:
        return contents.document(source.manifest(tag), oci.MANIFEST)
    except FarmError as error:
        if error.problem.code is Code.NOT_FOUND:
            raise _bad(absent, tag) from error
        raise


def _layers(manifest: dict[str, Any], where: str) -> list[dict[str, Any]]:
    layers = manifest.get("layers")
    if not isinstance(layers, list) or not all(isinstance(layer, dict) for layer in layers):
        raise _bad("the manifest has no layers", where)
    return layers


def _annotation(layer: dict[str, Any], name: str) -> Any:
    notes = layer.get("annotations")
    return notes.get(name) if isinstance(notes, dict) else None


def _digests(entries: Iterable[Any]) -> set[str]:
    return {str(entry.get("digest")) for entry in entries if isinstance(entry, dict)}


def _bad(message: str, where: str) -> FarmError:
    return FarmError(Code.BAD_SIGNATURE, message, where=where)
