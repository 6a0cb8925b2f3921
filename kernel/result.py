"""The result record of a build: what went in, what it cost, what came out, and how to make the same bytes by hand."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from kernel.codec import to_plain
from kernel.errors import Problem
from kernel.spec import BuildSpec
from kernel.steps import PackageResult, PrepareResult, SourceResult, Usage

# Keep in step with worker.kbuild.ENVIRONMENT; a test compares them.
ENVIRONMENT = {
    "LC_ALL": "C",
    "TZ": "UTC",
    "KBUILD_BUILD_TIMESTAMP": "Sun Sep  9 01:46:40 UTC 2001",
    "KBUILD_BUILD_USER": "kernfarm",
    "KBUILD_BUILD_HOST": "kernfarm",
    "KBUILD_BUILD_VERSION": "1",
}


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
    config: str,
    prepared: PrepareResult | None,
    packaged: PackageResult | None,
    problem: Problem | None,
    make: Sequence[str],
) -> dict[str, Any]:
    """The record as JSON values. `make` is the make command of the link step."""
    return {
        "build": build_id,
        "state": state,
        "inputs": {"spec": to_plain(spec), "source": to_plain(source), "config": config},
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
        "reproduce": reproduce(make, config),
    }


def reproduce(make: Sequence[str], config: str) -> str:
    """One command line: with the tree (patches applied) at /build/src and the config of that digest at /build/out/.config."""
    words = " ".join(f"{key}={shlex.quote(value)}" for key, value in ENVIRONMENT.items())
    return f"umask 022 && env -i PATH=/usr/bin:/bin {words} {shlex.join(make)}  # {config} is /build/out/.config"
