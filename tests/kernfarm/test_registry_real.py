"""Against Debian's docker-registry 2.8: what it holds after a push, and after one that was broken off."""

from __future__ import annotations

import hashlib
import itertools
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from kernel.errors import Code, FarmError
from kernfarm import publication
from kernfarm.registry.content import Content
from kernfarm.registry.push import Options, Pushed, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository, fallback_tag
from kernfarm.registry.source import RegistrySource
from kernfarm.registry.transport import Patience, Transport
from tests.fakes import layouts
from tests.fakes.registries import Proxy, RealRegistry, real

QUICK = Patience(attempts=3, first_seconds=0.01)
SMALL = Options(chunk_bytes=40_000)
numbers = itertools.count()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Content]:
    """What is pushed first (one architecture), and what replaces it (two, signed)."""
    base = tmp_path_factory.mktemp("images")
    layouts.write(base / "old", seed="old", signatures=["old"])
    for arch in ("amd64", "arm64"):
        layouts.write(base / arch, seed="new", arch=arch, size=50_000, signatures=["new"])
    return {
        "old": publication.content([publication.read(base / "old")]),
        "new": publication.content([publication.read(base / arch) for arch in ("amd64", "arm64")]),
    }


_OPEN: list[Transport | RegistrySource] = []


@pytest.fixture(autouse=True)
def _closed() -> Iterator[None]:
    yield
    while _OPEN:
        _OPEN.pop().close()


def repository(address: str, name: str, patience: Patience = QUICK) -> Repository:
    _OPEN.append(transport := Transport(Reference.parse(f"{address}/{name}"), patience=patience, logins=lambda host: None))
    return Repository(transport)


def source_of(address: str, name: str) -> RegistrySource:
    _OPEN.append(source := RegistrySource(Reference.parse(f"{address}/{name}"), patience=QUICK))
    return source


def fresh() -> str:
    return f"team/kernel-{next(numbers):06}"


def send(address: str, name: str, content: Content, options: Options = SMALL, patience: Patience = QUICK) -> Pushed:
    return push(repository(address, name, patience), content, options, lambda words: None)


def tags_of(address: str, name: str, content: Content) -> dict[str, str | None]:
    place = repository(address, name)
    return {each.tag: place.manifest_digest(each.tag) for each in content.tags}


def wanted(content: Content) -> dict[str, str | None]:
    return {each.tag: each.document.digest for each in content.tags}


def check_whole(place: Repository, digest: str) -> None:
    """Everything below an index or manifest is there, and is what its digest says."""
    body = json.loads(place.manifest(digest).data)
    for entry in body.get("manifests", []):
        check_whole(place, entry["digest"])
    for entry in [body["config"], *body["layers"]] if "layers" in body else []:
        data = b"".join(place.blob(entry["digest"]))
        assert len(data) == entry["size"]
        assert f"sha256:{hashlib.sha256(data).hexdigest()}" == entry["digest"]


def test_a_push_brings_everything_and_a_second_one_sends_nothing(registry: RealRegistry, images: dict[str, Content]) -> None:
    name, content = fresh(), images["new"]
    done = send(registry.address, name, content)
    assert done.tags == len(content.tags) == 6
    assert done.bytes_sent == sum(blob.size for blob in content.blobs)
    assert tags_of(registry.address, name, content) == wanted(content)
    place = repository(registry.address, name)
    for document in content.manifests:
        check_whole(place, document.digest)
    before = registry.writes()
    assert any(name in line for line in before)
    assert send(registry.address, name, content) == Pushed()
    assert registry.writes() == before


def test_signatures_are_found_by_tag_and_by_subject(registry: RealRegistry, images: dict[str, Content]) -> None:
    name, content = fresh(), images["new"]
    send(registry.address, name, content)
    source = source_of(registry.address, f"{name}:6.1.192-amd64")
    index = json.loads(source.manifest(source.image))
    digest = next(each.document.digest for each in content.tags if each.tag == "6.1.192-amd64")
    assert index["manifests"][0]["platform"] == {"architecture": "amd64", "os": "linux"}
    (found,) = source.referrers(digest)
    assert found["artifactType"] == layouts.BUNDLE
    assert found["annotations"] == {"words": "new"}
    bundle = json.loads(source.manifest(found["digest"]))
    assert b"".join(source.blob(bundle["layers"][0]["digest"])) == b"new"
    assert b"".join(source.blob(found["digest"])) == source.manifest(found["digest"])
    signature = json.loads(source.manifest(fallback_tag(digest) + ".sig"))
    assert [layer["annotations"]["dev.cosignproject.cosign/signature"] for layer in signature["layers"]] == ["new"]


def test_what_others_attached_stays(registry: RealRegistry, tmp_path: Path) -> None:
    name = fresh()
    layouts.write(tmp_path / "theirs", seed="s", signatures=["theirs"])
    layouts.write(tmp_path / "ours", seed="s", signatures=["ours", "theirs"])
    digest = ""
    for who in ("theirs", "ours", "theirs"):
        content = publication.content([publication.read(tmp_path / who)])
        send(registry.address, name, content)
        digest = content.tags[0].document.digest
    source = source_of(registry.address, name)
    assert [each["annotations"]["words"] for each in source.referrers(digest)] == ["theirs", "ours"]
    tagged = source.manifest(fallback_tag(digest) + ".sig")
    body = json.loads(tagged)
    assert [each["annotations"]["dev.cosignproject.cosign/signature"] for each in body["layers"]] == ["theirs", "ours"]
    config = json.loads(b"".join(source.blob(body["config"]["digest"])))
    assert len(config["rootfs"]["diff_ids"]) == 2
    check_whole(repository(registry.address, name), fallback_tag(digest) + ".sig")


def test_a_tag_that_names_its_content_never_changes(registry: RealRegistry, tmp_path: Path) -> None:
    """The same record with other bytes: a build that was not reproducible."""
    name = fresh()
    layouts.write(tmp_path / "one", seed="one")
    index = layouts.write(tmp_path / "two", seed="two")
    (tmp_path / "two/result.json").write_text(json.dumps(layouts.result("one", index=index)))
    one, two = (publication.content([publication.read(tmp_path / each)]) for each in ("one", "two"))
    send(registry.address, name, one)
    before = registry.writes()
    with pytest.raises(FarmError) as caught:
        send(registry.address, name, two)
    assert caught.value.problem.code is Code.CONFLICT
    assert registry.writes() == before
    assert tags_of(registry.address, name, one) == wanted(one)
    send(registry.address, name, two, Options(replace=True))
    assert tags_of(registry.address, name, two) == wanted(two)


def test_a_tag_does_not_lose_an_architecture_unasked(registry: RealRegistry, images: dict[str, Content]) -> None:
    name = fresh()
    send(registry.address, name, images["new"])
    with pytest.raises(FarmError, match="linux/arm64") as caught:
        send(registry.address, name, images["old"])
    assert caught.value.problem.code is Code.CONFLICT
    assert tags_of(registry.address, name, images["new"]) == wanted(images["new"])
    send(registry.address, name, images["old"], Options(replace=True))
    assert tags_of(registry.address, name, images["old"]) == wanted(images["old"])


def test_blobs_of_a_neighbour_are_mounted(registry: RealRegistry, images: dict[str, Content]) -> None:
    first, second = fresh(), fresh()
    send(registry.address, first, images["old"])
    done = send(registry.address, second, images["old"], Options(mount_from=("team/nothing", first)))
    assert (done.blobs, done.bytes_sent, done.mounted) == (0, 0, len(images["old"].blobs))
    check_whole(repository(registry.address, second), "6.1.192")


# Not shrunk: each example is a push, and what fails says by itself which tag is where.
@settings(max_examples=12, deadline=None, phases=(Phase.reuse, Phase.generate))
@given(request=st.floats(min_value=0, max_value=1), within=st.floats(min_value=0, max_value=1))
def test_a_push_broken_off_at_any_byte_leaves_every_tag_on_whole_content(
    registry: RealRegistry, images: dict[str, Content], request: float, within: float
) -> None:
    """Any request is as likely as any other to be the one in which it breaks, and so is any byte of it."""
    starts = request_starts(registry, images)
    number = round(request * (len(starts) - 2))
    break_off(registry, images, starts[number] + round(within * (starts[number + 1] - starts[number])))


def test_a_push_broken_off_among_its_tags_has_moved_them_in_order(registry: RealRegistry, images: dict[str, Content]) -> None:
    """The last requests are one for each tag."""
    starts = request_starts(registry, images)
    tags = images["new"].tags
    for number in (0, 3, len(tags) - 1):
        now = break_off(registry, images, starts[number - 1 - len(tags)] + 50)
        assert [now[each.tag] == each.document.digest for each in tags] == [True] * number + [False] * (len(tags) - number)


def break_off(registry: RealRegistry, images: dict[str, Content], cut: int) -> dict[str, str | None]:
    """Push the new image over the old one through a line that dies after `cut` bytes, and check what is there; what the tags name then."""
    name = with_old(registry, images)
    with Proxy(registry.address, cut_after=max(1, cut), dead=True) as proxy:
        with pytest.raises(FarmError) as caught:
            send(proxy.address, name, images["new"], patience=Patience(attempts=2, first_seconds=0.001))
        passed = bytes(proxy.passed)
    assert caught.value.problem.code is Code.UNAVAILABLE
    now = tags_of(registry.address, name, images["new"])
    old, new = wanted(images["old"]), wanted(images["new"])
    place = repository(registry.address, name)
    for tag, digest in now.items():
        assert digest in (old.get(tag), new[tag])
        if digest is not None:
            check_whole(place, digest)
        if digest == new[tag] and tag.endswith(("-amd64", "-arm64")):
            assert place.referrers(digest)[0], "a tag moved before the signatures were there"
            assert place.manifest_digest(f"{fallback_tag(digest)}.sig")
    if f"/{name}/manifests/6.1.192".encode() not in b"".join(line for line in passed.split(b"\r\n") if line.startswith(b"PUT ")):
        assert now == {tag: old.get(tag) for tag in now}
    return now


def test_after_a_push_that_was_broken_off_the_next_one_sends_what_is_missing(registry: RealRegistry, images: dict[str, Content]) -> None:
    name, new = with_old(registry, images), images["new"]
    with Proxy(registry.address, cut_after=request_starts(registry, images)[-1] // 2, dead=True) as proxy, pytest.raises(FarmError):
        send(proxy.address, name, new, patience=Patience(attempts=2, first_seconds=0.001))
    done = send(registry.address, name, new)
    assert 0 < done.bytes_sent < sum(blob.size for blob in new.blobs)
    assert tags_of(registry.address, name, new) == wanted(new)
    for tag in wanted(new):
        check_whole(repository(registry.address, name), tag)


def with_old(registry: RealRegistry, images: dict[str, Content]) -> str:
    """A repository with the old image: a copy of one that was pushed, since pushing is slow."""
    if "repository" not in _OLD:
        _OLD["repository"] = fresh()
        send(registry.address, _OLD["repository"], images["old"])
    name = fresh()
    shutil.copytree(registry.repository(_OLD["repository"]), registry.repository(name))
    return name


_OLD: dict[str, str] = {}
_STARTS: list[int] = []


def request_starts(registry: RealRegistry, images: dict[str, Content]) -> list[int]:
    """After how many bytes from the client each request of a whole push over the old image begins; last, a little before the end:
    what follows the last byte breaks nothing."""
    if not _STARTS:
        name = with_old(registry, images)
        with Proxy(registry.address) as proxy:
            send(proxy.address, name, images["new"])
            passed = bytes(proxy.passed)
        _STARTS.extend(match.start() for match in re.finditer(rb"(GET|HEAD|POST|PUT|PATCH) /v2/\S* HTTP/1\.1\r\n", passed))
        _STARTS.append(len(passed) - 100)
    return _STARTS


def test_a_connection_that_breaks_now_and_then_does_not_break_the_push(registry: RealRegistry, tmp_path: Path) -> None:
    """In the middle of chunks. This registry can't go on within a chunk, so the blob is begun anew."""
    layouts.write(tmp_path, seed="large", size=200_000)
    content = publication.content([publication.read(tmp_path)])
    name = fresh()
    with Proxy(registry.address, cut_after=130_000, times=2) as proxy:
        send(proxy.address, name, content, Options(chunk_bytes=100_000))
    assert tags_of(registry.address, name, content) == wanted(content)
    check_whole(repository(registry.address, name), "6.1.192")


def test_a_session_that_the_registry_forgot_is_begun_anew(registry: RealRegistry, tmp_path: Path) -> None:
    """Its folder is removed while the connection is broken, as the registry itself does with old ones."""
    layouts.write(tmp_path, seed="forgotten", size=200_000)
    content = publication.content([publication.read(tmp_path)])
    name = fresh()
    heard: list[str] = []

    def forget(words: str) -> None:
        uploads = registry.repository(name) / "_uploads"
        sessions = list(uploads.iterdir()) if uploads.exists() else []
        if not heard and sessions:
            heard.append(words)
            for session in sessions:
                shutil.rmtree(session)

    push(repository(registry.address, name), content, SMALL, forget)
    assert heard
    assert tags_of(registry.address, name, content) == wanted(content)
    check_whole(repository(registry.address, name), "6.1.192")


def test_a_blob_that_the_registry_has_wrongly_is_sent_again_or_said(registry: RealRegistry, tmp_path: Path) -> None:
    layouts.write(tmp_path, seed="damaged")
    content = publication.content([publication.read(tmp_path)])
    name = fresh()
    send(registry.address, name, content)
    blob = content.blobs[1]
    registry.blob_file(blob.digest).write_bytes(b"cut")
    with pytest.raises(FarmError) as caught:
        b"".join(repository(registry.address, name).blob(blob.digest))
    assert caught.value.problem.code is Code.BAD_DIGEST
    # docker-registry keeps what it has under a digest, so this one can't be mended from outside: that is said, tags stay.
    with pytest.raises(FarmError) as caught:
        send(registry.address, name, content)
    assert caught.value.problem.code is Code.BAD_DIGEST
    assert blob.digest in caught.value.problem.message


def test_damaged_content_of_the_same_size_is_noticed_on_reading(registry: RealRegistry, tmp_path: Path) -> None:
    index = layouts.write(tmp_path, seed="flipped")
    content = publication.content([publication.read(tmp_path)])
    name = fresh()
    send(registry.address, name, content)
    source = source_of(registry.address, name)
    for digest, read in ((content.blobs[0].digest, source.blob), (index, lambda found: [source.manifest(found)])):
        path = registry.blob_file(digest)
        data = path.read_bytes()
        path.write_bytes(data.replace(data[5:6], b"!"))
        with pytest.raises(FarmError) as caught:
            b"".join(read(digest))
        assert caught.value.problem.code in (Code.BAD_DIGEST, Code.UNAVAILABLE)
