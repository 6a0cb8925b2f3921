"""docs/reference/settings.md, from kernfarm.settings."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from kernfarm.settings import GIB, CoordinatorSettings, SignerSettings, WorkerSettings
from tools.reference import markdown

_INTRO = """Each program reads one YAML file. A name that is not listed here is refused with the nearest one that is, a value of another
type with the type that is wanted. Numbers of seconds are finite and above 0 (`leeway_seconds` and `source_ttl_seconds` may be 0).
What is not set has its default.

`kernfarm up` writes these files into its state folder, the Helm chart makes them of its values, docker compose has them in `deploy/config`.
"""
_WORKER = (
    "The file that `KERNFARM_WORKER_CONFIG` names in the environment of a Ray node; `python -m worker.exporter --config FILE` reads it too"
)
_PROGRAMS: tuple[tuple[type[Any], str, str], ...] = (
    (CoordinatorSettings, "Coordinator", "`python -m coordinator --config FILE`"),
    (WorkerSettings, "Worker", _WORKER),
    (SignerSettings, "Signer", "`python -m coordinator.signer --config FILE`"),
)


def page() -> str:
    """The page, the same each time."""
    parts = [_INTRO]
    for kind, title, read_by in _PROGRAMS:
        parts += [f"## {title}\n", f"{read_by}. {_doc(kind)}\n"]
        parts += list(_tables(kind, ""))
    return markdown.page("Settings", "tools/reference/settings.py", *parts)


def _tables(kind: type[Any], prefix: str) -> Iterator[str]:
    """The table of a class, then those of the classes in it, under their dotted names."""
    hints = typing.get_type_hints(kind)
    rows: list[tuple[str, str, str, str]] = []
    below: list[tuple[str, type[Any]]] = []
    for field in fields(kind):
        hint, why = hints[field.name], str(field.metadata["why"])
        if is_dataclass(hint):
            below.append((field.name, typing.cast(type[Any], hint)))
            rows.append((f"`{field.name}`", f"[mapping](#{prefix.replace('.', '')}{field.name})", "", why))
        else:
            rows.append((f"`{field.name}`", _type(hint), _default(field.default, field.name), why))
    yield markdown.table(("setting", "type", "default", "meaning, or why that default"), rows)
    for name, inner in below:
        yield f"### {prefix}{name}\n"
        yield f"{_doc(inner)}\n"
        yield from _tables(inner, f"{prefix}{name}.")


def _doc(kind: type[Any]) -> str:
    return " ".join((kind.__doc__ or "").split())


def _type(hint: Any) -> str:
    """In the words of YAML."""
    if typing.get_origin(hint) is tuple:
        return "list of strings"
    if hint in (dict[str, str], dict[str, str] | None):
        return "mapping of strings"
    return {str: "string", Path: "path", int: "integer", float: "number", bool: "boolean"}[hint]


def _default(value: Any, name: str) -> str:
    if value is None or value == "" or value == ():
        return ""
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if isinstance(value, tuple):
        return f"`[{', '.join(value)}]`"
    if name.endswith("_bytes") and value % GIB == 0:
        return f"`{value}` ({value // GIB} GiB)"
    return f"`{value:g}`" if isinstance(value, float) else f"`{value}`"
