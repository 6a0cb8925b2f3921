"""Running make for a kernel, confined; kernel.make says how it is called."""

from __future__ import annotations

import contextlib
import re
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from kernel import make, tables
from kernel.diagnose import diagnose
from kernel.errors import Code, FarmError
from kernel.steps import Progress, Usage
from kernfarm.process import OnLine
from worker.ccache import Session
from worker.cgroup import Limits
from worker.context import Context
from worker.sandbox import Bind, Job, Outcome
from worker.trees import Checkout

SOURCE, OUT = make.SOURCE, make.OUT
PATH = "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin"
ENVIRONMENT = {**make.ENVIRONMENT, "HOME": "/tmp", "TMPDIR": "/tmp"}
_COMPILE = re.compile(rb"^  (?:CC|AS|CXX|RUSTC)(?: \[M\])? +(\S+\.o)$")
_WORD = re.compile(rb"^  ([A-Z][A-Z0-9_ \[\]]{1,12}?) +(\S+)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What a make call did: objects it announced to compile or assemble for the kernel, in order; and its output's tail."""

    compiled: tuple[str, ...]
    output: bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a build's commands run: a source tree seen at /build/src, an output tree at /build/out, for one arch and toolchain."""

    context: Context
    source: Checkout
    out: Path
    arch: str
    toolchain: str

    def make(self, *goals: str, variables: Mapping[str, str] | None = None, binds: Sequence[Bind] = (), cached: bool = True) -> Made:
        """Run make. Raises FarmError: what kernel.diagnose finds in the output of a failed build, OUT_OF_MEMORY, TIMEOUT,
        CANCELLED, SANDBOX_FAILED."""
        listener = _Listener(self.context)
        outcome = self._make(goals, listener, variables=variables, binds=binds, cached=cached)
        return Made(compiled=tuple(listener.compiled), output=outcome.output)

    def dry_run(self, *goals: str, on_line: OnLine) -> None:
        """`make -n`: hands on every line that make would execute; changes nothing that a build reads.

        Goes on after errors: what is linked from files that a dry run does not make can't be found (vmlinux.a, since 6.1.190)."""
        self.run(self._command(("-n", "-k", *goals)), on_line=on_line)

    def ask(self, goal: str) -> str:
        """The last line that a query goal prints (`kernelrelease`)."""
        outcome = self._make(("-s", "--no-print-directory", goal), self.context.log)
        return outcome.output.decode(errors="replace").strip().rpartition("\n")[2]

    def run(
        self,
        argv: tuple[str, ...],
        *,
        binds: Sequence[Bind] = (),
        on_line: OnLine | None = None,
        env: Mapping[str, str] | None = None,
        path_prefix: str = "",
        cwd: str = OUT,
    ) -> Outcome:
        """Any command, confined as all others."""
        context = self.context
        path = f"{path_prefix}:{PATH}" if path_prefix else PATH
        job = Job(
            argv=argv,
            binds=(Bind(host=self.source.path, inside=SOURCE), Bind(host=self.out, inside=OUT, writable=True), *binds),
            env={"PATH": path, **ENVIRONMENT, **(env or {})},
            cwd=cwd,
            limits=Limits(memory_bytes=context.attempt.memory_bytes, cpus=context.attempt.cpus),
            timeout_seconds=context.attempt.timeout_seconds,
        )
        outcome = context.sandbox.run(job, on_line=on_line or context.log, cancel=context.cancel)
        if outcome.code != 0 and outcome.out_of_memory:
            limit = context.attempt.memory_bytes >> 20
            raise FarmError(
                Code.OUT_OF_MEMORY, f"the step needed more than {limit} MiB of memory", hint="raise memory_bytes, or lower jobs"
            )
        return outcome

    def _command(self, goals: Sequence[str], variables: Mapping[str, str] | None = None) -> tuple[str, ...]:
        jobs = self.context.attempt.jobs
        return make.command(goals, arch=self.arch, toolchain=self.toolchain, jobs=jobs, variables=variables)

    def _make(
        self,
        goals: Sequence[str],
        on_line: OnLine,
        *,
        variables: Mapping[str, str] | None = None,
        binds: Sequence[Bind] = (),
        cached: bool = False,
    ) -> Outcome:
        argv = self._command(goals, variables)
        if cached:
            with _cache(self.context, _compilers(self.arch, self.toolchain), self.source.salt) as session:
                together = (*binds, *session.binds)
                outcome = self.run(argv, binds=together, on_line=on_line, env=session.env, path_prefix=session.path_prefix)
        else:
            outcome = self.run(argv, binds=binds, on_line=on_line)
        if outcome.code != 0:
            raise FarmError.of(diagnose(outcome.output))
        return outcome


def _compilers(arch: str, toolchain: str) -> tuple[str, ...]:
    return tuple(dict.fromkeys((tables.compiler(arch, toolchain), tables.toolchain(toolchain).hostcc)))


@contextlib.contextmanager
def _cache(context: Context, compilers: Sequence[str], salt: str) -> Iterator[Session]:
    folder = context.scratch / f"cache-{uuid.uuid4().hex[:8]}"
    with context.cache.session(context.attempt.domain, folder, compilers=compilers, salt=salt) as session:
        yield session
    stats = session.stats()
    context.meter.add(
        Usage(
            cache_hits=stats.hits,
            cache_misses=stats.misses,
            cache_errors=stats.errors,
            cache_saved_seconds=stats.saved_seconds,
        )
    )


class _Listener:
    """Reads what make announces: counts objects, tells progress a few times a second."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._next = 0.0
        self.compiled: list[str] = []

    def __call__(self, line: bytes) -> None:
        self._context.log(line)
        match = _COMPILE.match(line.rstrip())
        if match is not None:
            self.compiled.append(match[1].decode(errors="replace"))
        word = _WORD.match(line)
        now = time.monotonic()
        if word is not None and now >= self._next:
            self._next = now + 0.25
            doing = f"{word[1].decode().strip()} {word[2].decode(errors='replace')}"
            self._context.report(Progress(objects=len(self.compiled), doing=doing))
