"""The verbs that talk to a farm."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import hashlib
import json
import tempfile
import time
import uuid
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

from kernel import release
from kernel.codec import from_plain
from kernel.errors import HANDLING, Code, FarmError, Problem
from kernel.steps import Attachment
from kernfarm import boot, layout, records, request
from kernfarm.cli.output import Output
from kernfarm.cli.progress import ENDED, follow
from kernfarm.client import BuildInfo, FarmClient

LINUXKIT = "docker.io/linuxkit/kernel"


async def build(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    """Submit and, unless detached, follow to the end."""
    draft = request.Draft()
    default = Path("kernfarm.yaml")
    if words.file is not None:
        draft = request.read_file(words.file)
    elif default.is_file() and words.source is None:
        draft = request.read_file(default)
    draft = request.override(draft, vars(words))
    if not draft.source:
        raise FarmError(
            Code.INVALID_ARGUMENT, "no source given", where="source", hint="kernfarm build --source debian:6.1, or kernfarm.yaml"
        )
    prepared = request.prepare(draft)
    request_id = words.request_id or str(uuid.uuid4())
    builds = await client.submit(prepared.spec, prepared.uploads, request_id=request_id, clean=words.clean)
    if words.detach:
        out.data(builds if out.json_mode else "\n".join(each["id"] for each in builds))
        return 0
    return report(await follow(client, [each["id"] for each in builds], out), out)


def report(builds: list[BuildInfo], out: Output) -> int:
    """The end of builds: digests or problems, of several one table; the exit code is the worst build's."""
    if out.json_mode:
        out.data(builds)
    elif len(builds) > 1:
        out.table(("arch", "flavour", "state", "seconds", "release", "build", "image"), [_matrix_row(each) for each in builds])
    code = 0
    for each in builds:
        for warning in each["warnings"]:
            out.warn(warning)
        if each["state"] == "succeeded":
            if not out.json_mode and len(builds) == 1:
                image = each["images"][0]
                rows = [("build", each["id"]), ("release", each["release"]), ("image", image["index"])]
                rows += [(artifact["name"], artifact["digest"]) for artifact in each["artifacts"]]
                out.table(("what", "digest"), rows)
        else:
            code = max(code, _explain(each, out))
    return code


def _matrix_row(build: BuildInfo) -> tuple[str, ...]:
    seconds = f"{build['ended_at'] - build['created_at']:.0f}" if build["ended_at"] and build["created_at"] else ""
    image = build["images"][0]["index"] if build["images"] else ""
    return (build["arch"], build["flavour"], build["state"], seconds, build["release"], build["id"], image)


def _explain(build: BuildInfo, out: Output) -> int:
    problem = build["problem"]
    if problem is None:
        out.say(f"{build['id']} was cancelled")
        return HANDLING[Code.CANCELLED].exit_code
    known = {str(code) for code in Code}
    code = Code(problem["code"]) if problem["code"] in known else Code.INTERNAL
    step = next((step["key"] for step in build["steps"] if step["state"] == "failed"), "")
    out.problem(Problem(code=code, message=problem["message"], where=problem["where"], hint=problem["hint"]))
    out.say(f"the fault is the {HANDLING[code].fault}'s; full output: kernfarm logs {build['id']} --step {step}")
    return HANDLING[code].exit_code


async def list_builds(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    builds = await client.builds(limit=words.limit)
    if out.json_mode:
        out.data(builds)
        return 0
    rows = [(each["id"], each["state"], each["source"], each["arch"], each["flavour"], each["release"], _age(each)) for each in builds]
    out.table(("build", "state", "source", "arch", "flavour", "release", "age"), rows)
    return 0


async def show(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    if words.result:
        print(json.dumps(await client.result(words.build), indent=2, sort_keys=True))
        return 0
    info = await client.get(words.build)
    if out.json_mode:
        out.data(info)
        return 0
    keys = ("id", "state", "source", "arch", "flavour", "toolchain", "release")
    out.table(("key", "value"), [(key, str(info[key])) for key in keys])
    columns = ("step", "state", "worker", "objects", "seconds", "remark")
    out.table(columns, [_step_row(step) for step in info["steps"]])
    for warning in info["warnings"]:
        out.warn(warning)
    if info["problem"]:
        _explain(info, out)
    return 0


def _step_row(step: dict[str, Any]) -> tuple[str, ...]:
    end = step["ended_at"] or time.time()
    seconds = f"{end - step['started_at']:.1f}" if step["started_at"] else ""
    objects = f"{step['objects_done']}/{step['objects_planned']}" if step["objects_planned"] else str(step["objects_done"] or "")
    remarks = [step["why_waiting"], "reused" if step["reused"] else "", f"attempt {step['attempts']}" if step["attempts"] > 1 else ""]
    if step["problem"]:
        remarks.append(step["problem"]["message"].splitlines()[0])
    return (step["key"], step["state"], step["worker"], objects, seconds, "; ".join(remark for remark in remarks if remark))


async def logs(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    """One step's output, or all steps' in order; with --follow until the build has ended."""
    if words.step:
        await _log(words, client, out, words.step)
        return 0
    if not words.follow:
        for step in (await client.get(words.build))["steps"]:
            out.say(f"--- {step['key']}")
            await _log(words, client, out, step["key"])
        return 0
    shown: set[str] = set()
    while step := await _next_step(client, words.build, shown):
        shown.add(step)
        out.say(f"--- {step}")
        await _log(words, client, out, step)
    return 0


async def _log(words: argparse.Namespace, client: FarmClient, out: Output, step: str) -> None:
    async for data in client.logs(words.build, step, offset=words.offset, follow=words.follow):
        out.raw(data)


async def _next_step(client: FarmClient, build_id: str, shown: set[str]) -> str:
    """The first step not shown yet; "" when the build has ended and there is none.

    Waits until it is that step's turn: the plan, which comes after the prepare step, puts the compile steps before link.
    """
    async with contextlib.aclosing(cast(AsyncGenerator[BuildInfo, None], client.watch(build_id))) as states:
        async for info in states:
            left = [step for step in info["steps"] if step["key"] not in shown]
            if left and (left[0]["state"] != "waiting" or info["state"] in ENDED):
                return str(left[0]["key"])
    return ""


async def cancel(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    info = await client.cancel(words.build)
    out.data(info if out.json_mode else f"{info['id']} is {info['state']}")
    return 0


async def retry(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    info = await client.retry(words.build)
    if words.detach:
        out.data(info if out.json_mode else info["id"])
        return 0
    return report(await follow(client, [info["id"]], out), out)


async def workers(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    found = await client.workers()
    if out.json_mode:
        out.data(found)
        return 0
    rows = [
        (
            each["name"],
            ",".join(each["arches"]),
            ",".join(each["toolchains"]),
            f"{each['busy']}/{each['slots']}",
            str(each["jobs"]),
            each["sandbox"],
            each["cgroup"],
            each["ccache"],
        )
        for each in found
    ]
    out.table(("worker", "arches", "toolchains", "busy", "jobs", "sandbox", "cgroups", "ccache"), rows)
    return 0


async def fetch_together(client: FarmClient, infos: Sequence[BuildInfo], to: Path, *, repository: str = LINUXKIT) -> str:
    """One layout with one index over builds of one kernel for different architectures, and result-ARCH.json of each; of a single build
    as fetch_to. Returns the index's digest. Raises FarmError(INVALID_ARGUMENT) for builds that don't belong together."""
    if len(infos) == 1:
        await fetch_to(client, infos[0], to, repository=repository)
        return str(infos[0]["images"][0]["index"])
    if len(releases := sorted({info["release"] for info in infos})) > 1:
        message = f"builds of different kernels are no one image: {', '.join(releases)}"
        raise FarmError(Code.INVALID_ARGUMENT, message, where="fetch", hint="fetch each into a folder of its own")
    if len({info["arch"] for info in infos}) < len(infos):
        message = f"two of the builds are for one architecture: {', '.join(info['id'] for info in infos)}"
        raise FarmError(Code.INVALID_ARGUMENT, message, where="fetch", hint="fetch each into a folder of its own")
    _clear(to)
    for info in infos:
        await _fetch(client, info, to, record=records.of_arch(info["arch"]))
    index = layout.unite(to, [info["images"][0]["index"] for info in infos])
    attached = [attachment for info in infos for attachment in info["attachments"]]
    if attached:
        signed, documents = await client.sign_index([info["id"] for info in infos])
        if signed != index:
            raise FarmError(Code.BAD_DIGEST, f"the farm signed the index {signed}, the builds make {index}", where=str(to))
        await _download(client, to, _blobs_of(documents))
        attached += documents
    layout.finish(to, index, reference=_reference(infos[0], repository), attachments=_attachments(attached))
    return index


async def fetch_to(client: FarmClient, info: BuildInfo, to: Path, *, repository: str = LINUXKIT) -> None:
    """Write layout and result.json into a folder; whole blobs that are there are not fetched again. `repository` names the image."""
    _clear(to)
    await _fetch(client, info, to, record=records.ONE)
    index = info["images"][0]["index"]
    layout.finish(to, index, reference=_reference(info, repository), attachments=_attachments(info["attachments"]))


def _clear(to: Path) -> None:
    """An earlier layout is none from here on, until there is a new one; its blobs stay, to be used again."""
    for path in (to / "index.json", to / records.ONE, *to.glob(records.SEVERAL)):
        path.unlink(missing_ok=True)


async def _fetch(client: FarmClient, info: BuildInfo, to: Path, *, record: str) -> None:
    """Everything but the layout's own documents."""
    (to / "blobs" / "sha256").mkdir(parents=True, exist_ok=True)
    await _download(client, to, [*info["images"][0]["blobs"], *_blobs_of(info["attachments"])])
    (to / record).write_text(json.dumps(await client.result(info["id"]), indent=2, sort_keys=True) + "\n")


def _reference(info: BuildInfo, repository: str) -> str:
    return f"{repository}:{info['release'].replace('-linuxkit', '', 1)}"


async def _download(client: FarmClient, to: Path, blobs: Iterable[dict[str, Any]]) -> None:
    for blob in blobs:
        path = layout.blob_path(to, blob["digest"])
        if await asyncio.to_thread(_digest, path) != blob["digest"]:
            await client.download(blob["digest"], path)


def _blobs_of(attachments: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    for each in attachments:
        yield from (each["manifest"], *each["blobs"])


def _attachments(attachments: Iterable[dict[str, Any]]) -> list[Attachment]:
    return [from_plain(Attachment, each) for each in attachments]


def _digest(path: Path) -> str:
    """The digest of a file; "" for none."""
    try:
        with path.open("rb") as file:
            return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"
    except FileNotFoundError:
        return ""


async def boot_build(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    """Boot it: to a shell on a terminal; with --check without one, printing what was seen."""
    info = await finished(client, words.build)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        await fetch_to(client, info, folder / "layout")
        layout.extract(folder / "layout", info["images"][0]["platform"], folder)
        if not words.check and out.live:
            return await asyncio.to_thread(lambda: boot.interactive(folder, arch=info["arch"]))
        modules = tuple(words.module or ())
        seen = await asyncio.to_thread(lambda: boot.boot(folder, arch=info["arch"], modules=modules, timeout_seconds=words.timeout))
        missing = [module for module in modules if module not in seen.loaded]
        if out.json_mode:
            out.data({"release": seen.release, "loaded": list(seen.loaded), "seconds": round(seen.seconds, 1), "console": seen.console})
        else:
            out.say(seen.console.strip())
            out.data(f"booted {seen.release} in {seen.seconds:.1f} s; loaded: {', '.join(seen.loaded) or 'nothing'}")
        if missing:
            raise FarmError(Code.KERNEL_DOES_NOT_BOOT, f"these modules did not load: {', '.join(missing)}", where="boot")
    return 0


async def finished(client: FarmClient, build_id: str) -> BuildInfo:
    """A build that has an image. Raises FarmError(INVALID_ARGUMENT) for others."""
    info = await client.get(build_id)
    if info["state"] != "succeeded":
        raise FarmError(Code.INVALID_ARGUMENT, f"the build is {info['state']}, it has no image", where=build_id, hint="kernfarm show it")
    release.check(info["release"])  # it names folders and tags here, and a farm is as hostile as what it builds
    return info


def _age(info: BuildInfo) -> str:
    seconds = int(time.time() - (info["created_at"] or time.time()))
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{seconds // length}{unit}"
    return f"{seconds}s"
