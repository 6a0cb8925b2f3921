"""The steps in a row on the fake kernel, without a farm: that the split gives plain make's bytes, and that its traps are noticed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from bench.plain import context_of, plain_make
from kernel import elf, make, randstruct, tables
from kernel import plan as plans
from kernel.codec import from_plain
from kernel.errors import Code, FarmError
from kernel.spec import ConfigSpec, NamedBlob, SourceKind, SourceSpec
from kernel.steps import (
    CompileResult,
    CompileTask,
    ConfigureTask,
    LinkResult,
    LinkTask,
    PrepareResult,
    PrepareTask,
    SourceTask,
    Tree,
)
from kernfarm import process
from kernfarm.settings import WorkerSettings
from tests.fakes import fake_linux
from worker import archive, layers
from worker.context import Context
from worker.node import Node
from worker.steps import compile as compile_step
from worker.steps import configure, link, prepare, source

FIXED: dict[str, Any] = {"arch": "x86_64", "toolchain": "gcc-12"}


@dataclass
class Bench:
    """A node, and a fresh context for each step."""

    node: Node
    home: Path
    count: int = 0
    words: dict[str, Any] = field(default_factory=lambda: dict(FIXED))

    def run(self, step: Any, task: Any) -> Any:
        self.count += 1
        with self.node.scratch(f"step-{self.count}") as scratch:
            return step.run(self.context(scratch), task)

    def context(self, scratch: Path) -> Context:
        return context_of(self.node, scratch, Tree(tarball="", version=""), jobs=2, **self.words)


@pytest.fixture
def bench(open_folder: Path) -> Iterator[Bench]:
    node = Node(WorkerSettings(state_dir=open_folder / "worker", blobs_url=f"file://{open_folder}/blobs", compile_cache=False))
    yield Bench(node, open_folder)


@dataclass
class Prepared:
    tree: Tree
    config: str
    result: PrepareResult
    inventory: plans.Inventory
    shards: tuple[plans.Shard, ...]


def prepared(bench: Bench, edits: dict[str, str | None] | None = None, fragment: str = "") -> Prepared:
    """Up to the plan, with a shard for each object or folder."""
    tarball = fake_linux.tarball(bench.home / "linux.tar", edits)
    digest, _ = bench.node.blobs.put_file(tarball)
    tree = bench.run(source, SourceTask(source=SourceSpec(kind=SourceKind.FILE, ref="linux.tar", digest=digest))).tree
    asked = NamedBlob(name="my.config", digest=bench.node.blobs.put_bytes(fragment.encode()))
    spec = ConfigSpec(fragments=(asked,))
    config = bench.run(configure, ConfigureTask(tree=tree, flavour="plain", config=spec, local_version="-t", **bench.words)).config
    result = bench.run(prepare, PrepareTask(tree=tree, config=config, domain="d", **bench.words))
    inventory = from_plain(plans.Inventory, json.loads(bench.node.blobs.get_bytes(result.inventory)))
    goals: dict[str, list[str]] = {}
    for unit in inventory.units:
        if inventory.coverable(unit):
            goals.setdefault(unit.path.partition("/")[0], []).append(unit.path)
    shards = tuple(plans.Shard(goals=tuple(paths), objects=len(paths), weight_seconds=1.0) for paths in goals.values())
    return Prepared(tree, config, result, inventory, shards)


def compiled(bench: Bench, work: Prepared, shard: plans.Shard) -> CompileResult:
    task = CompileTask(
        tree=work.tree, prepared=work.result.layer, domain="d", goals=shard.goals, objects=shard.objects, weight_seconds=1.0, **bench.words
    )
    return bench.run(compile_step, task)  # type: ignore[no-any-return]


def linked(bench: Bench, work: Prepared, shards: tuple[str, ...]) -> LinkResult:
    task = LinkTask(tree=work.tree, prepared=work.result.layer, inventory=work.result.inventory, shards=shards, domain="d", **bench.words)
    return bench.run(link, task)  # type: ignore[no-any-return]


def files_of(bench: Bench, layer: str) -> dict[str, str]:
    with bench.node.scratch("look") as scratch:
        context = bench.context(scratch)
        to = archive.make_folder(scratch / "to", context.sandbox)
        layers.unpack(context, layer, to, name="layer")
        return {path: hashlib.sha256((to / path).read_bytes()).hexdigest() for path in layers.scan(to) if not (to / path).is_symlink()}


@pytest.mark.parametrize(("arch", "toolchain"), [("x86_64", "gcc-12"), ("arm64", "gcc-12"), ("x86_64", "clang-14")])
def test_the_split_gives_the_bytes_of_a_plain_make(bench: Bench, arch: str, toolchain: str) -> None:
    bench.words.update(arch=arch, toolchain=toolchain)
    work = prepared(bench)
    results = [compiled(bench, work, shard) for shard in work.shards]
    assert len(results) >= 4
    done = linked(bench, work, tuple(result.layer for result in results))
    assert done.unplanned == ()
    found = files_of(bench, done.layer)
    config = bench.home / "config"
    config.write_bytes(bench.node.blobs.get_bytes(work.config))
    blobs = bench.node.settings.blobs_url
    with plain_make(state=bench.home / "plain", blobs_url=blobs, tree=work.tree, config=config, jobs=3, **bench.words) as plain:
        images = ("vmlinux", "System.map", tables.arch(arch).image_path, "Module.symvers")
        names = [path for path in found if path in images or path.endswith(".ko")]
        assert len(names) >= 5
        assert {elf.machine((plain.out / name).read_bytes()) for name in names} == {0, tables.arch(arch).elf_machine}
        for name in names:
            assert hashlib.sha256((plain.out / name).read_bytes()).hexdigest() == found[name], name
        assert work.result.compiled + sum(result.compiled for result in results) + done.compiled == len(plain.compiled)


def test_a_tree_that_calls_itself_a_path_is_refused(bench: Bench) -> None:
    top = fake_linux.files()["scripts/Makefile.top"].decode()
    hostile = top.replace("@echo $(KERNELRELEASE)", "@echo ../../elsewhere")
    assert hostile != top
    with pytest.raises(FarmError) as caught:
        prepared(bench, {"scripts/Makefile.top": hostile})
    assert caught.value.problem.code is Code.BAD_CONFIG
    assert "../../elsewhere" in caught.value.problem.message


@pytest.mark.parametrize("fragment", ["", "CONFIG_RANDSTRUCT=y\n"], ids=["plain", "randstruct"])
def test_the_reproducing_line_makes_the_same_bytes(bench: Bench, fragment: str) -> None:
    """As a user would run it: by hand, with tree and config where it says, without any of our code."""
    work = prepared(bench, fragment=fragment)
    assert bool(work.result.randstruct_seed) == bool(fragment)
    found = files_of(bench, linked(bench, work, tuple(compiled(bench, work, shard).layer for shard in work.shards)).layer)
    line = make.reproduce(config=work.config, seed=work.result.randstruct_seed, **bench.words)
    out = bench.home / "by-hand"
    out.mkdir()
    (out / ".config").write_bytes(bench.node.blobs.get_bytes(work.config))
    with bench.node.trees.checkout(work.tree, bench.node.sandbox) as source:
        script = f"mount -t tmpfs none /build && mkdir /build/src /build/out && mount --bind {source.path} /build/src && "
        script += f"mount --bind {out} /build/out && {line}"
        words = ("unshare", "--mount", "/bin/sh", "-c", f"mkdir -p /build && {script}")
        done = process.run(words, env={"PATH": "/usr/bin:/bin:/usr/sbin:/sbin"}, timeout_seconds=120)
    assert done.code == 0, done.output.decode()
    for name in ("vmlinux", "arch/x86/boot/bzImage", "Module.symvers", "fs/fakefs.ko"):
        assert hashlib.sha256((out / name).read_bytes()).hexdigest() == found[name], name


def test_the_seed_of_randstruct_follows_from_tree_and_config_alone(bench: Bench) -> None:
    fragment = "CONFIG_RANDSTRUCT=y\n"
    one = prepared(bench, fragment=fragment)
    again = bench.run(prepare, PrepareTask(tree=one.tree, config=one.config, domain="d", **bench.words))
    assert again.randstruct_seed == one.result.randstruct_seed
    assert files_of(bench, again.layer)[randstruct.SEED] == hashlib.sha256(f"{again.randstruct_seed}\n".encode()).hexdigest()
    assert prepared(bench, {"README": "changed"}, fragment).result.randstruct_seed != one.result.randstruct_seed


def test_options_of_a_base_config_that_do_not_stick_are_told_with_the_reason(bench: Bench) -> None:
    tree = prepared(bench).tree
    text = "CONFIG_FAKE_NEVER=y\nCONFIG_FAKE_FS=y\n" + "".join(f"CONFIG_GONE_{number}=y\n" for number in range(30))
    base = ConfigSpec(base="file", file=NamedBlob(name="old.config", digest=bench.node.blobs.put_bytes(text.encode())))
    task = ConfigureTask(tree=tree, flavour="plain", config=base, local_version="-t", **bench.words)
    warnings = bench.run(configure, task).warnings
    expected = "old.config:1: CONFIG_FAKE_NEVER did not stick: asked y, got n; it depends on FAKE_MISSING (is FAKE_MISSING=n)"
    assert warnings[0] == expected
    assert len(warnings) == 21
    assert warnings[-1].startswith("11 more options")


def test_the_order_of_the_shards_does_not_matter(bench: Bench) -> None:
    work = prepared(bench)
    layers_ = tuple(compiled(bench, work, shard).layer for shard in work.shards)
    one, two = linked(bench, work, layers_), linked(bench, work, layers_[::-1])
    assert files_of(bench, one.layer) == files_of(bench, two.layer)


def test_a_shard_that_was_lost_is_seen_in_what_the_link_step_compiles(bench: Bench) -> None:
    work = prepared(bench)
    results = [compiled(bench, work, shard) for shard in work.shards]
    done = linked(bench, work, tuple(result.layer for result in results[1:]))
    assert set(work.shards[0].goals) <= set(done.unplanned)
    whole = linked(bench, work, tuple(result.layer for result in results))
    assert files_of(bench, done.layer) == files_of(bench, whole.layer), "the bytes are right all the same"


def test_objects_older_than_a_prepared_header_would_be_compiled_again_and_be_noticed(bench: Bench) -> None:
    """What clocks of different nodes would do to shards, if their times came from clocks."""
    work = prepared(bench)
    results = [compiled(bench, work, shard) for shard in work.shards]
    with bench.node.scratch("old") as scratch:
        context = bench.context(scratch)
        old = archive.make_folder(scratch / "old", context.sandbox)
        layers.unpack(context, results[0].layer, old, name="shard")
        entries = layers.scan(old)
        digest = layers.pack(replace(context, epoch=context.epoch - 100), old, entries, entries, layers.Base.SHARD)
    done = linked(bench, work, (digest, *(result.layer for result in results[1:])))
    assert done.unplanned, "objects older than what they were made from were taken for good"


def test_a_shard_that_rewrites_the_prepared_layer_fails_loudly(bench: Bench) -> None:
    rule = "\n$(shell echo '// x' >> include/generated/autoconf.h)\n"
    work = prepared(bench, {"lib/Makefile": fake_linux.files()["lib/Makefile"].decode() + rule})
    shard = next(shard for shard in work.shards if shard.goals[0].startswith("lib/"))
    with pytest.raises(FarmError) as caught:
        compiled(bench, work, shard)
    assert caught.value.problem.code is Code.INTERNAL
    assert "prepared layer" in caught.value.problem.message


def test_what_every_call_rewrites_is_in_no_shard_layer(bench: Bench) -> None:
    work = prepared(bench)
    found = files_of(bench, compiled(bench, work, work.shards[0]).layer)
    assert not {"Makefile", ".missing-syscalls.d"} & set(found)


def test_a_folder_without_a_makefile_is_no_goal_but_its_objects_are_made(bench: Bench) -> None:
    work = prepared(bench)
    made = plans.plan(work.inventory, slots=1)
    goals = {goal for shard in made.shards for goal in shard.goals}
    assert "drivers/gpu/gt/" not in goals
    assert "drivers/gpu/gt" not in work.inventory.folders
    assert any(unit.path.startswith("drivers/gpu/gt/") for unit in work.inventory.units)


def test_a_source_that_does_not_compile_names_file_line_and_the_compilers_words(bench: Bench) -> None:
    broken = fake_linux.files()["lib/checksum.c"].decode() + "\nint broken(void) { return no_such_thing; }\n"
    work = prepared(bench, {"lib/checksum.c": broken})
    shard = next(shard for shard in work.shards if shard.goals[0].startswith("lib/"))
    with pytest.raises(FarmError) as caught:
        compiled(bench, work, shard)
    assert caught.value.problem.code is Code.KERNEL_DOES_NOT_BUILD
    assert caught.value.problem.where.startswith("lib/checksum.c:")
    assert "no_such_thing" in caught.value.problem.message
