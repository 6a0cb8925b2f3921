"""The little Markdown that generated pages need."""

from __future__ import annotations

from collections.abc import Iterable, Sequence


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table; `|` and line breaks in cells would end them."""
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    lines += [f"| {' | '.join(_cell(cell) for cell in row)} |" for row in rows]
    return "\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return " ".join(text.split()).replace("|", "\\|")


def code(text: str) -> str:
    """Literal text within a line; nothing for none."""
    return f"`{text}`" if text else ""


def fence(text: str, language: str = "") -> str:
    """Literal lines."""
    return f"```{language}\n{text.rstrip()}\n```\n"


def page(title: str, module: str, *parts: str) -> str:
    """A page that says what it is made of."""
    made = f"<!-- Made by {module} (`make reference`): change the code, not this page. -->"
    return "\n".join((f"# {title}", "", made, "", *parts)).rstrip("\n") + "\n"
