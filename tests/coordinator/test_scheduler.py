from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from coordinator.fleet import WorkerInfo
from coordinator.scheduler import SIGNER, ReadyStep, assign, refuse, why_waiting
from kernel.errors import Code
from kernel.steps import StepKind


def worker(name: str, *, slots: int = 1, arch: str = "x86_64") -> WorkerInfo:
    return WorkerInfo(
        worker_id=name,
        name=name,
        arches=(arch,),
        toolchains=("gcc-12",),
        slots=slots,
        jobs=1,
        memory_bytes=1,
        sandbox="s",
        cgroup="c",
        ccache="1",
        boots=(arch,),
        builds=(f"{arch}/gcc-12",),
    )


def step(
    name: str, *, at: float = 0, kind: StepKind = StepKind.COMPILE, weight: float = 0, arch: str = "x86_64", avoid: str = ""
) -> ReadyStep:
    return ReadyStep(
        build_id=f"b{at}",
        step=name,
        kind=kind,
        arch=arch,
        toolchain="gcc-12",
        submitted_at=at,
        weight_seconds=weight,
        avoid=frozenset({avoid} - {""}),
    )


steps = st.lists(
    st.builds(
        step,
        st.text("abc", min_size=1, max_size=4),
        at=st.integers(0, 3).map(float),
        kind=st.sampled_from([kind for kind in StepKind if kind is not StepKind.SIGN]),
        weight=st.floats(0, 9),
        arch=st.sampled_from(["x86_64", "arm64"]),
    ),
    max_size=12,
    unique_by=lambda each: (each.build_id, each.step),
)
workers = st.lists(
    st.builds(worker, st.text("xyz", min_size=1, max_size=3), slots=st.integers(1, 3), arch=st.sampled_from(["x86_64", "arm64"])),
    max_size=5,
    unique_by=lambda each: each.worker_id,
)


@given(ready=steps, there=workers, load=st.integers(0, 2), seed=st.integers())
def test_never_too_many_never_the_wrong_one_whatever_the_order(
    ready: list[ReadyStep], there: list[WorkerInfo], load: int, seed: int
) -> None:
    busy = {each.worker_id: min(load, each.slots) for each in there}
    chosen = assign(ready, there, busy)
    by_id = {each.worker_id: each for each in there}
    by_step = {(each.build_id, each.step): each for each in ready}
    for each in there:
        assert busy[each.worker_id] + sum(choice.worker_id == each.worker_id for choice in chosen) <= each.slots
    assert all(by_step[choice.build_id, choice.step].arch in by_id[choice.worker_id].arches for choice in chosen)
    free = sum(each.slots - busy[each.worker_id] for each in there)
    if len(chosen) < min(free, len(ready)):
        left = [each for key, each in by_step.items() if key not in {(choice.build_id, choice.step) for choice in chosen}]
        full = {choice.worker_id: 0 for choice in chosen}
        for choice in chosen:
            full[choice.worker_id] += 1
        for each in left:
            able = [one for one in there if each.arch in one.arches]
            assert all(busy[one.worker_id] + full.get(one.worker_id, 0) >= one.slots for one in able)
    mixed_steps, mixed_workers = list(ready), list(there)
    random.Random(seed).shuffle(mixed_steps)
    random.Random(seed).shuffle(mixed_workers)
    assert assign(mixed_steps, mixed_workers, busy) == chosen


def test_signing_takes_no_workers_slot() -> None:
    chosen = assign([step("sign", kind=StepKind.SIGN), step("s", at=1)], [worker("a")], {})
    assert {(choice.step, choice.worker_id) for choice in chosen} == {("sign", SIGNER), ("s", "a")}
    assert [choice.worker_id for choice in assign([step("sign", kind=StepKind.SIGN)], [], {})] == [SIGNER]


def test_a_kernel_is_booted_where_qemu_is() -> None:
    able, without = worker("b"), replace(worker("a"), boots=())
    ready = [step("boot", kind=StepKind.BOOT), step("s", at=1)]
    assert [choice.worker_id for choice in assign(ready, [without, able], {})] == ["b", "a"]
    assert assign(ready[:1], [without], {}) == []
    problem = refuse([without], "x86_64", "gcc-12", boot=True)
    assert problem is not None and problem.code is Code.NO_WORKER and "--no-boot" in problem.hint
    assert refuse([without, able], "x86_64", "gcc-12", boot=True) is None
    assert "no worker can boot" in why_waiting(ready[0], [without])


def test_older_builds_first_later_steps_first_longer_shards_first() -> None:
    ready = [
        step("short", weight=1),
        step("long", weight=9),
        step("link", kind=StepKind.LINK),
        step("young", at=5, weight=99),
    ]
    order = [choice.step for choice in assign(ready, [worker("w", slots=4)], {})]
    assert order == ["link", "long", "short", "young"]


def test_a_worker_where_it_failed_is_the_last_resort() -> None:
    assert assign([step("s", avoid="a")], [worker("a"), worker("b")], {})[0].worker_id == "b"
    assert assign([step("s", avoid="a")], [worker("a")], {})[0].worker_id == "a"


def test_load_is_spread() -> None:
    chosen = assign([step("s"), step("t")], [worker("a", slots=2), worker("b", slots=2)], {})
    assert {choice.worker_id for choice in chosen} == {"a", "b"}


def test_a_worker_with_both_words_but_not_together_can_not_build_it() -> None:
    """Clang makes arm64 wherever it is; gcc does only with the cross compiler."""
    there = replace(worker("a"), arches=("arm64", "x86_64"), toolchains=("clang-14", "gcc-12"), builds=("arm64/clang-14", "x86_64/gcc-12"))
    assert assign([step("s", arch="arm64")], [there], {}) == []
    assert refuse([there], "arm64", "gcc-12") is not None
    assert refuse([there], "arm64", "clang-14") is None


def test_what_no_worker_can_do_is_refused_with_all_that_would_make_it_possible() -> None:
    problem = refuse([replace(worker("a"), builds=("arm64/clang-14", "x86_64/gcc-12"))], "arm64", "gcc-12", boot=True)
    assert problem is not None
    assert problem.code is Code.NO_WORKER
    assert problem.message == "no worker can build arm64 with gcc-12; no worker can boot arm64"
    for way in (
        "apt-get install gcc-12 gcc-12-aarch64-linux-gnu libc6-dev-arm64-cross",
        "--toolchain clang-14",
        "apt-get install qemu-system-arm",
        "--no-boot",
        "possible now: arm64 with clang-14, x86_64 with gcc-12",
    ):
        assert way in problem.hint
    assert refuse([worker("a")], "x86_64", "gcc-12") is None
    empty = refuse([], "x86_64", "gcc-12")
    assert empty is not None
    assert "no worker" in empty.message
    assert "busy" in why_waiting(step("s"), [worker("a")])
