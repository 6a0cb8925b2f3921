"""Uploads that break, expire, crawl or arrive otherwise than they were sent."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm import publication
from kernfarm.registry.content import Content
from kernfarm.registry.transport import Patience
from tests.deadline import deadline
from tests.fakes import layouts
from tests.fakes.registries import Proxy
from tests.fakes.registry_server import Answer, Asked, FakeRegistry, Fault, once
from tests.kernfarm.pushing import failing, send, wanted


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


@pytest.mark.parametrize("make", [Path.touch, os.mkfifo, lambda path: path.symlink_to("/etc/passwd")], ids=["file", "pipe", "link"])
def test_a_file_that_was_swapped_after_it_was_checked_is_not_sent(
    registry: FakeRegistry, content: Content, make: Callable[[Path], None]
) -> None:
    swapped = content.blobs[-1]
    swapped.path.unlink()
    make(swapped.path)
    with deadline(20), pytest.raises(FarmError, match=swapped.digest) as caught:
        send(registry, content)
    assert caught.value.problem.code in (Code.BAD_DIGEST, Code.MISSING_FILE)
    assert {digests.of_bytes(data) for data in registry.blobs.values()} == {each.digest for each in content.blobs[:-1]}
    assert len([each for each in registry.asked if each.method == "POST"]) == len(content.blobs) - 1, "not even begun"


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
