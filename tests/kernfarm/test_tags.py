from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coordinator import views
from kernel.errors import Code, FarmError
from kernfarm import tags
from tests.fakes.built import FakeBuild
from tests.fakes.layouts import result

HASH = "0123456789abcdef0123456789abcdef01234567"
versions = st.from_regex(r"[1-9]\.[0-9]{1,2}(\.[0-9]{1,3})?(-rc[1-9])?", fullmatch=True)
suffixes = st.from_regex(r"(-[a-z0-9]{1,8}){0,3}", fullmatch=True)
arches = st.lists(st.sampled_from(["amd64", "arm64"]), unique=True, min_size=1)


def test_linuxkits_vocabulary() -> None:
    found = tags.tags(release="6.1.192-linuxkit-foo-dbg", version="6.1.192", content=HASH, arches=["amd64", "arm64"])
    assert found.index == (f"6.1.192-foo-dbg-{HASH}", "6.1.192-foo-dbg")
    assert found.arch["arm64"] == (f"6.1.192-foo-dbg-{HASH}-arm64", "6.1.192-foo-dbg-arm64")
    assert found.moving == {"6.1.192-foo-dbg", "6.1.192-foo-dbg-amd64", "6.1.192-foo-dbg-arm64"}


@given(versions, suffixes, arches)
def test_every_tag_is_one_that_registries_accept_and_is_of_one_thing_only(version: str, suffix: str, names: list[str]) -> None:
    found = tags.tags(release=f"{version}-linuxkit{suffix}", version=version, content=HASH, arches=names)
    every = [*found.index, *(tag for arch in names for tag in found.arch[arch])]
    assert len(set(every)) == len(every) == 2 + 2 * len(names)
    assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,127}", tag) for tag in every)
    # Whatever is not moving names its content.
    assert all((HASH in tag) != (tag in found.moving) for tag in every)


@given(st.text(max_size=140))
def test_what_is_accepted_is_what_the_specification_says(text: str) -> None:
    allowed = set("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.-")
    expected = 0 < len(text) <= 128 and set(text) <= allowed and text[0] not in ".-"
    assert tags.is_tag(text) is expected


def test_a_local_version_of_ones_own_stays_in_the_tag() -> None:
    assert tags.suffix("6.1.192-acme-dbg", "6.1.192") == "-acme-dbg"
    assert tags.suffix("6.1.192", "6.1.192") == ""


@pytest.mark.parametrize("release", ["6.1.192-linuxkit+", "6.1.192-" + "x" * 130])
def test_a_release_that_no_tag_can_hold_is_refused(release: str) -> None:
    with pytest.raises(FarmError) as caught:
        tags.tags(release=release, version="6.1.192", content=HASH, arches=["amd64"])
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert "--local-version" in caught.value.problem.hint
    with pytest.raises(FarmError, match="does not begin"):
        tags.suffix("6.1.191-linuxkit", "6.1.192")


def content_hash(records: Sequence[dict[str, Any]]) -> str:
    return tags.content_hash([tags.inputs_digest(each) for each in records])


@given(st.lists(st.text(max_size=5), min_size=1, max_size=4, unique=True), st.randoms())
def test_the_hash_follows_from_the_inputs_of_all_builds_in_any_order(seeds: list[str], random: Any) -> None:
    records = [result(seed) for seed in seeds]
    shuffled = random.sample(records, len(records))
    assert content_hash(records) == content_hash(shuffled)
    assert re.fullmatch("[0-9a-f]{40}", content_hash(records))
    assert content_hash([*records, result("one more", "arm64")]) != content_hash(records)


def changed(record: dict[str, Any], *path: str) -> dict[str, Any]:
    copy: dict[str, Any] = json.loads(json.dumps(record))
    place = copy
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = "changed"
    return copy


@pytest.mark.parametrize(
    "path",
    [
        ("inputs", "spec", "config"),
        ("inputs", "spec", "arch"),
        ("inputs", "spec", "patches"),
        ("inputs", "tree", "tarball"),
        ("inputs", "config"),
        ("toolchain", "compiler"),
    ],
)
def test_whatever_can_change_the_output_changes_the_hash(path: tuple[str, ...]) -> None:
    record = result("seed")
    assert content_hash([changed(record, *path)]) != content_hash([record])


def test_whose_build_it_was_how_it_went_and_how_json_writes_numbers_do_not() -> None:
    record = result("seed") | {"cpu_seconds": 1.5, "build": "a"}
    record["inputs"]["spec"]["number"] = 3
    same = changed(record, "inputs", "spec", "domain") | {"cpu_seconds": 9, "build": "b"}
    same["inputs"]["spec"]["number"] = 3.0
    assert content_hash([same]) == content_hash([record])


# What a record has for the digest, field by field, and that digest in the provenance of builds that were signed.
SIGNED: dict[str, Any] = {
    "inputs": {
        "config": "sha256:8df0ee607bb6445a7b001c3ff9fb0f5769a9f8686e8e72cd9ae783544b73b109",
        "source": {
            "facts": {
                "patches": [],
                "resolved": "6.1.999",
                "sha256": "77292c8fba673524ae78d8428400fab6636128c45dafd9f70d9162e54306d9ae",
                "signer": "A" * 40,
                "url": "https://example.org/linux-6.1.999.tar.xz",
            },
            "tree": {
                "tarball": "sha256:b608089734879cfb06c974d592537dd3e28086592f7f5556b82c836c8f7edb17",
                "upper": "",
                "version": "6.1.999",
            },
        },
        "spec": {
            "arch": "x86_64",
            "config": {"base": "defconfig", "base_fragments": [], "file": None, "fragments": []},
            "domain": "t",
            "extends": "",
            "flavour": "plain",
            "local_version": "-linuxkit",
            "outputs": ["kernel"],
            "patches": [{"digest": "sha256:36d65898ac88d593753dd8daccb2b42e725970f3f2e2259b9e69fdc2898a54b8", "name": "0001-fix.patch"}],
            "source": {"digest": "", "kind": "kernel.org", "ref": "6.1.999"},
            "toolchain": "gcc-12",
        },
        "tree": {
            "tarball": "sha256:b608089734879cfb06c974d592537dd3e28086592f7f5556b82c836c8f7edb17",
            "upper": "sha256:aee610558292023758a4229ddcf75f167c9904313a83cf795232ed7f7e2131c9",
            "version": "6.1.999",
        },
    },
    "toolchain": {"compiler": "gcc-12 (Debian 12.2.0) 12.2.0", "name": "gcc-12"},
}
SIGNED_DIGEST = "sha256:e21d06ea029d38bde03b1a1c58e7815203942a41ce920f434eaf170a645e8b7d"


def test_the_digest_of_builds_that_were_signed_stays(tmp_path: Path) -> None:
    """Whoever adds a field to a record's inputs changes the digest of every build there is: its record no longer is what its provenance
    says, and its tag with a hash another one. Leave a field's empty value out of the digest, then this holds unchanged."""
    assert tags.inputs_digest(SIGNED) == SIGNED_DIGEST
    build = FakeBuild(tmp_path)
    build.play().close()
    record = views.result_record(build.state)
    assert tags.inputs_digest(record) == SIGNED_DIGEST, {key: record[key] for key in SIGNED}


def test_an_organizations_repository() -> None:
    assert tags.repository("linuxkit") == "docker.io/linuxkit/kernel"
    assert tags.repository("ghcr.io/acme") == "ghcr.io/acme/kernel"
    assert tags.repository("localhost:5000", "perf") == "localhost:5000/perf"
