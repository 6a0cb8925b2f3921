"""Following builds: a display that redraws itself on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from kernfarm.cli.output import Output, visible
from kernfarm.client import BuildInfo, FarmClient

ENDED = ("succeeded", "failed", "cancelled")
_MARKS = {
    "succeeded": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "running": "[cyan]▶[/]",
    "ready": "…",
    "waiting": "·",
    "cancelled": "[yellow]-[/]",
}


async def follow(client: FarmClient, build_ids: Sequence[str], out: Output) -> list[BuildInfo]:
    """Show builds in one view until all have ended; returns their last states, in order. Ctrl-C leaves them running and says so."""
    last: dict[str, BuildInfo] = {}
    with ExitStack() as stack:
        live = stack.enter_context(Live(console=out.talk_console, refresh_per_second=4, transient=True)) if out.live else None

        async def watch(build_id: str) -> None:
            told: dict[str, str] = {}
            async for info in client.watch(build_id):
                last[build_id] = info
                if live is not None:
                    live.update(view([last[each] for each in build_ids if each in last]))
                else:
                    _tell(info, told, out)

        watches = [asyncio.ensure_future(watch(build_id)) for build_id in dict.fromkeys(build_ids)]
        try:
            await asyncio.gather(*watches)
        finally:
            for each in watches:
                each.cancel()
            await asyncio.gather(*watches, return_exceptions=True)
    return [last[build_id] for build_id in build_ids]


def _tell(info: BuildInfo, told: dict[str, str], out: Output) -> None:
    for step in info["steps"]:
        state = f"{step['state']}{' (reused)' if step['reused'] else ''}"
        if state.startswith(("running", "succeeded", "failed")) and told.get(step["key"]) != state:
            told[step["key"]] = state
            objects = f" {info['objects_done']}/{info['objects_planned']} objects" if step["kind"] == "compile" else ""
            worker = f" on {step['worker']}" if step["worker"] and not step["reused"] else ""
            out.say(f"{info['id']}  {step['key']} {state}{worker}{objects}")


def view(builds: Sequence[BuildInfo]) -> Table:
    """One build with all its steps; of several a line for each, and below it the steps that are running, or have failed."""
    if len(builds) == 1:
        return _table(builds[0])
    ended = sum(info["state"] in ENDED for info in builds)
    title = f"{ended} of {len(builds)} builds have ended"
    table = Table(box=None, title=title, title_justify="left", show_header=False, pad_edge=False)
    for info in builds:
        seconds = (info["ended_at"] or time.time()) - (info["created_at"] or time.time())
        objects = f"{info['objects_done']}/{info['objects_planned']}" if info["objects_planned"] else ""
        name = f"{info['arch']} {info['flavour']}"
        remark = f"{seconds:.0f} s{_eta(info)}" if info["state"] not in ENDED else f"{info['state']} after {seconds:.0f} s"
        table.add_row(_MARKS.get(info["state"], "…"), escape(info["id"]), escape(name), objects, remark)
        for step in info["steps"]:
            if step["state"] in ("running", "failed"):
                doing = escape(visible(step["doing"]))
                table.add_row("", f"  {_MARKS[step['state']]} {escape(step['key'])}", escape(step["worker"]), _objects(step), doing)
    return table


def _objects(step: dict[str, Any]) -> str:
    return f"{step['objects_done']}/{step['objects_planned']}" if step["objects_planned"] else ""


def _table(info: BuildInfo) -> Table:
    seconds = time.time() - (info["created_at"] or time.time())
    done, planned = info["objects_done"], info["objects_planned"]
    title = f"{info['id']}  {info['source']} {info['arch']}  {done}/{planned} objects  {seconds:.0f} s{_eta(info)}"
    table = Table(box=None, title=escape(title), title_justify="left", show_header=False, pad_edge=False)
    for step in info["steps"]:
        remark = "reused" if step["reused"] else step["doing"] or step["why_waiting"]
        table.add_row(_MARKS.get(step["state"], "?"), step["key"], escape(step["worker"]), _objects(step), escape(visible(remark)))
    return table


def _eta(info: BuildInfo) -> str:
    """From the pace of compiling so far; nothing before there is a pace."""
    starts = [step["started_at"] for step in info["steps"] if step["kind"] == "compile" and step["started_at"]]
    done, planned = info["objects_done"], info["objects_planned"]
    if not starts or not done or done >= planned:
        return ""
    left = (time.time() - min(starts)) / done * (planned - done)
    return f", about {left:.0f} s of compiling left"
