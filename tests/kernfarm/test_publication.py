from __future__ import annotations

import json
from pathlib import Path

import pytest

from kernel import oci
from kernel.errors import Code, FarmError
from kernfarm import layout, publication, tags
from tests.fakes import layouts


def test_two_architectures_make_one_index_and_each_keeps_its_own(tmp_path: Path) -> None:
    intel = layouts.write(tmp_path / "amd64", seed="s")
    arm = layouts.write(tmp_path / "arm64", seed="s", arch="arm64")
    images = [publication.read(tmp_path / name) for name in ("arm64", "amd64")]
    content = publication.content(images)
    named = {each.tag: each.document for each in content.tags}
    over_all = json.loads(named["6.1.192"].data)
    assert [oci.platform_of(each) for each in over_all["manifests"]] == ["linux/amd64", "linux/arm64"]
    assert all(set(each) >= {"mediaType", "digest", "size", "platform"} for each in over_all["manifests"])
    assert named["6.1.192-amd64"].digest == intel
    assert named["6.1.192-arm64"].digest == arm
    content_hash = tags.content_hash([part.record.inputs for image in images for part in image.parts if part.record])
    assert named[f"6.1.192-{content_hash}"].digest == named["6.1.192"].digest
    assert named[f"6.1.192-{content_hash}-arm64"].digest == arm
    assert {named[tag].digest for tag in named} <= {each.digest for each in content.manifests}


def unite(tmp_path: Path) -> tuple[Path, list[str]]:
    """One layout of two architectures, as fetch writes it; the digests of the builds' own indexes."""
    folder = tmp_path / "both"
    own = []
    for arch in ("amd64", "arm64"):
        own.append(layouts.write(folder, seed="s", arch=arch))
        (folder / "result.json").rename(folder / f"result-{arch}.json")
    layout.finish(folder, layout.unite(folder, own), reference="docker.io/linuxkit/kernel:6.1.192")
    return folder, own


def test_one_layout_of_two_architectures_is_pushed_like_two_of_one(tmp_path: Path) -> None:
    folder, own = unite(tmp_path)
    for arch in ("amd64", "arm64"):
        layouts.write(tmp_path / arch, seed="s", arch=arch)
    one = publication.content([publication.read(folder)])
    two = publication.content([publication.read(tmp_path / arch) for arch in ("amd64", "arm64")])
    assert one.tags == two.tags
    assert {each.digest for each in one.manifests} == {each.digest for each in two.manifests} >= set(own)
    assert {each.digest for each in one.blobs} == {each.digest for each in two.blobs}
    assert publication.read(folder).platforms == ("linux/amd64", "linux/arm64")


def test_records_that_are_not_of_the_whole_image_are_noticed(tmp_path: Path) -> None:
    folder, _ = unite(tmp_path)
    (folder / "result-arm64.json").unlink()
    with pytest.raises(FarmError, match="not of all of the image") as caught:
        publication.content([publication.read(folder)])
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_the_index_over_all_comes_last_and_what_never_changes_before_what_moves(tmp_path: Path) -> None:
    for arch in ("amd64", "arm64"):
        layouts.write(tmp_path / arch, seed="s", arch=arch)
    content = publication.content([publication.read(tmp_path / arch) for arch in ("amd64", "arm64")])
    order = [each.tag for each in content.tags]
    assert order[-3:] == ["6.1.192-amd64", "6.1.192-arm64", "6.1.192"]
    assert [each.moving for each in content.tags] == [False] * 3 + [True] * 3


def test_one_architecture_alone_keeps_its_index_and_flavours_keep_apart(tmp_path: Path) -> None:
    plain = layouts.write(tmp_path / "plain", seed="s")
    debug = layouts.write(tmp_path / "dbg", seed="d", suffix="-dbg")
    content = publication.content([publication.read(tmp_path / name) for name in ("plain", "dbg")])
    named = {each.tag: each.document.digest for each in content.tags}
    assert named["6.1.192"] == named["6.1.192-amd64"] == plain
    assert named["6.1.192-dbg"] == debug


def test_the_index_that_was_signed_is_pushed_byte_for_byte(tmp_path: Path) -> None:
    """Whatever it holds: one made anew of the same images would have another digest, and no signature."""
    own = layouts.write(tmp_path / "amd64", seed="s", more={"annotations": {"a": "b"}})
    layouts.write(tmp_path / "arm64", seed="s", arch="arm64")
    content = publication.content([publication.read(tmp_path / arch) for arch in ("amd64", "arm64")])
    assert {each.document.digest for each in content.tags if each.tag.endswith("-amd64")} == {own}
    assert own in {each.digest for each in content.manifests}


def test_a_tag_of_ones_own_is_the_only_one(tmp_path: Path) -> None:
    index = layouts.write(tmp_path, seed="s")
    (tmp_path / "result.json").unlink()
    content = publication.content([publication.read(tmp_path)], tag="mine")
    assert [(each.tag, each.document.digest, each.moving) for each in content.tags] == [("mine", index, True)]
    with pytest.raises(FarmError, match=r"no result\.json"):
        publication.content([publication.read(tmp_path)])


def test_two_images_for_one_platform_are_refused_with_both_places(tmp_path: Path) -> None:
    for name in ("one", "two"):
        layouts.write(tmp_path / name, seed=name)
    with pytest.raises(FarmError) as caught:
        publication.content([publication.read(tmp_path / name) for name in ("one", "two")])
    assert caught.value.problem.code is Code.CONFLICT
    assert "one" in caught.value.problem.message and "two" in caught.value.problem.message


def test_attachments_come_with_tag_subject_and_blobs(tmp_path: Path) -> None:
    index = layouts.write(tmp_path, seed="s", signatures=["first"])
    image = publication.read(tmp_path)
    signature, referrer, fallback = (each.attachment for each in image.attached)
    assert signature.tag == "sha256-" + index.removeprefix("sha256:") + ".sig"
    assert (referrer.tag, referrer.subject, referrer.artifact_type) == ("", index, layouts.BUNDLE)
    assert fallback.media_type == oci.INDEX
    known = {blob.digest for blob in image.blobs}
    assert {blob.digest for each in (signature, referrer) for blob in each.blobs} <= known


def test_every_blob_is_checked_before_anything_is_sent(tmp_path: Path) -> None:
    layouts.write(tmp_path, seed="s", signatures=["first"])
    for path in sorted((tmp_path / "blobs/sha256").iterdir()):
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(FarmError) as caught:
            publication.read(tmp_path)
        assert caught.value.problem.code is Code.BAD_DIGEST
        path.unlink()
        with pytest.raises(FarmError) as caught:
            publication.read(tmp_path)
        assert caught.value.problem.code is Code.MISSING_FILE
        path.write_bytes(data)
    publication.read(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"manifests": []}',
        '{"manifests": [{}]}',
        '{"manifests": [{"mediaType": "x"}]}',
        '{"manifests": [7]}',
        "[" * 100_000,
    ],
)
def test_a_hostile_index_is_refused(tmp_path: Path, text: str) -> None:
    layouts.write(tmp_path, seed="s")
    (tmp_path / "index.json").write_text(text)
    with pytest.raises(FarmError) as caught:
        publication.read(tmp_path)
    assert caught.value.problem.code is Code.BAD_ARCHIVE


def test_a_digest_is_no_path(tmp_path: Path) -> None:
    layouts.write(tmp_path, seed="s")
    top = json.loads((tmp_path / "index.json").read_text())
    top["manifests"][0]["digest"] = "sha256:../../index.json"
    (tmp_path / "index.json").write_text(json.dumps(top))
    with pytest.raises(FarmError, match="not a sha256 digest"):
        publication.read(tmp_path)


def test_a_record_of_another_image_is_noticed(tmp_path: Path) -> None:
    layouts.write(tmp_path / "one", seed="one")
    layouts.write(tmp_path / "two", seed="two")
    (tmp_path / "one/result.json").write_bytes((tmp_path / "two/result.json").read_bytes())
    with pytest.raises(FarmError, match="another image"):
        publication.read(tmp_path / "one")


def test_the_layout_is_what_extract_reads_too(tmp_path: Path) -> None:
    layouts.write(tmp_path / "image", seed="s")
    (tmp_path / "to").mkdir()
    assert layout.extract(tmp_path / "image", "linux/amd64", tmp_path / "to") == ["kernel", "kernel-dev.tar"]
