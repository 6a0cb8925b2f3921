"""Following a build: a display that redraws itself on a terminal, a line for each change elsewhere."""

from __future__ import annotations

import time

from rich.live import Live
from rich.markup import escape
from rich.table import Table

from kernfarm.cli.output import Output, visible
from kernfarm.client import BuildInfo, FarmClient

_MARKS = {
    "succeeded": "[green]✓[/]",
    "failed": "[red]✗[/]",
    "running": "[cyan]▶[/]",
    "ready": "…",
    "waiting": "·",
    "cancelled": "[yellow]-[/]",
}


async def follow(client: FarmClient, build_id: str, out: Output) -> BuildInfo:
    """Show a build until it ends; returns its last state. Ctrl-C leaves the build running and says so."""
    last: BuildInfo | None = None
    if out.live:
        with Live(console=out.talk_console, refresh_per_second=4, transient=True) as live:
            async for last in client.watch(build_id):
                live.update(_table(last))
    else:
        told: dict[str, str] = {}
        async for last in client.watch(build_id):
            _tell(last, told, out)
    assert last is not None, "a watch gives at least the current state"
    return last


def _tell(info: BuildInfo, told: dict[str, str], out: Output) -> None:
    for step in info["steps"]:
        state = f"{step['state']}{' (reused)' if step['reused'] else ''}"
        if state.startswith(("running", "succeeded", "failed")) and told.get(step["key"]) != state:
            told[step["key"]] = state
            objects = f" {info['objects_done']}/{info['objects_planned']} objects" if step["kind"] == "compile" else ""
            worker = f" on {step['worker']}" if step["worker"] and not step["reused"] else ""
            out.say(f"{info['id']}  {step['key']} {state}{worker}{objects}")


def _table(info: BuildInfo) -> Table:
    seconds = time.time() - (info["created_at"] or time.time())
    done, planned = info["objects_done"], info["objects_planned"]
    title = f"{info['id']}  {info['source']} {info['arch']}  {done}/{planned} objects  {seconds:.0f} s{_eta(info)}"
    table = Table(box=None, title=escape(title), title_justify="left", show_header=False, pad_edge=False)
    for step in info["steps"]:
        objects = f"{step['objects_done']}/{step['objects_planned']}" if step["objects_planned"] else ""
        remark = "reused" if step["reused"] else step["doing"] or step["why_waiting"]
        table.add_row(_MARKS.get(step["state"], "?"), step["key"], escape(step["worker"]), objects, escape(visible(remark)))
    return table


def _eta(info: BuildInfo) -> str:
    """From the pace of compiling so far; nothing before there is a pace."""
    starts = [step["started_at"] for step in info["steps"] if step["kind"] == "compile" and step["started_at"]]
    done, planned = info["objects_done"], info["objects_planned"]
    if not starts or not done or done >= planned:
        return ""
    left = (time.time() - min(starts)) / done * (planned - done)
    return f", about {left:.0f} s of compiling left"
