"""in-toto statements: a predicate about subjects named by digest (github.com/in-toto/attestation, spec/v1)."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernel import digest as digests
from kernel.signing import dsse

TYPE = "https://in-toto.io/Statement/v1"
# What cosign 3 writes for a plain signature in a bundle.
COSIGN_SIGNATURE = "https://sigstore.dev/cosign/sign/v1"
PROVENANCE = "https://slsa.dev/provenance/v1"
# The type cosign knows as `--type spdxjson`.
SPDX = "https://spdx.dev/Document"


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """What a statement is about: a name for people, and the digest that counts."""

    name: str
    digest: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Statement:
    predicate_type: str
    subjects: tuple[Subject, ...]
    predicate: dict[str, Any]

    def encoded(self) -> bytes:
        """The payload of an envelope."""
        return dsse.to_json(
            {
                "_type": TYPE,
                "predicateType": self.predicate_type,
                "subject": [{"name": each.name, "digest": {"sha256": digests.hex_of(each.digest)}} for each in self.subjects],
                "predicate": self.predicate,
            }
        )

    def digests(self) -> set[str]:
        """The digests of all subjects."""
        return {subject.digest for subject in self.subjects}


def signature_of(subject: Subject) -> Statement:
    """What a plain signature of an image says."""
    return Statement(predicate_type=COSIGN_SIGNATURE, subjects=(subject,), predicate={})


def parse(payload: bytes) -> Statement:
    """A statement from an envelope's payload. Raises ValueError that says what does not fit."""
    try:
        plain = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"the statement is no JSON: {error}") from error
    if not isinstance(plain, dict) or plain.get("_type") != TYPE:
        raise ValueError(f"no in-toto statement of type {TYPE}")
    kind, predicate = plain.get("predicateType"), plain.get("predicate")
    if not isinstance(kind, str) or not isinstance(predicate, dict):
        raise ValueError("the statement lacks predicateType or predicate")
    return Statement(predicate_type=kind, subjects=_subjects(plain.get("subject")), predicate=predicate)


def _subjects(plain: Any) -> tuple[Subject, ...]:
    found: list[Subject] = []
    for each in plain if isinstance(plain, Sequence) and not isinstance(plain, str) else ():
        sha256 = each.get("digest", {}).get("sha256") if isinstance(each, dict) and isinstance(each.get("digest"), dict) else None
        digest = f"{digests.ALGORITHM}:{sha256}"
        if not digests.is_digest(digest):
            raise ValueError("a subject of the statement has no sha256 digest")
        found.append(Subject(name=str(each.get("name", "")), digest=digest))
    if not found:
        raise ValueError("the statement is about nothing")
    return tuple(found)
