"""Documents of signing: encodings that can't be confused, round trips, and agreement with an independent implementation of DSSE."""

from __future__ import annotations

import base64
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from securesystemslib.dsse import Envelope as OtherEnvelope

from kernel import digest as digests
from kernel import oci
from kernel.signing import attach, bundle, cosign, dsse, statement
from kernel.signing.attach import Target
from kernel.signing.dsse import Envelope
from kernel.signing.statement import Statement, Subject
from kernel.signing.times import rfc3339

kinds = st.text(min_size=1, max_size=40)
payloads = st.binary(max_size=200)
digest_texts = st.binary(max_size=8).map(digests.of_bytes)
envelopes = st.builds(
    Envelope, payload_type=kinds, payload=payloads, signatures=st.lists(st.binary(max_size=80), min_size=1, max_size=3).map(tuple)
)
TARGET = Target(media_type=oci.INDEX, digest=digests.of_bytes(b"index"), size=5)


@given(kind=kinds, payload=payloads)
def test_what_is_signed_is_what_another_implementation_signs(kind: str, payload: bytes) -> None:
    assert dsse.pae(kind, payload) == OtherEnvelope(payload, kind, {}).pae()


@given(one=st.tuples(kinds, payloads), other=st.tuples(kinds, payloads))
def test_two_different_contents_are_never_signed_as_the_same(one: tuple[str, bytes], other: tuple[str, bytes]) -> None:
    assert (dsse.pae(*one) == dsse.pae(*other)) == (one == other)


@given(envelope=envelopes)
def test_envelopes_and_bundles_come_back_as_they_were(envelope: Envelope) -> None:
    assert dsse.parse(json.loads(dsse.to_json(envelope.plain()))) == envelope
    assert bundle.parse(bundle.encode(envelope, b"key")) == envelope


@given(
    kind=kinds,
    subjects=st.lists(st.builds(Subject, name=st.text(max_size=20), digest=digest_texts), min_size=1, max_size=4),
    predicate=st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3),
)
def test_statements_come_back_as_they_were(kind: str, subjects: list[Subject], predicate: dict[str, str]) -> None:
    made = Statement(predicate_type=kind, subjects=tuple(subjects), predicate=predicate)
    assert statement.parse(made.encoded()) == made


@given(data=st.one_of(st.binary(max_size=200), st.recursive(st.none() | st.text(), st.lists).map(lambda value: json.dumps(value).encode())))
def test_what_is_no_document_is_a_value_error_and_nothing_else(data: bytes) -> None:
    for parse in (bundle.parse, statement.parse, cosign.signed_digest):
        with pytest.raises(ValueError):
            parse(data)


@pytest.mark.parametrize(
    "plain",
    [
        None,
        {},
        {"payload": "", "payloadType": "t", "signatures": []},
        {"payload": "", "payloadType": "t", "signatures": [{}]},
        {"payload": "not base64!", "payloadType": "t", "signatures": [{"sig": ""}]},
        {"payload": "", "payloadType": 7, "signatures": [{"sig": ""}]},
    ],
)
def test_envelopes_that_are_none_are_refused(plain: object) -> None:
    with pytest.raises(ValueError):
        dsse.parse(plain)


def test_the_payload_is_the_one_that_cosign_reads() -> None:
    digest = digests.of_bytes(b"x")
    data = cosign.payload(digest, "docker.io/linuxkit/kernel")
    assert json.loads(data) == {
        "critical": {
            "identity": {"docker-reference": "docker.io/linuxkit/kernel"},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        },
        "optional": None,
    }
    assert cosign.signed_digest(data) == digest


def test_everything_hangs_at_the_place_where_it_is_looked_for() -> None:
    envelope = Envelope(payload_type=dsse.IN_TOTO, payload=b"{}", signatures=(b"s",))
    signature = attach.signature(TARGET, b"payload", b"sig")
    referrer = attach.referrer(TARGET, statement.PROVENANCE, bundle.encode(envelope, b"key"), rfc3339(0))
    index = attach.fallback(TARGET, [referrer])
    old = attach.attestations(TARGET, [(statement.PROVENANCE, envelope)])
    name = "sha256-" + TARGET.digest.removeprefix("sha256:")
    assert [made.attachment.tag for made in (signature, referrer, index, old)] == [f"{name}.sig", "", name, f"{name}.att"]
    body = json.loads(referrer.data[0])
    assert body["subject"] == {"mediaType": oci.INDEX, "digest": TARGET.digest, "size": 5}
    assert body["artifactType"] == referrer.attachment.artifact_type == bundle.MEDIA_TYPE
    entry = json.loads(index.data[0])["manifests"][0]
    assert entry["digest"] == digests.of_bytes(referrer.data[0])
    assert entry["artifactType"] == bundle.MEDIA_TYPE
    notes = json.loads(signature.data[0])["layers"][0]["annotations"]
    assert base64.b64decode(notes[cosign.SIGNATURE_ANNOTATION]) == b"sig"


@pytest.mark.parametrize("make", [lambda: attach.signature(TARGET, b"p", b"s"), lambda: attach.referrer(TARGET, "k", b"b", rfc3339(0))])
def test_an_attachment_lists_the_bytes_it_is_made_of(make: object) -> None:
    made = make()  # type: ignore[operator]
    listed = (made.attachment.manifest, *made.attachment.blobs)
    assert [(each.digest, each.size) for each in listed] == [(digests.of_bytes(data), len(data)) for data in made.data]
    body = json.loads(made.data[0])
    assert [each["digest"] for each in (body["config"], *body["layers"])] == [each.digest for each in listed[1:]]


def test_times_are_whole_seconds_in_utc() -> None:
    assert rfc3339(1_700_000_000.9) == "2023-11-14T22:13:20Z"
