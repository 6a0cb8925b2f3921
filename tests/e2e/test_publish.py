"""From one request for two architectures to a signed image in a registry, as a team does it with the command line."""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from kernfarm import process
from tests import debian
from tests.e2e.conftest import RealFarm
from tests.fakes import registries
from tests.fakes.registries import RealRegistry
from tests.kernels import draft

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(1800)]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RealRegistry]:
    with registries.real(tmp_path_factory.mktemp("registry")) as found:
        yield found


@pytest.fixture(scope="module")
def request_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The request of the other tests, for both architectures: both are built when those have run, and are built here when not."""
    folder = tmp_path_factory.mktemp("request")
    words = draft("x86_64", "arm64")
    lines = [f"source: {words.source}", f"arch: [{', '.join(words.arch)}]", "config:", f"  base: {words.base}"]
    for arch, fragments in words.arch_fragments:
        for path in fragments:
            shutil.copyfile(path, folder / path.name)
        lines.append(f"  {arch}: [{', '.join(path.name for path in fragments)}]")
    (folder / "kernfarm.yaml").write_text("\n".join(lines) + "\n")
    return folder / "kernfarm.yaml"


def kernfarm(farm: RealFarm, *words: str) -> process.Completed:
    """The command line as a user calls it; the output is stdout alone."""
    path = os.pathsep.join(entry for entry in sys.path if entry)
    talk = farm.home / "talk"
    env = {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": str(farm.home), "TALK": str(talk), **farm.embedded.environment}
    program = str(Path(sys.executable).with_name("kernfarm"))
    done = process.run(("sh", "-c", 'exec "$0" "$@" 2>"$TALK"', program, *words), env=env, timeout_seconds=1500)
    assert done.code == 0, talk.read_text()
    return done


def cosign(suite: str, home: Path, *words: str) -> process.Completed:
    program = debian.program("cosign", suite, "usr/bin/cosign")
    return process.run((str(program), *words), env={"PATH": os.environ["PATH"], "HOME": str(home)}, timeout_seconds=120, cwd=home)


def test_one_request_becomes_one_signed_index_in_a_registry(
    real_farm: RealFarm, registry: RealRegistry, request_file: Path, tmp_path: Path
) -> None:
    made = json.loads(kernfarm(real_farm, "build", str(request_file), "--json").output)
    builds = [build["id"] for build in made]
    assert [build["arch"] for build in made] == ["x86_64", "arm64"]
    repository = f"{registry.address}/linuxkit/kernel"
    pushed = json.loads(kernfarm(real_farm, "fetch", *builds, "--push", repository, "--json").output)["pushed"]
    tags = {each["tag"]: each["digest"] for each in pushed["tags"]}
    moving = [tag for tag in tags if tag.count(".") == 2 and "-" not in tag]
    assert len(moving) == 1, tags
    assert {f"{moving[0]}-amd64", f"{moving[0]}-arm64"} <= set(tags)
    key = str(real_farm.state / "signer/cosign.pub")
    for tag in tags:
        kernfarm(real_farm, "verify", f"{repository}:{tag}", "--key", key, "--builder", "urn:kernfarm:builder:embedded")
        for suite in ("trixie", "sid"):
            flags = ("--key", key, "--insecure-ignore-tlog=true", "--allow-http-registry=true")
            done = cosign(suite, tmp_path, "verify", *flags, f"{repository}:{tag}")
            assert done.code == 0, done.output.decode()
    before = registry.writes()
    kernfarm(real_farm, "fetch", *builds, "--push", repository)
    assert registry.writes() == before, "a second push sends nothing"
