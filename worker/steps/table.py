"""Which function runs which kind of step."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from kernel.steps import Result, StepKind
from worker.context import Context
from worker.steps import boot, compile, configure, link, package, patch, prepare, source

STEPS: Mapping[StepKind, Callable[[Context, Any], Result]] = {
    StepKind.SOURCE: source.run,
    StepKind.PATCH: patch.run,
    StepKind.CONFIGURE: configure.run,
    StepKind.PREPARE: prepare.run,
    StepKind.COMPILE: compile.run,
    StepKind.LINK: link.run,
    StepKind.PACKAGE: package.run,
    StepKind.BOOT: boot.run,
}
