"""The boot step: the image's own kernel and modules in QEMU, confined as everything else that comes out of a build."""

from __future__ import annotations

import gzip

from kernel.errors import Code, FarmError
from kernel.steps import BootResult, BootTask
from kernfarm import guest
from worker import archive
from worker.cgroup import Limits
from worker.context import Context
from worker.kbuild import PATH
from worker.sandbox import Bind, Job

_INSIDE = "/build/boot"
# User space is there after seconds, emulated too; a busy worker may need ten times as long.
_SECONDS = 240.0
_LONGEST_CONSOLE = 1 << 20


def run(context: Context, task: BootTask) -> BootResult:
    """Boot to user space, load modules that need no hardware, power off.

    Raises FarmError: KERNEL_DOES_NOT_BOOT with the console's end, MISSING_FILE for a worker without QEMU or compiler, as Sandbox.run."""
    folder = archive.make_folder(context.scratch / "boot", context.sandbox)
    modules = context.scratch / "kernel.tar"
    context.blobs.get_file(task.kernel, folder / "kernel")
    context.blobs.get_file(task.modules, modules)
    chosen = guest.choose(modules)
    initramfs = guest.make_initramfs(modules, arch=task.arch, load=chosen)
    (folder / "initramfs").write_bytes(gzip.compress(initramfs, compresslevel=1))
    for name in ("kernel", "initramfs"):
        (folder / name).chmod(0o644)
    job = Job(
        argv=guest.qemu(task.arch, f"{_INSIDE}/kernel", f"{_INSIDE}/initramfs"),
        binds=(Bind(host=folder, inside=_INSIDE),),
        env={"PATH": PATH},
        limits=Limits(memory_bytes=context.attempt.memory_bytes, cpus=context.attempt.cpus),
        timeout_seconds=_SECONDS,
    )
    console = bytearray()

    def hear(line: bytes) -> None:
        context.log(line)
        if len(console) < _LONGEST_CONSOLE:
            console.extend(line)

    try:
        seconds = context.sandbox.run(job, on_line=hear, cancel=context.cancel).seconds
    except FarmError as error:
        if error.problem.code is not Code.TIMEOUT:
            raise
        seconds = _SECONDS
    seen = guest.read_console(bytes(console).decode(errors="replace"), seconds)
    _check(seen, task.release, chosen)
    return BootResult(release=seen.release, loaded=seen.loaded)


def _check(seen: guest.Booted, release: str, chosen: tuple[str, ...]) -> None:
    if seen.release != release:
        raise FarmError(Code.KERNEL_DOES_NOT_BOOT, f"it calls itself {seen.release!r}, not {release!r}", where="boot")
    failed = [name for name in chosen if name not in seen.loaded]
    if failed:
        last = "\n".join(seen.console.splitlines()[-8:])
        raise FarmError(
            Code.KERNEL_DOES_NOT_BOOT, f"modules did not load: {', '.join(failed)}; the console ends with:\n{last}", where="boot"
        )
