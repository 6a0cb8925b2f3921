"""How a kernel is split: which kbuild goals go into which shard. Pure; the same inventory gives the same plan.

Goals are `dir/` (everything below) or `path/foo.o`. A folder without a Makefile or Kbuild of its own builds nothing as a
goal, so its objects are named. Some folders are never goals: what they make depends on the whole kernel. A single object of a
detached folder is no goal either: the folder above it, which knows nothing of it, would compile it first, with its own flags.
Nor is an object that the makefile of a folder above its own compiles: both folders would.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

# Made by the link step of each architecture: init and usr hold version and initramfs, certs hold keys, the others are host tools.
_LINK_ONLY = ("scripts", "tools", "usr", "init", "certs", "samples")
# Its objects become others under the same names: the link step's.
_STUB = "drivers/firmware/efi/libstub"
# One `make` call costs about two CPU-seconds before its first compile, so a shard has to be worth many times that.
_SHORTEST_SECONDS = 12.0
# More shards than slots, so that a slow worker gets fewer and the last ones are short.
_SHARDS_PER_SLOT = 3
# What a compile costs on a core of 2020: most of it is headers, some is the file itself. Only proportions matter for the balance.
_SECONDS_EACH = 0.35
_SECONDS_PER_BYTE = 5e-6


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """One object that an ordinary build would compile: its path in the output tree and the size of its source (bytes). `made_in`: the
    folder above whose makefile compiles it, although kbuild enters its own too (drivers/gpu/drm makes bridge/panel.o); "": its own."""

    path: str
    size: int = 0
    made_in: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Detached:
    """A folder that kbuild enters from one further above, although it enters a folder between them too: arch/x86/lib, beside arch/x86,
    from the top (""), drivers/input/serio, beside drivers/input, from drivers."""

    folder: str
    entered_from: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What there is to compile, as kbuild itself lists it; `folders` are those with a Makefile or Kbuild of their own; `link_only`
    those of the architecture whose objects no shard may make."""

    units: tuple[Unit, ...]
    folders: tuple[str, ...]
    detached: tuple[Detached, ...] = ()
    link_only: tuple[str, ...] = ()

    def coverable(self, unit: Unit) -> bool:
        """Whether a shard may make this object."""
        top, _, rest = unit.path.partition("/")
        if unit.made_in or not rest or top in _LINK_ONLY or not unit.path.endswith(".o"):
            return False
        return not any(unit.path.startswith(f"{folder}/") for folder in (_STUB, *self.link_only))


@dataclass(frozen=True, slots=True, kw_only=True)
class Shard:
    """Goals of one compile step, how many objects they make, and an estimate of their cost in CPU-seconds."""

    goals: tuple[str, ...]
    objects: int
    weight_seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`covered` objects are made by the shards, `link_only` ones are left to the link step."""

    shards: tuple[Shard, ...]
    covered: int
    link_only: int


@dataclass(frozen=True, slots=True)
class _Piece:
    goals: tuple[str, ...]
    objects: int
    weight: float


def weight(unit: Unit) -> float:
    """CPU-seconds that compiling this object takes, guessed from its source; docs/adr/0005-inventory-by-dry-run.md says why."""
    return _SECONDS_EACH + unit.size * _SECONDS_PER_BYTE


def plan(inventory: Inventory, *, slots: int, longest_seconds: float = 120.0) -> Plan:
    """Split an inventory for a farm of `slots` (attempts at a time) into shards of at most about `longest_seconds` of CPU time."""
    units = sorted((unit for unit in inventory.units if inventory.coverable(unit)), key=lambda unit: unit.path)
    total = sum(weight(unit) for unit in units)
    wanted = total / max(1, slots * _SHARDS_PER_SLOT)
    target = min(longest_seconds, max(_SHORTEST_SECONDS, wanted))
    tree = _Tree(units, frozenset(inventory.folders), frozenset(_impure(inventory)), inventory.detached)
    pieces = tree.pieces("", target / 3)
    shards = _pack(pieces, min(len(pieces), max(1, round(total / target))))
    return Plan(shards=shards, covered=len(units), link_only=len(inventory.units) - len(units))


def _impure(inventory: Inventory) -> Iterable[str]:
    """Folders that can't be goals as a whole, because something below them is the link step's."""
    for unit in inventory.units:
        if not inventory.coverable(unit):
            parts = unit.made_in.split("/") if unit.made_in else unit.path.split("/")[:-1]
            yield from ("/".join(parts[: depth + 1]) for depth in range(len(parts)))


class _Tree:
    """Folders below the one that kbuild enters them from, which is what a goal makes; for detached ones that is not their parent."""

    def __init__(self, units: Sequence[Unit], folders: frozenset[str], impure: frozenset[str], detached: Sequence[Detached]) -> None:
        self._folders = folders
        self._entered_from = {each.folder: each.entered_from for each in detached}
        self._impure = impure
        self._own: dict[str, list[Unit]] = defaultdict(list)
        self._below: dict[str, set[str]] = defaultdict(set)
        for unit in units:
            parts = unit.path.split("/")[:-1]
            self._own["/".join(parts)].append(unit)
            for depth in range(len(parts)):
                folder = "/".join(parts[: depth + 1])
                self._below[self._entered_from.get(folder, "/".join(parts[:depth]))].add(folder)

    def pieces(self, folder: str, limit: float) -> list[_Piece]:
        """Indivisible pieces of at most about `limit` CPU-seconds: whole folders where that is possible, else single objects;
        detached folders as a whole."""
        objects, seconds = self._sum(folder)
        if not objects:
            return []
        fits = seconds <= limit or objects == 1 or folder in self._entered_from
        if folder and folder in self._folders and folder not in self._impure and fits:
            return [_Piece((f"{folder}/",), objects, seconds)]
        pieces = [piece for child in sorted(self._below[folder]) for piece in self.pieces(child, limit)]
        pieces += [_Piece((unit.path,), 1, weight(unit)) for unit in self._own[folder]]
        return pieces

    def _sum(self, folder: str) -> tuple[int, float]:
        own = self._own[folder]
        objects, seconds = len(own), sum(weight(unit) for unit in own)
        for child in self._below[folder]:
            below = self._sum(child)
            objects, seconds = objects + below[0], seconds + below[1]
        return objects, seconds


def _pack(pieces: Sequence[_Piece], count: int) -> tuple[Shard, ...]:
    """Neighbours stay together: a shard that touches few folders reads few makefiles. Cuts fall where the running total says so."""
    total = sum(piece.weight for piece in pieces)
    shards: list[list[_Piece]] = [[] for _ in range(count)]
    done = 0.0
    for piece in pieces:
        middle = done + piece.weight / 2
        shards[min(count - 1, int(middle / total * count))].append(piece)
        done += piece.weight
    made = [
        Shard(
            goals=tuple(goal for piece in shard for goal in piece.goals),
            objects=sum(piece.objects for piece in shard),
            weight_seconds=round(sum(piece.weight for piece in shard), 3),
        )
        for shard in shards
        if shard
    ]
    return tuple(sorted(made, key=lambda shard: (-shard.weight_seconds, shard.goals)))
