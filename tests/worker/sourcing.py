"""The source step, run as the executor runs it."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from bench.plain import context_of
from kernel.errors import Code, FarmError
from kernel.spec import SourceKind, SourceSpec
from kernel.steps import SourceResult, SourceTask, Tree
from kernfarm.settings import SourceSettings
from worker.node import Node
from worker.steps import source

ENV = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}


def run(node: Node, spec: SourceSpec, settings: SourceSettings | None = None, cancel: threading.Event | None = None) -> SourceResult:
    with node.scratch("source") as scratch:
        context = context_of(node, scratch, Tree(tarball="", version=""), arch="x86_64", toolchain="gcc-12", jobs=1)
        context = replace(context, sources=settings or SourceSettings(), cancel=cancel or threading.Event())
        return source.run(context, SourceTask(source=spec))


def refused(node: Node, spec: SourceSpec, settings: SourceSettings | None = None) -> tuple[Code, str]:
    with pytest.raises(FarmError) as caught:
        run(node, spec, settings)
    return caught.value.problem.code, str(caught.value)


def upload(node: Node, path: Path) -> SourceSpec:
    digest, _ = node.blobs.put_file(path)
    return SourceSpec(kind=SourceKind.FILE, ref=path.name, digest=digest)
