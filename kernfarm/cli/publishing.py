"""`kernfarm fetch` and `kernfarm push`: images to a folder, a registry, a Docker engine."""

from __future__ import annotations

import argparse
import asyncio
import os
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from kernel.errors import Code, FarmError
from kernfarm import engine, publication, tags
from kernfarm.cli import commands
from kernfarm.cli.output import Output
from kernfarm.client import BuildInfo, FarmClient
from kernfarm.publication import StoredImage
from kernfarm.registry.push import Options, push
from kernfarm.registry.reference import Reference
from kernfarm.registry.repository import Repository
from kernfarm.registry.transport import Transport


def add_fetch(parser: argparse.ArgumentParser) -> None:
    """The words of `fetch`, besides those of every verb that talks to a farm."""
    parser.add_argument("builds", nargs="+", metavar="BUILD", help="builds for several architectures become one image")
    parser.add_argument("--to", type=Path, metavar="DIR", help="write an OCI layout here; of different kernels one in DIR/RELEASE each")
    parser.add_argument("--push", metavar="REF", help="push to REPOSITORY under the usual tags, or to REPOSITORY:TAG")
    parser.add_argument("--docker", action="store_true", help="load into the Docker engine here (DOCKER_HOST)")
    default = os.environ.get("ORG", "linuxkit")
    parser.add_argument("--org", default=default, help="names images ORG/kernel where --push names none (default: $ORG, or linuxkit)")
    _add_registry(parser)


def add_push(parser: argparse.ArgumentParser) -> None:
    """The words of `push`."""
    parser.add_argument("layouts", nargs="+", type=Path, metavar="LAYOUT", help="folder that fetch wrote; several make one index")
    parser.add_argument("reference", metavar="REF", help="REPOSITORY (with the usual tags), or REPOSITORY:TAG")
    _add_registry(parser)


def _add_registry(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--plain-http", action="store_true", help="the registry has no TLS (one on this machine needs no flag)")
    parser.add_argument("--replace", action="store_true", help="tags may lose architectures, and ones with a hash their content")
    parser.add_argument(
        "--mount-from", action="append", default=[], metavar="REPO", help="repository of the same registry that may have the blobs"
    )


async def fetch(words: argparse.Namespace, client: FarmClient, out: Output) -> int:
    """Images of finished builds, to wherever they are wanted."""
    if not (words.to or words.push or words.docker):
        raise FarmError(Code.INVALID_ARGUMENT, "where to?", where="fetch", hint="--to DIR, --push REF, --docker, or several of them")
    target = Reference.parse(words.push) if words.push else Reference.parse(tags.repository(words.org))
    _check_target(target)
    infos = [await commands.finished(client, build) for build in dict.fromkeys(words.builds)]
    kernels: dict[str, list[BuildInfo]] = {}
    for info in infos:
        kernels.setdefault(info["release"], []).append(info)
    answer: dict[str, Any] = {"builds": []}
    with ExitStack() as stack:
        base = words.to or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="kernfarm-")))
        folders = {release: base / release if len(kernels) > 1 else base for release in kernels}
        for release, builds in kernels.items():
            folder = folders[release]
            index = await commands.fetch_together(client, builds, folder, repository=target.name)
            place = str(folder) if words.to else ""
            answer["builds"] += [{"build": info["id"], "release": release, "layout": place, "image": index} for info in builds]
        if words.push or words.docker:
            images = await asyncio.to_thread(lambda: [publication.read(folder) for folder in folders.values()])
            if words.push:
                answer["pushed"] = await asyncio.to_thread(_push, words, images, target, out)
            if words.docker:
                answer["loaded"] = await asyncio.to_thread(_load, images, target, out)
    if len(kernels) == 1:
        answer |= {key: answer["builds"][0][key] for key in ("layout", "image")}
    if out.json_mode:
        out.data(answer)
    else:
        _show(answer, out)
    return 0


def run_push(words: argparse.Namespace, out: Output) -> int:
    """Layouts to a registry; no farm is asked."""
    target = Reference.parse(words.reference)
    _check_target(target)
    answer = {"pushed": _push(words, [publication.read(folder) for folder in words.layouts], target, out)}
    if out.json_mode:
        out.data(answer)
    else:
        _show(answer, out)
    return 0


def _check_target(target: Reference) -> None:
    if target.digest:
        message = "a digest can't be chosen, it follows from the content"
        raise FarmError(Code.INVALID_ARGUMENT, message, where=str(target), hint="REPOSITORY or REPOSITORY:TAG")


def _push(words: argparse.Namespace, images: Sequence[StoredImage], target: Reference, out: Output) -> dict[str, Any]:
    content = publication.content(images, tag=target.tag)
    options = Options(replace=words.replace, mount_from=tuple(words.mount_from))
    with Transport(target, plain_http=words.plain_http) as transport:
        done = push(Repository(transport), content, options, out.say)
    for tag in publication.unsigned(content):
        out.say(f"note: {tag} is not signed, its architectures are: `kernfarm fetch` of all its builds together has their index signed")
    named = [{"tag": each.tag, "digest": each.document.digest, "reference": f"{target.name}:{each.tag}"} for each in content.tags]
    attached = [each.document.digest for each in content.attached]
    return {"repository": target.name, "tags": named, "attached": attached, "sent": asdict(done)}


def _load(images: Sequence[StoredImage], target: Reference, out: Output) -> list[dict[str, Any]]:
    """Each under its own tag: an engine's images have one architecture, so flavours are all that can differ."""
    named = [(image, [target if target.tag else replace(target, tag=publication.plain_tag(image))]) for image in images]
    loaded = engine.load(named)
    for each in loaded:
        out.say(f"the engine has {', '.join(each.names)} for {each.platform}")
    return [asdict(each) for each in loaded]


def _show(answer: dict[str, Any], out: Output) -> None:
    """For people: folders, tags and engine names with their digests."""
    for folder in dict.fromkeys(row["layout"] for row in answer.get("builds", ()) if row["layout"]):
        out.data(folder)
    if "pushed" in answer:
        out.table(("tag", "digest"), [(each["reference"], each["digest"]) for each in answer["pushed"]["tags"]])
    if "loaded" in answer:
        out.table(("name", "image"), [(name, each["image"]) for each in answer["loaded"] for name in each["names"]])
