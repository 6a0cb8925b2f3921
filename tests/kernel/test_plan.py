from __future__ import annotations

import random
from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from kernel import tables
from kernel.plan import Detached, Inventory, Unit, plan

FOLDERS = (
    "kernel",
    "mm",
    "drivers/net",
    "drivers/gpu/drm/i915",
    "drivers/gpu/drm/i915/gt",
    "fs/ext4",
    "arch/x86/boot",
    "init",
    "usr",
    "lib",
)
HAVE_MAKEFILE = frozenset(
    {"kernel", "mm", "drivers", "drivers/net", "drivers/gpu/drm/i915", "fs", "fs/ext4", "lib", "init", "arch/x86/boot"}
)

units = st.lists(
    st.builds(
        lambda folder, name, size: Unit(path=f"{folder}/f{name}.o", size=size),
        st.sampled_from(FOLDERS),
        st.integers(0, 60),
        st.integers(0, 400_000),
    ),
    max_size=150,
    unique_by=lambda unit: unit.path,
)


def inventory(found: list[Unit]) -> Inventory:
    return Inventory(units=tuple(found), folders=tuple(sorted(HAVE_MAKEFILE)), link_only=("arch/x86/boot",))


def made_by(goal: str, found: list[Unit]) -> list[str]:
    """What kbuild makes for a goal."""
    if goal.endswith("/"):
        return [unit.path for unit in found if unit.path.startswith(goal)]
    return [goal]


@given(found=units, slots=st.integers(1, 9))
def test_each_coverable_object_is_in_exactly_one_shard(found: list[Unit], slots: int) -> None:
    made = plan(inventory(found), slots=slots)
    objects = [path for shard in made.shards for goal in shard.goals for path in made_by(goal, found)]
    assert sorted(objects) == sorted(unit.path for unit in found if inventory(found).coverable(unit))
    assert made.covered == len(objects) == sum(shard.objects for shard in made.shards)
    assert made.covered + made.link_only == len(found)


@given(found=units, slots=st.integers(1, 9))
def test_folders_are_goals_only_where_kbuild_can_make_them(found: list[Unit], slots: int) -> None:
    for shard in plan(inventory(found), slots=slots).shards:
        assert shard.goals
        for goal in shard.goals:
            if goal.endswith("/"):
                assert goal.rstrip("/") in HAVE_MAKEFILE
                assert all(inventory(found).coverable(Unit(path=path)) for path in made_by(goal, found))


@given(found=units, slots=st.integers(1, 9), seed=st.integers())
def test_the_order_of_the_inventory_makes_no_difference(found: list[Unit], slots: int, seed: int) -> None:
    mixed = list(found)
    random.Random(seed).shuffle(mixed)
    assert plan(inventory(found), slots=slots) == plan(inventory(mixed), slots=slots)


def test_a_large_kernel_has_several_shards_a_slot_of_similar_size_longest_first() -> None:
    found = [Unit(path=f"drivers/d{index % 40}/f{index}.o", size=20_000) for index in range(3000)]
    folders = tuple(f"drivers/d{index}" for index in range(40))
    made = plan(Inventory(units=tuple(found), folders=folders), slots=2)
    weights = [shard.weight_seconds for shard in made.shards]
    assert len(weights) > 6
    assert weights == sorted(weights, reverse=True)
    assert max(weights) < 1.5 * min(weights)


def test_a_small_kernel_is_not_cut_into_crumbs() -> None:
    made = plan(Inventory(units=tuple(Unit(path=f"mm/f{index}.o") for index in range(30)), folders=("mm",)), slots=8)
    assert len(made.shards) == 1
    assert made.shards[0].goals == ("mm/",) or made.shards[0].objects == 30


def test_what_only_the_link_step_may_make() -> None:
    for path in (
        "init/main.o",
        "usr/initramfs_data.o",
        "arch/x86/boot/main.o",
        "scripts/mod/empty.o",
        "certs/system_keyring.o",
        "vmlinux.o",
    ):
        assert not inventory([]).coverable(Unit(path=path))
    assert inventory([]).coverable(Unit(path="arch/x86/kernel/setup.o"))


def test_no_shard_is_much_longer_than_the_longest_allowed() -> None:
    found = [Unit(path=f"drivers/d{index % 40}/f{index}.o", size=20_000) for index in range(3000)]
    folders = tuple(f"drivers/d{index}" for index in range(40))
    for longest in (20.0, 120.0):
        made = plan(Inventory(units=tuple(found), folders=folders), slots=1, longest_seconds=longest)
        assert 0.5 * longest < max(shard.weight_seconds for shard in made.shards) < 1.5 * longest


def test_a_detached_folder_is_never_cut_into_objects() -> None:
    found = [Unit(path=f"arch/x86/{name}/f{index}.o", size=400_000) for name in ("lib", "mm") for index in range(30)]
    detached = (Detached(folder="arch/x86/lib", entered_from=""),)
    made = plan(Inventory(units=tuple(found), folders=("arch/x86", "arch/x86/lib", "arch/x86/mm"), detached=detached), slots=4)
    goals = [goal for shard in made.shards for goal in shard.goals if goal.startswith("arch/x86/lib")]
    assert goals == ["arch/x86/lib/"]
    assert "arch/x86/mm/f0.o" in {goal for shard in made.shards for goal in shard.goals}
    assert sum(shard.objects for shard in made.shards) == 60


def test_a_folder_makes_only_what_kbuild_enters_from_it() -> None:
    """drivers/input does not make drivers/input/serio: drivers does, and so does the folder itself."""
    serio = Unit(path="drivers/input/serio/serio.o")
    large = tuple(Unit(path=f"fs/f{index}.o", size=400_000) for index in range(20))
    folders = ("drivers", "drivers/input", "drivers/input/serio", "fs")
    detached = (Detached(folder="drivers/input/serio", entered_from="drivers"),)

    def goals(*units: Unit, folders: tuple[str, ...] = folders) -> set[str]:
        made = plan(Inventory(units=(*units, *large), folders=folders, detached=detached), slots=1)
        assert made.covered == len(units) + len(large) == sum(shard.objects for shard in made.shards)
        return {goal for shard in made.shards for goal in shard.goals if goal.startswith("drivers")}

    key = Unit(path="drivers/input/key.o")
    assert goals(serio, key) == {"drivers/"}
    assert goals(serio, key, folders=folders[1:]) == {"drivers/input/", "drivers/input/serio/"}
    assert goals(serio, folders=folders[1:]) == {"drivers/input/serio/"}


def test_what_a_folder_above_compiles_too_is_the_link_steps() -> None:
    """Else two folders would compile it at once; and a goal for the one that does would make it beside the link step's count."""
    borrowed = Unit(path="drivers/gpu/drm/bridge/panel.o", made_in="drivers/gpu/drm")
    others = tuple(Unit(path=f"drivers/gpu/drm/{name}.o") for name in ("drm_drv", "bridge/tc358767"))
    found = Inventory(units=(borrowed, *others), folders=("drivers", "drivers/gpu", "drivers/gpu/drm", "drivers/gpu/drm/bridge"))
    assert not found.coverable(borrowed)
    made = plan(found, slots=1)
    assert {goal for shard in made.shards for goal in shard.goals} == {"drivers/gpu/drm/bridge/", "drivers/gpu/drm/drm_drv.o"}
    assert (made.covered, made.link_only) == (2, 1)


def test_what_is_left_to_the_link_step_is_the_architectures_own() -> None:
    found = Inventory(units=(), folders=(), link_only=tables.arch("arm64").link_only_folders)
    assert not found.coverable(Unit(path="arch/arm64/boot/wrapper.o"))
    assert not found.coverable(Unit(path="drivers/firmware/efi/libstub/arm64.o"))
    # x86's vDSO is below arch/x86/entry; on arm64 a folder of that name would be an ordinary one.
    assert found.coverable(Unit(path="arch/arm64/entry/common.o"))
    assert not replace(found, link_only=tables.arch("x86_64").link_only_folders).coverable(Unit(path="arch/x86/entry/common.o"))
