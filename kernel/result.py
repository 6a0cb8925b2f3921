"""The result record of a build: what went in, what it cost, what came out, and how to make the same bytes by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernel import make
from kernel.codec import to_plain
from kernel.errors import Problem
from kernel.spec import BuildSpec
from kernel.steps import PackageResult, PrepareResult, SourceResult, Tree, Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class StepRecord:
    """One step as it went: times in unix seconds, `usage` of the attempt that counted, compiler runs where there are any."""

    key: str
    state: str
    worker: str
    attempts: int
    reused: bool
    started_at: float
    ended_at: float
    usage: Usage
    compiled: int = 0
    unplanned: tuple[str, ...] = ()


def record(
    *,
    build_id: str,
    state: str,
    spec: BuildSpec,
    steps: Sequence[StepRecord],
    source: SourceResult | None,
    tree: Tree | None,
    config: str,
    prepared: PrepareResult | None,
    packaged: PackageResult | None,
    problem: Problem | None,
    warnings: Sequence[str],
) -> dict[str, Any]:
    """The record as JSON values."""
    return {
        "build": build_id,
        "state": state,
        "inputs": {"spec": to_plain(spec), "source": to_plain(source), "tree": to_plain(tree), "config": config},
        "toolchain": {"name": spec.toolchain, "compiler": prepared.compiler if prepared else ""},
        "release": prepared.release if prepared else "",
        "steps": [to_plain(step) for step in steps],
        "cpu_seconds": round(sum(step.usage.cpu_user_seconds + step.usage.cpu_system_seconds for step in steps if not step.reused), 3),
        "cache": {
            "hits": sum(step.usage.cache_hits for step in steps if not step.reused),
            "misses": sum(step.usage.cache_misses for step in steps if not step.reused),
            "saved_seconds": round(sum(step.usage.cache_saved_seconds for step in steps if not step.reused), 3),
        },
        "objects_compiled": sum(step.compiled for step in steps if not step.reused),
        "outputs": to_plain(packaged) if packaged else None,
        "problem": to_plain(problem) if problem else None,
        "warnings": list(warnings),
        "reproduce": make.reproduce(
            arch=spec.arch, toolchain=spec.toolchain, config=config, seed=prepared.randstruct_seed if prepared else ""
        ),
    }
