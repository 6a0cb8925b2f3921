"""What hangs beside an image in a registry: lists of referrers that are long, hostile or written by others too; tags."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from kernel import oci
from kernel.errors import Code, FarmError
from kernfarm.registry import attachments
from kernfarm.registry.content import Attached, Content
from kernfarm.registry.push import Pushed
from kernfarm.registry.repository import fallback_tag
from tests.fakes import layouts
from tests.fakes.registry_server import Answer, Asked, FakeRegistry
from tests.kernfarm.pushing import OPEN, failing, place, send, wanted


def test_a_registry_with_referrers_gets_no_fallback_tag_and_a_second_push_sends_nothing(registry: FakeRegistry, content: Content) -> None:
    send(registry, content)
    assert registry.tags == wanted(content)
    registry.asked.clear()
    assert send(registry, content) == Pushed()
    assert registry.writes == []
    assert not any(asked.body for asked in registry.asked)
    subject = content.tags[0].document.digest
    found, known = place(registry).referrers(subject)
    assert known
    assert [each["artifactType"] for each in found] == [layouts.BUNDLE]


def test_referrers_come_in_pages_that_end(registry: FakeRegistry) -> None:
    subject = "sha256:" + "1" * 64

    def pages(asked: Asked) -> Answer | None:
        number = int(asked.query.get("page", 0))
        listing = {"manifests": [{"digest": "sha256:" + f"{number:064x}"}]}
        more = {"Link": f'<{asked.path}?page={number + 1}>; rel="next"'} if number < last else {}
        return Answer(200, {"Content-Type": "application/vnd.oci.image.index.v1+json", **more}, json.dumps(listing).encode())

    registry.faults = [pages]
    last = 2
    found, known = place(registry).referrers(subject)
    assert (len(found), known) == (3, True)
    last = 10**9
    with pytest.raises(FarmError, match="no end"):
        place(registry).referrers(subject)


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"manifests": 7}', b'{"manifests": [7]}', b'{"manifests": [{"digest": "../x"}]}'])
def test_a_hostile_list_of_referrers_is_refused(registry: FakeRegistry, body: bytes) -> None:
    registry.faults = [failing("GET", "/referrers/", Answer(200, {"Content-Type": "application/vnd.oci.image.index.v1+json"}, body))]
    with pytest.raises(FarmError) as caught:
        place(registry).referrers("sha256:" + "1" * 64)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def listed(registry: FakeRegistry, tag: str) -> list[str]:
    entries: list[dict[str, Any]] = json.loads(registry.manifests[registry.tags[tag]][1])["manifests"]
    return [each["annotations"]["words"] for each in entries]


def test_a_list_of_referrers_does_not_lead_elsewhere(registry: FakeRegistry) -> None:
    body = json.dumps({"schemaVersion": 2, "mediaType": oci.INDEX, "manifests": []}).encode()
    with FakeRegistry() as other:
        link = {"Content-Type": oci.INDEX, "Link": f'<http://{other.address}/latest/meta-data/>; rel="next"'}
        registry.faults = [lambda asked: Answer(200, link, body) if "/referrers/" in asked.path else None]
        with pytest.raises(FarmError) as caught:
            place(registry).referrers(f"sha256:{'0' * 64}")
        assert caught.value.problem.code is Code.PERMISSION_DENIED
        assert other.asked == []


@pytest.mark.parametrize("times", [1, 2])
def test_another_writer_between_our_reading_and_writing_loses_nothing_of_ours(content: Content, times: int) -> None:
    subject = content.tags[0].document
    tag = fallback_tag(subject.digest)
    with FakeRegistry(referrers=False) as registry:
        seen: list[Asked] = []

        def overwrite(asked: Asked) -> Answer | None:
            """Our list was there for a moment; the other had read the one before it."""
            if asked.method == "GET" and tag in asked.path and tag in registry.tags and len(seen) < times:
                seen.append(asked)
                theirs = [attachments.referrer(layouts.referrer_document(subject, f"theirs {number}")) for number in range(len(seen))]
                data = json.dumps({"schemaVersion": 2, "manifests": theirs}).encode()
                registry.answer(Asked("PUT", f"/v2/team/kernel/manifests/{tag}", {}, {"content-type": "x"}, data))
            return None

        registry.faults = [overwrite]
        send(registry, content)
        assert len(seen) == times
        assert listed(registry, tag) == [*(f"theirs {number}" for number in range(times)), "signature"]
        OPEN.pop().close()


def test_a_list_that_others_keep_writing_ends_in_an_error(content: Content) -> None:
    with FakeRegistry(referrers=False) as registry:
        tag = fallback_tag(content.tags[0].document.digest)
        registry.faults = [failing("GET", f"/manifests/{tag}", Answer(404))]
        with pytest.raises(FarmError, match="others keep writing"):
            send(registry, content)
        assert not any(name.startswith("6.1") for name in registry.tags)
        OPEN.pop().close()


def test_a_signature_tag_that_holds_something_else_is_left_alone(registry: FakeRegistry, content: Content) -> None:
    attached = next(each for each in content.attached if each.attachment.tag.endswith(".sig"))
    other = layouts.referrer_document(content.tags[0].document, "no image")
    place(registry).put_manifest(other, attached.attachment.tag)
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    assert caught.value.problem.code in (Code.CONFLICT, Code.NOT_FOUND)
    assert registry.tags == {attached.attachment.tag: other.digest}


def test_attachments_without_tag_or_subject_are_put_once(registry: FakeRegistry, content: Content) -> None:
    attached = next(each for each in content.attached if each.attachment.tag.endswith(".sig"))
    bare = Attached(attachment=replace(attached.attachment, tag=""), document=attached.document)
    assert attachments.put(place(registry), bare, None)
    assert not attachments.put(place(registry), bare, None)
    assert list(registry.manifests) == [attached.document.digest]


def test_an_attachment_may_have_both_tag_and_subject(registry: FakeRegistry, content: Content) -> None:
    send(registry, content)
    referrer = next(each for each in content.attached if each.attachment.artifact_type == layouts.BUNDLE)
    both = Attached(attachment=replace(referrer.attachment, tag="named"), document=referrer.document)
    assert attachments.put(place(registry), both, None)
    assert registry.tags["named"] == referrer.document.digest
    assert not attachments.put(place(registry), both, referrer.document.digest)
