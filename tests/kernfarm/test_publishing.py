"""`kernfarm fetch` and `kernfarm push` as people and scripts see them; the farm is played, the registry is real."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from kernel.errors import Code, FarmError
from kernfarm import layout, publication
from kernfarm.cli import arguments, main, publishing
from kernfarm.cli.output import Output
from kernfarm.client import BuildInfo, FarmClient
from tests.fakes import layouts
from tests.fakes.registries import RealRegistry, real


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with real(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(autouse=True)
def _no_logins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    monkeypatch.delenv("ORG", raising=False)


class Farm:
    """Has finished builds, whose images are layouts on disk."""

    def __init__(self, folder: Path, builds: dict[str, tuple[str, str]]) -> None:
        self.folder = folder
        self.builds = builds
        for name, (arch, suffix) in builds.items():
            layouts.write(folder / name, seed="s", arch=arch, suffix=suffix)

    async def get(self, name: str) -> BuildInfo:
        if name not in self.builds:
            return {"id": name, "state": "running"}
        image = publication.read(self.folder / name)
        digests = [path.name for path in (self.folder / name / "blobs/sha256").iterdir()]
        return {
            "id": name,
            "state": "succeeded",
            "arch": self.builds[name][0],
            "release": json.loads((self.folder / name / "result.json").read_text())["release"],
            "images": [{"index": image.index.digest, "blobs": [{"digest": f"sha256:{each}"} for each in digests]}],
            "attachments": [],
        }

    async def download(self, digest: str, to: Path) -> None:
        for name in self.builds:
            path = layout.blob_path(self.folder / name, digest)
            if path.exists():
                to.write_bytes(path.read_bytes())

    async def result(self, name: str) -> dict[str, Any]:
        return dict(json.loads((self.folder / name / "result.json").read_text()))


@pytest.fixture
def farm(tmp_path: Path) -> Farm:
    return Farm(tmp_path / "farm", {"a": ("amd64", ""), "b": ("arm64", ""), "d": ("amd64", "-dbg")})


def fetch(farm: Farm, *words: str, json_mode: bool = True) -> int:
    parsed = arguments.parser(Path("state")).parse_args(["fetch", *words])
    return asyncio.run(publishing.fetch(parsed, cast(FarmClient, farm), Output(json_mode=json_mode)))


def run(words: Sequence[str], capsys: pytest.CaptureFixture[str]) -> tuple[int, dict[str, Any], str]:
    code = main.main([*words, "--json"])
    said = capsys.readouterr()
    return code, json.loads(said.out) if said.out else {}, said.err


def test_builds_of_two_architectures_are_fetched_and_pushed_as_one(
    farm: Farm, registry: RealRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(farm, "a", "b", "--to", str(tmp_path / "to"), "--push", f"{registry.address}/acme/kernel") == 0
    said = capsys.readouterr()
    answer = json.loads(said.out)
    assert [row["build"] for row in answer["builds"]] == ["a", "b"]
    tags = {row["tag"]: row["digest"] for row in answer["pushed"]["tags"]}
    assert set(tags) >= {"6.1.192", "6.1.192-amd64", "6.1.192-arm64"}
    assert len(tags) == 6
    assert "tagged" in said.err and "MB sent" in said.err
    top = json.loads((tmp_path / "to/index.json").read_text())["manifests"][0]
    assert top["annotations"]["org.opencontainers.image.ref.name"] == f"{registry.address}/acme/kernel:6.1.192"
    assert top["digest"] == tags["6.1.192"] == answer["image"]
    # The same from the folder, without a farm: nothing is left to do.
    code, again, _ = run(["push", str(tmp_path / "to"), f"{registry.address}/acme/kernel"], capsys)
    assert code == 0
    assert {row["tag"]: row["digest"] for row in again["pushed"]["tags"]} == tags
    assert set(again["pushed"]["sent"].values()) == {0}
    assert again["pushed"]["repository"] == f"{registry.address}/acme/kernel"


def test_flavours_go_to_folders_and_tags_of_their_own(
    farm: Farm, registry: RealRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fetch(farm, "a", "d", "b", "--to", str(tmp_path / "to"), "--push", f"{registry.address}/acme/flavours") == 0
    answer = json.loads(capsys.readouterr().out)
    assert sorted(path.name for path in (tmp_path / "to").iterdir()) == ["6.1.192-linuxkit", "6.1.192-linuxkit-dbg"]
    tags = {row["tag"] for row in answer["pushed"]["tags"]}
    assert tags >= {"6.1.192", "6.1.192-arm64", "6.1.192-dbg", "6.1.192-dbg-amd64"}
    assert "6.1.192-dbg-arm64" not in tags


def test_one_build_is_fetched_as_ever(farm: Farm, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fetch(farm, "d", "--to", str(tmp_path / "to")) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["layout"] == str(tmp_path / "to")
    assert answer["image"] == publication.read(tmp_path / "to").index.digest
    top = json.loads((tmp_path / "to/index.json").read_text())["manifests"][0]
    assert top["annotations"]["io.containerd.image.name"] == "docker.io/linuxkit/kernel:6.1.192-dbg"
    assert fetch(farm, "d", "--to", str(tmp_path / "to"), "--org", "ghcr.io/acme", json_mode=False) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "to")
    assert "ghcr.io/acme/kernel:6.1.192-dbg" in (tmp_path / "to/index.json").read_text()


def test_without_to_nothing_is_left_on_disk(
    farm: Farm, registry: RealRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(scratch))
    assert fetch(farm, "a", "--push", f"{registry.address}/acme/alone:mine", json_mode=False) == 0
    assert list(scratch.iterdir()) == []
    assert capsys.readouterr().out.startswith(f"{registry.address}/acme/alone:mine\tsha256:")


@pytest.mark.parametrize(
    ("words", "code", "part"),
    [
        (["a"], Code.INVALID_ARGUMENT, "--to DIR"),
        (["a", "--push", "UPPER/case"], Code.INVALID_ARGUMENT, "no repository"),
        (["a", "--push", "r.example/k@sha256:" + "0" * 64], Code.INVALID_ARGUMENT, "digest"),
        (["nowhere", "--to", "x"], Code.INVALID_ARGUMENT, "running"),
        (["a", "--to", "x", "--org", "UPPER"], Code.INVALID_ARGUMENT, "no repository"),
    ],
)
def test_wrong_words_are_refused_before_anything_is_fetched(
    farm: Farm, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], code: Code, part: str
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FarmError) as caught:
        fetch(farm, *words)
    assert caught.value.problem.code is code
    assert part in str(caught.value)
    assert not (tmp_path / "x").exists()


def test_exit_codes_of_push(
    registry: RealRegistry, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    layouts.write(tmp_path / "image", seed="s")
    code, _, err = run(["push", str(tmp_path / "nothing"), f"{registry.address}/a/b"], capsys)
    assert code == 2 and "no OCI layout" in err
    with socket.create_server(("127.0.0.1", 0)) as listener:
        dead = listener.getsockname()[1]
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    code, _, err = run(["push", str(tmp_path / "image"), f"127.0.0.1:{dead}/a/b"], capsys)
    assert code == 4 and str(dead) in err and "hint" in err
    with real(tmp_path / "read-only", storage={"maintenance": {"readonly": {"enabled": True}}}) as closed:
        code, _, err = run(["push", str(tmp_path / "image"), f"{closed.address}/a/b"], capsys)
    assert code == 2 and "does not support POST" in err and "read-only" in err
