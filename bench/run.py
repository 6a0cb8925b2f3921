"""Plain make against the farm, side by side in one run on the same tree and configuration.

    make bench                          all configurations (about two and a half hours on two cores)
    make bench CONFIGS=small            the demo's bootable configuration only (about twenty minutes)
    make bench CONFIGS="small arm64"    and the same for arm64, with what cross-compiling costs for each object

Everything printed is measured in this run. CPU seconds come from control groups.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench.farm_run import FarmRun, cold_build, kind_of  # noqa: E402
from bench.plain import PlainBuild, plain_make  # noqa: E402
from kernel import tables  # noqa: E402
from kernel.steps import Tree  # noqa: E402
from kernfarm import layout  # noqa: E402
from kernfarm.request import Draft  # noqa: E402

PHASES = ("source", "configure", "prepare", "compile", "link", "package")
GOAL_CPU = 1.03
GOAL_RESUBMIT_SECONDS = 0.5
GOAL_SPEEDUP = 1.8
GOAL_CROSS = 1.15
DRAFTS = {
    "small": Draft(source="debian:6.1", base="tinyconfig", fragments=(ROOT / "demo/x86_64.config",), boot=False),
    "arm64": Draft(source="debian:6.1", arch=("arm64",), base="tinyconfig", fragments=(ROOT / "demo/arm64.config",), boot=False),
    "defconfig": Draft(source="debian:6.1", base="defconfig", boot=False),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One configuration's runs."""

    config: str
    plain: PlainBuild
    plain_jobs: int
    one: FarmRun
    two: FarmRun
    identical: bool
    stolen: float

    @property
    def plain_rate(self) -> float:
        """Objects that plain make compiles in a CPU second, with all it does besides."""
        return len(self.plain.compiled) / (self.plain.usage.cpu_user_seconds + self.plain.usage.cpu_system_seconds)

    @property
    def shard_rate(self) -> float:
        """Objects that the farm's compile steps make in a CPU second, with one worker and with two together."""
        steps = [step for run in (self.one, self.two) for step in run.record["steps"] if kind_of(step) == "compile"]
        return sum(int(step["compiled"]) for step in steps) / sum(run.step_cpu["compile"] for run in (self.one, self.two))


def main() -> None:
    """Run and print; exit code 1 when bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("configs", nargs="*", metavar="CONFIG", help=f"{', '.join(DRAFTS)}; default: all")
    parser.add_argument("--folder", type=Path, default=Path("/var/tmp"), help="where to work; build steps' user has to reach it")
    words = parser.parse_args()
    if unknown := set(words.configs) - set(DRAFTS):
        parser.error(f"unknown configuration {unknown.pop()!r}")
    os.environ["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    console = Console(width=110, soft_wrap=True)
    same = True
    rates: dict[str, tuple[float, float]] = {}
    for config in words.configs or DRAFTS:
        home = Path(tempfile.mkdtemp(prefix="kernfarm-bench-", dir=words.folder))
        home.chmod(0o755)
        try:
            with ExitStack() as stack:
                comparison = compare(config, home, stack)
                show(comparison, console)
                same = same and comparison.identical
                rates[config] = (comparison.plain_rate, comparison.shard_rate)
        finally:
            shutil.rmtree(home)
    if {"small", "arm64"} <= rates.keys():
        show_cross(rates["small"], rates["arm64"], console)
    sys.exit(0 if same else 1)


def compare(config: str, home: Path, stack: ExitStack) -> Comparison:
    """Farm with one worker, plain make, farm with two workers: one after the other, each alone on the machine."""
    jobs = len(os.sched_getaffinity(0))
    draft = DRAFTS[config]
    arch = tables.arch(draft.arch[0])
    before = _stolen()
    with cold_build(home / "one", draft, workers=1) as one:
        pass
    files = home / "files"
    files.mkdir()
    layout.extract(one.image, arch.platform, files)
    source = one.record["inputs"]["tree"]
    tree = Tree(tarball=source["tarball"], upper=source["upper"], version=source["version"])
    plain = stack.enter_context(
        plain_make(
            state=home / "plain",
            blobs_url=f"file://{home}/one/blobs",
            tree=tree,
            config=files / "kernel_config",
            arch=arch.name,
            toolchain=draft.toolchain,
            jobs=jobs,
        )
    )
    with cold_build(home / "two", draft, workers=2) as two:
        pass
    same = one.info["images"] == two.info["images"]
    for name, path in (("kernel", arch.image_path), ("System.map", "System.map")):
        same = same and _sha(files / name) == _sha(plain.out / path)
    return Comparison(config=config, plain=plain, plain_jobs=jobs, one=one, two=two, identical=same, stolen=_stolen() - before)


def show(result: Comparison, console: Console) -> None:
    """All numbers, then the goals with what was reached."""
    plain, one, two = result.plain, result.one, result.two
    plain_cpu = plain.usage.cpu_user_seconds + plain.usage.cpu_system_seconds
    objects = len(plain.compiled)
    table = Table(title=f"{result.config}, Linux {one.info['release']}: whole build, cold (source and package included for the farm)")
    for name in ("", "wall s", "CPU s in steps", "CPU s of the farm itself", "objects compiled", "objects per CPU s"):
        table.add_column(name, justify="right" if name else "left")
    row = (f"{plain.usage.wall_seconds:.1f}", f"{plain_cpu:.1f}", "", str(objects), _rate(objects, plain_cpu))
    table.add_row(f"plain make -j{result.plain_jobs}", *row)
    for run in (one, two):
        cpu = sum(run.step_cpu.values())
        row = (f"{run.wall:.1f}", f"{cpu:.1f}", f"{run.overhead_cpu:.1f}", str(run.compiled), _rate(run.compiled, cpu))
        table.add_row(f"farm, {run.workers} single-core worker{'s' * (run.workers > 1)}", *row)
    table.add_row("identical resubmission", f"{two.resubmit_wall:.3f}", "", "", "0", "")
    console.print(table)

    phases = Table(title="by phase: wall s / CPU s in steps")
    phases.add_column("phase")
    for run in (one, two):
        phases.add_column(f"{run.workers} worker{'s' * (run.workers > 1)}", justify="right")
    for phase in PHASES:
        phases.add_row(phase, *(f"{run.step_wall.get(phase, 0):.1f} / {run.step_cpu.get(phase, 0):.1f}" for run in (one, two)))
    console.print(phases)

    for run in (one, two):
        cpu = sum(run.step_cpu.get(phase, 0.0) for phase in ("prepare", "compile", "link"))
        what = f"CPU of prepare, compile and link, {run.workers} workers, against plain make"
        _goal(console, what, cpu / plain_cpu, GOAL_CPU, "x", at_most=True)
    _goal(console, "identical resubmission", two.resubmit_wall, GOAL_RESUBMIT_SECONDS, "s", at_most=True)
    speedup = one.step_wall["compile"] / two.step_wall["compile"]
    _goal(console, "two workers against one in the compile phase", speedup, GOAL_SPEEDUP, "x", at_most=False)
    console.print(f"bytes of plain make, of one and of two workers: {'identical' if result.identical else 'DIFFERENT'}")
    console.print(f"CPU time taken away by the hypervisor in all runs together: {result.stolen:.1f} s")
    summary = {
        "config": result.config,
        "plain": {"wall": plain.usage.wall_seconds, "cpu": plain_cpu, "objects": objects},
        "farm": [
            {"workers": run.workers, "wall": run.wall, "overhead_cpu": run.overhead_cpu, "cpu": run.step_cpu, "phases": run.step_wall}
            for run in (one, two)
        ],
        "resubmit": two.resubmit_wall,
        "identical": result.identical,
    }
    print(json.dumps(summary))


def show_cross(native: tuple[float, float], cross: tuple[float, float], console: Console) -> None:
    """What an object costs cross-compiled for arm64 against one for this machine. Kernels of one size, but not the same objects."""
    table = Table(title="objects per CPU second")
    for name in ("", "x86_64", "arm64, cross-compiled"):
        table.add_column(name, justify="right" if name else "left")
    for what, here, there in zip(("plain make", "compile steps of the farm"), native, cross, strict=True):
        table.add_row(what, f"{here:.2f}", f"{there:.2f}")
    console.print(table)
    _goal(console, "CPU of an arm64 object against an x86_64 one, in compile steps", native[1] / cross[1], GOAL_CROSS, "x", at_most=True)


def _goal(console: Console, what: str, reached: float, goal: float, unit: str, *, at_most: bool) -> None:
    met = reached <= goal if at_most else reached >= goal
    console.print(
        f"{'reached' if met else 'MISSED '}: {what}: {reached:.3f} {unit} (goal: at {'most' if at_most else 'least'} {goal} {unit})"
    )


def _rate(objects: int, cpu: float) -> str:
    return f"{objects / cpu:.2f}" if cpu else ""


def _sha(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _stolen() -> float:
    """Seconds of all processors that the hypervisor gave to others (proc(5): `steal`)."""
    words = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    return int(words[8]) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
