"""The configure step on the fake kernel: what fragments ask off."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bench.plain import context_of
from kernel.errors import Code, FarmError, Problem
from kernel.spec import ConfigSpec, NamedBlob, SourceKind, SourceSpec
from kernel.steps import ConfigureResult, ConfigureTask, SourceTask, Tree
from kernfarm.settings import WorkerSettings
from tests.fakes import fake_linux
from worker.node import Node
from worker.steps import configure, source

Configure = Callable[[str, str], ConfigureResult]


@pytest.fixture
def run(open_folder: Path) -> Iterator[Configure]:
    """Configures with a fragment, on top of a base config (none: defconfig)."""
    node = Node(WorkerSettings(state_dir=open_folder / "worker", blobs_url=f"file://{open_folder}/blobs", compile_cache=False))
    top = fake_linux.files()["Kconfig"].decode() + '\nsource "arch/$(SRCARCH)/Kconfig"\n'
    edits: dict[str, str | None] = {"Kconfig": top, "arch/x86/Kconfig": "config X86_THING\n\tbool\n"}
    digest, _ = node.blobs.put_file(fake_linux.tarball(open_folder / "linux.tar", edits))
    made = SourceTask(source=SourceSpec(kind=SourceKind.FILE, ref="linux.tar", digest=digest))
    with node.scratch("source") as scratch:
        tree = source.run(context_of(node, scratch, Tree(tarball="", version=""), arch="x86_64", toolchain="gcc-12", jobs=1), made).tree

    def configured(fragment: str, base: str) -> ConfigureResult:
        asked = NamedBlob(name="my.config", digest=node.blobs.put_bytes(fragment.encode()))
        spec = ConfigSpec(fragments=(asked,))
        if base:
            spec = ConfigSpec(
                base="file", file=NamedBlob(name="old.config", digest=node.blobs.put_bytes(base.encode())), fragments=(asked,)
            )
        task = ConfigureTask(tree=tree, arch="x86_64", flavour="plain", toolchain="gcc-12", config=spec, local_version="-t")
        with node.scratch("configure") as scratch:
            return configure.run(context_of(node, scratch, tree, arch="x86_64", toolchain="gcc-12", jobs=1), task)

    yield configured


def refused(run: Configure, fragment: str) -> Problem:
    with pytest.raises(FarmError) as caught:
        run(fragment, "")
    return caught.value.problem


@pytest.mark.parametrize("line", ["# CONFIG_DEBUG_INFOO is not set", "CONFIG_DEBUG_INFOO=n"])
def test_a_symbol_asked_off_that_does_not_exist_is_refused_with_the_one_that_was_meant(run: Configure, line: str) -> None:
    problem = refused(run, f"CONFIG_SMP=y\n{line}\n")
    assert (problem.code, problem.where) == (Code.BAD_CONFIG, "my.config:2")
    assert problem.message == "CONFIG_DEBUG_INFOO=n means nothing: this tree has no such symbol; did you mean CONFIG_DEBUG_INFO?"


def test_all_that_is_wrong_is_counted_in_the_order_it_was_asked(run: Configure) -> None:
    problem = refused(run, "CONFIG_FAKE_NEVER=y\nCONFIG_NOPE_AT_ALL=n\n")
    assert problem.where == "my.config:1"
    assert "(and 1 more, see the step's log)" in problem.message


def test_what_is_hidden_or_has_no_prompt_can_be_asked_off(run: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run("# CONFIG_FAKE_NEVER is not set\nCONFIG_X86_THING=n\n", "").config
    monkeypatch.setattr(configure.kconfig_language, "read", lambda *_: pytest.fail("the tree's Kconfig files were read without need"))
    assert run("# CONFIG_DEBUG_INFO is not set\n", "").config


def test_a_base_config_may_have_symbols_of_other_versions_off(run: Configure) -> None:
    assert run("", "# CONFIG_LONG_GONE is not set\n").warnings == ()
