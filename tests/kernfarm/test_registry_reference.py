from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kernel.errors import Code, FarmError
from kernfarm.registry.reference import Reference

DIGEST = "sha256:" + "0" * 64


@pytest.mark.parametrize(
    ("text", "host", "repository", "tag", "digest"),
    [
        ("kernel", "docker.io", "library/kernel", "", ""),
        ("linuxkit/kernel:6.1", "docker.io", "linuxkit/kernel", "6.1", ""),
        ("index.docker.io/linuxkit/kernel", "docker.io", "linuxkit/kernel", "", ""),
        ("localhost/kernel", "localhost", "kernel", "", ""),
        ("localhost:5000/a/b/c:x", "localhost:5000", "a/b/c", "x", ""),
        ("[::1]:5000/kernel", "[::1]:5000", "kernel", "", ""),
        (f"ghcr.io/acme/kernel:6.1@{DIGEST}", "ghcr.io", "acme/kernel", "6.1", DIGEST),
        ("r.example:443/a__b/c-d--e.f", "r.example:443", "a__b/c-d--e.f", "", ""),
    ],
)
def test_parts(text: str, host: str, repository: str, tag: str, digest: str) -> None:
    assert Reference.parse(text) == Reference(host=host, repository=repository, tag=tag, digest=digest)


@pytest.mark.parametrize(
    "text",
    [
        "", ":", "/", "UPPER/case", "https://ghcr.io/acme/kernel", "ghcr.io/acme/kernel:", "ghcr.io/acme/kernel:-x", "a//b", "a/../b",
        "kernel@sha256:00", "kernel@", "r.example:port/kernel", "r.example:443/", "-r.example/kernel", "a/b?c", "a/b:c/d",
        "kernel\n", "a/" + "b" * 300,
    ],
)  # fmt: skip
def test_what_is_none_is_refused(text: str) -> None:
    with pytest.raises(FarmError) as caught:
        Reference.parse(text)
    assert caught.value.problem.code is Code.INVALID_ARGUMENT
    assert caught.value.problem.where == text


@given(
    st.text(max_size=30) | st.from_regex(r"([a-z]{1,4}[.:][a-z0-9]{1,4}/)?[a-z]{1,3}(/[a-z_.-]{1,4}){0,2}(:[a-z.]{1,4})?", fullmatch=True)
)
def test_a_reference_survives_being_written(text: str) -> None:
    try:
        found = Reference.parse(text)
    except FarmError:
        return
    assert Reference.parse(str(found)) == found


@pytest.mark.parametrize(
    ("text", "loopback"),
    [
        ("localhost/a", True), ("localhost:5000/a", True), ("127.0.0.1:5000/a", True), ("127.9.9.9:1/a", True), ("[::1]:5000/a", True),
        ("127.0.0.1.evil.example/a", False), ("localhost.evil.example:80/a", False), ("10.0.0.1:5000/a", False), ("a/b", False),
        ("127.999.1.1/a", False), ("[::2]:5000/a", False), ("[0:0:0:0:0:0:0:1]:5000/a", True),
    ],
)  # fmt: skip
def test_only_this_machine_is_loopback(text: str, loopback: bool) -> None:
    assert Reference.parse(text).loopback is loopback
