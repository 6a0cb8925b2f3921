"""A registry that refuses, limits, forgets, lies or is not there."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import requests

from kernel import oci
from kernel.errors import Code, FarmError
from kernfarm import publication
from kernfarm.registry import attachments, repository, transport
from kernfarm.registry.content import Attached, Content
from kernfarm.registry.push import Options, Pushed, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository, fallback_tag
from kernfarm.registry.transport import Patience, Transport
from tests.fakes import layouts
from tests.fakes.registries import Proxy
from tests.fakes.registry_server import Answer, Asked, FakeRegistry, Fault, once

QUICK = Patience(attempts=3, first_seconds=0.01)
_OPEN: list[Transport] = []


@pytest.fixture
def registry() -> Iterator[FakeRegistry]:
    with FakeRegistry() as found:
        yield found
        while _OPEN:
            _OPEN.pop().close()


@pytest.fixture
def content(tmp_path: Path) -> Content:
    layouts.write(tmp_path / "image", seed="s", size=30_000, signatures=["signature"])
    return publication.content([publication.read(tmp_path / "image")])


def place(registry: FakeRegistry, address: str = "", patience: Patience = QUICK) -> Repository:
    _OPEN.append(
        opened := Transport(Reference.parse(f"{address or registry.address}/team/kernel"), patience=patience, logins=lambda _: None)
    )
    return Repository(opened)


def send(registry: FakeRegistry, content: Content, *, address: str = "", patience: Patience = QUICK, chunk: int = 10_000) -> Pushed:
    return push(place(registry, address, patience), content, Options(chunk_bytes=chunk), lambda words: None)


def failing(method: str, part: str, answer: Answer) -> Fault:
    return lambda asked: answer if asked.method == method and part in asked.path else None


def wanted(content: Content) -> dict[str, str]:
    signatures = {each.attachment.tag: each.document.digest for each in content.attached if each.attachment.tag.endswith(".sig")}
    return {each.tag: each.document.digest for each in content.tags} | signatures


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


@pytest.mark.parametrize(
    ("status", "code", "exit_code", "words"),
    [
        (401, Code.UNAUTHENTICATED, 2, "wants a login"),
        (403, Code.PERMISSION_DENIED, 2, "does not allow"),
        (404, Code.NOT_FOUND, 2, "does not have"),
        (405, Code.INVALID_ARGUMENT, 2, "does not support POST"),
        (413, Code.INVALID_ARGUMENT, 2, "413"),
        (307, Code.INVALID_ARGUMENT, 2, "307"),
        (500, Code.UNAVAILABLE, 4, "fails with 500"),
        (429, Code.UNAVAILABLE, 4, "limits the rate"),
    ],
)
def test_refusals_say_what_where_and_the_mend(
    registry: FakeRegistry, content: Content, status: int, code: Code, exit_code: int, words: str
) -> None:
    body = json.dumps({"errors": [{"code": "NAME_UNKNOWN", "message": "registry's own words"}]}).encode()
    registry.faults = [failing("POST", "/uploads/", Answer(status, body=body))]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    problem = caught.value.problem
    assert (problem.code, problem.handling.exit_code) == (code, exit_code)
    assert words in problem.message
    assert "registry's own words" in problem.message
    assert problem.where == f"{registry.address}/team/kernel"
    assert registry.tags == {}


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"errors": 7}', b'{"errors": ["x"]}', b"[" * 60_000, b"\xff"])
def test_a_refusal_in_any_words_is_a_refusal(registry: FakeRegistry, content: Content, body: bytes) -> None:
    registry.faults = [failing("POST", "/uploads/", Answer(403, body=body))]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    assert caught.value.problem.code is Code.PERMISSION_DENIED


def test_nobody_there(content: Content) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    reference = Reference.parse(f"127.0.0.1:{port}/team/kernel")
    with Transport(reference, patience=QUICK, logins=lambda _: None) as closed, pytest.raises(FarmError) as caught:
        push(Repository(closed), content, Options(), lambda words: None)
    assert caught.value.problem.code is Code.UNAVAILABLE
    assert caught.value.problem.handling.exit_code == 4
    assert str(port) in caught.value.problem.message


@pytest.mark.parametrize(("method", "status"), [("HEAD", 429), ("POST", 429), ("PATCH", 429), ("PUT", 429), ("PATCH", 503)])
def test_a_registry_that_puts_us_off_is_waited_for(registry: FakeRegistry, content: Content, method: str, status: int) -> None:
    registry.faults = [once(failing(method, "", Answer(status, {"Retry-After": "1"})))]
    before = time.monotonic()
    send(registry, content)
    assert time.monotonic() - before >= 1
    assert registry.tags == wanted(content)


def test_a_wait_that_is_too_long_is_an_error_at_once(registry: FakeRegistry, content: Content) -> None:
    dates = {"Date": "Tue, 24 Nov 2026 10:00:00 GMT", "Retry-After": "Tue, 24 Nov 2026 11:00:00 GMT"}
    registry.faults = [failing("POST", "", Answer(429, dates))]
    before = time.monotonic()
    with pytest.raises(FarmError, match="limits the rate"):
        send(registry, content)
    assert time.monotonic() - before < 5


@pytest.mark.parametrize(
    ("text", "date", "seconds"),
    [("7", "", 7.0), ("Tue, 24 Nov 2026 10:00:09 GMT", "Tue, 24 Nov 2026 10:00:00 GMT", 9.0), ("soon", "", None), ("-5", "", None)],
)
def test_both_forms_of_retry_after(text: str, date: str, seconds: float | None) -> None:
    response = requests.Response()
    response.headers.update({"Retry-After": text, "Date": date})
    assert transport._retry_after(response) == seconds


@pytest.mark.parametrize("method", ["HEAD", "GET", "POST", "PATCH", "PUT"])
@pytest.mark.parametrize("part", ["blobs", "manifests"])
def test_one_failure_of_any_request_does_not_fail_the_push(registry: FakeRegistry, content: Content, method: str, part: str) -> None:
    registry.faults = [once(failing(method, part, Answer(502)))]
    send(registry, content)
    assert registry.tags == wanted(content)


def test_a_session_that_expired_is_begun_anew(registry: FakeRegistry, content: Content) -> None:
    def expire(asked: Asked) -> Answer | None:
        if asked.method == "PATCH" and not asked.headers["content-range"].startswith("0-"):
            registry.sessions.clear()
            return Answer(404)
        return None

    registry.faults = [once(expire)]
    send(registry, content)
    assert registry.tags == wanted(content)
    registry.blobs.clear()
    registry.faults = [failing("PATCH", "", Answer(404))]
    with pytest.raises(FarmError, match="lost the upload") as caught:
        send(registry, content)
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_an_upload_is_gone_on_with_where_it_broke(registry: FakeRegistry, content: Content) -> None:
    """The connection is cut within chunks; the registry kept what it had, and is not sent it again."""
    largest = max(blob.size for blob in content.blobs)
    with Proxy(registry.address, cut_after=12_000, times=4) as proxy:
        send(registry, content, address=proxy.address, chunk=40_000)
    assert registry.tags == wanted(content)
    starts = [int(each.headers["content-range"].partition("-")[0]) for each in registry.asked if each.method == "PATCH"]
    assert any(0 < start < largest for start in starts)
    sent = sum(len(each.body) for each in registry.asked if each.method == "PATCH")
    assert sent == sum(blob.size for blob in content.blobs)


def test_a_slow_line_is_no_broken_one(registry: FakeRegistry, tmp_path: Path) -> None:
    """A chunk takes far longer than the time limit, each of its pieces does not."""
    layouts.write(tmp_path, seed="slow", size=6_000_000)
    content = publication.content([publication.read(tmp_path)])
    patience = Patience(attempts=1, connect_seconds=0.3)
    with Proxy(registry.address, pause=0.02) as proxy:
        before = time.monotonic()
        send(registry, content, address=proxy.address, patience=patience, chunk=8_000_000)
        assert time.monotonic() - before > 2
    assert {each.tag for each in content.tags} == set(registry.tags)


def test_when_the_last_answer_is_lost_the_blob_itself_tells(registry: FakeRegistry, content: Content) -> None:
    """The registry stored the blob, its answer did not come through: nothing is sent twice."""

    def stored_but_unsaid(asked: Asked) -> Answer | None:
        if asked.method != "PUT" or "/uploads/" not in asked.path:
            return None
        registry.blobs[asked.query["digest"]] = registry.sessions.pop(asked.path.rpartition("/")[2])
        return Answer(502)

    registry.faults = [stored_but_unsaid]
    send(registry, content)
    assert registry.tags == wanted(content)
    assert len([each for each in registry.asked if each.method == "POST"]) == len(content.blobs)


@pytest.mark.parametrize(
    "fault",
    [
        failing("PUT", "/uploads/", Answer(201, {"Docker-Content-Digest": "sha256:" + "0" * 64})),
        failing("PUT", "/uploads/", Answer(400, body=b'{"errors": [{"code": "DIGEST_INVALID"}]}')),
        failing("PUT", "/manifests/", Answer(201, {"Docker-Content-Digest": "sha256:" + "0" * 64})),
        failing("HEAD", "/manifests/sha256:", Answer(200, {"Docker-Content-Digest": "sha256:" + "0" * 64})),
        failing("HEAD", "/blobs/", Answer(200, {"Docker-Content-Digest": "sha256:" + "0" * 64})),
    ],
)
def test_what_the_registry_has_wrongly_is_noticed_and_no_tag_moves(registry: FakeRegistry, content: Content, fault: Fault) -> None:
    registry.faults = [fault]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    assert caught.value.problem.code is Code.BAD_DIGEST
    assert not any(tag.startswith("6.1") for tag in registry.tags)


def test_bytes_that_change_on_the_way_are_noticed(registry: FakeRegistry, content: Content) -> None:
    def flip(asked: Asked) -> Answer | None:
        if asked.method == "PATCH":
            name = asked.path.rpartition("/")[2]
            registry.sessions[name] += bytes([asked.body[0] ^ 1]) + asked.body[1:]
            return Answer(202, {"Location": asked.path, "Range": f"0-{len(registry.sessions[name]) - 1}"})
        return None

    registry.faults = [flip]
    with pytest.raises(FarmError, match="other bytes than were sent"):
        send(registry, content)
    assert registry.tags == {}


@pytest.mark.parametrize("end", ["0-3", "0-999999999"])
def test_a_session_that_claims_what_can_t_be_comes_to_an_end(registry: FakeRegistry, content: Content, end: str) -> None:
    def claim(asked: Asked) -> Answer | None:
        return Answer(202, {"Location": asked.path, "Range": end}) if asked.method == "PATCH" else None

    registry.faults = [claim]
    with pytest.raises(FarmError) as caught:
        send(registry, content, chunk=2)
    assert caught.value.problem.code in (Code.UNAVAILABLE, Code.BAD_DIGEST)


def test_an_upload_without_a_place_to_go_is_refused(registry: FakeRegistry, content: Content) -> None:
    registry.faults = [failing("POST", "", Answer(202))]
    with pytest.raises(FarmError, match="lacks a Location"):
        send(registry, content)


def test_a_registry_may_ask_for_larger_chunks(registry: FakeRegistry, content: Content) -> None:
    def ask(asked: Asked) -> Answer | None:
        if asked.method != "POST":
            return None
        registry.sessions["x"] = b""
        return Answer(202, {"Location": "/v2/team/kernel/blobs/uploads/x", "OCI-Chunk-Min-Length": "25000"})

    registry.faults = [ask]
    send(registry, content)
    sizes = {len(each.body) for each in registry.asked if each.method == "PATCH"}
    assert max(sizes) == 25_000


def test_a_manifest_that_is_too_large_or_not_what_was_asked_for_is_refused(registry: FakeRegistry) -> None:
    registry.faults = [failing("GET", "/manifests/", Answer(200, body=b" " * (repository.DOCUMENT_BYTES + 1)))]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("6.1")
    assert caught.value.problem.code is Code.BAD_ARCHIVE
    registry.faults = [failing("GET", "/manifests/", Answer(200, body=b"{}"))]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("sha256:" + "0" * 64)
    assert caught.value.problem.code is Code.BAD_DIGEST
    registry.faults = [failing("GET", "/manifests/", Answer(200, {"Docker-Content-Digest": "sha256:" + "0" * 64}, b"{}"))]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("6.1")
    assert caught.value.problem.code is Code.BAD_DIGEST


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


@pytest.mark.parametrize("address", ["http://[::1/", "http://h:abc/t", "gopher://h/"])
def test_addresses_that_are_none_are_refused(registry: FakeRegistry, content: Content, address: str) -> None:
    registry.faults = [lambda asked: Answer(202, {"Location": address}) if asked.method == "POST" else None]
    with pytest.raises(FarmError) as caught:
        send(registry, content)
    assert caught.value.problem.code is Code.UNAVAILABLE
    registry.faults = [lambda asked: Answer(401, {"WWW-Authenticate": f'Bearer realm="{address}",service="x"'})]
    with pytest.raises(FarmError) as caught:
        place(registry).manifest("t")
    assert caught.value.problem.code in (Code.UNAVAILABLE, Code.UNAUTHENTICATED)


@pytest.mark.parametrize("address", ["http://[::1/", "http://h:abc/t"])
def test_a_read_that_leads_nowhere_is_refused(registry: FakeRegistry, address: str) -> None:
    registry.faults = [lambda asked: Answer(307, {"Location": address}) if "/blobs/" in asked.path else None]
    with pytest.raises(FarmError) as caught:
        list(place(registry).blob(f"sha256:{'0' * 64}"))
    assert caught.value.problem.code is Code.UNAVAILABLE


def test_a_read_that_leads_elsewhere_takes_no_login_along(registry: FakeRegistry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    netrc = tmp_path / "netrc"
    netrc.write_text("machine localhost login u password secret\n")
    netrc.chmod(0o600)
    monkeypatch.setenv("NETRC", str(netrc))
    with FakeRegistry() as other:
        elsewhere = f"http://localhost:{other.address.rpartition(':')[2]}/x"
        registry.faults = [lambda asked: Answer(307, {"Location": elsewhere}) if "/blobs/" in asked.path else None]
        with pytest.raises(FarmError):
            list(place(registry).blob(f"sha256:{'0' * 64}"))
        assert other.asked
        assert all("authorization" not in {name.lower() for name in asked.headers} for asked in other.asked)


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
        _OPEN.pop().close()


def test_a_list_that_others_keep_writing_ends_in_an_error(content: Content) -> None:
    with FakeRegistry(referrers=False) as registry:
        tag = fallback_tag(content.tags[0].document.digest)
        registry.faults = [failing("GET", f"/manifests/{tag}", Answer(404))]
        with pytest.raises(FarmError, match="others keep writing"):
            send(registry, content)
        assert not any(name.startswith("6.1") for name in registry.tags)
        _OPEN.pop().close()


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
