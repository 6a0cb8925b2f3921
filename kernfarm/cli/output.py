"""stdout is data, stderr is talk: the one place that writes to either."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from kernel.errors import Problem


class Output:
    """Where a command's words go. `json_mode`: stdout carries JSON only. Colours and live displays only on a terminal;
    rich itself honours NO_COLOR and TERM=dumb."""

    def __init__(self, *, json_mode: bool) -> None:
        self.json_mode = json_mode
        self.data_console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
        self.talk_console = Console(file=sys.stderr, highlight=False, soft_wrap=True)

    @property
    def live(self) -> bool:
        """Whether a display that redraws itself makes sense."""
        return self.talk_console.is_terminal and not self.json_mode

    def data(self, value: Any) -> None:
        """A result: as JSON in json mode, else as it is."""
        if self.json_mode:
            sys.stdout.write(json.dumps(value, indent=2, sort_keys=True) + "\n")
        else:
            self.data_console.print(escape(str(value)))
        sys.stdout.flush()

    def raw(self, data: bytes) -> None:
        """Bytes of a log: unchanged into a file or pipe; harmless on a terminal, since a hostile build can print anything."""
        if sys.stdout.isatty():
            data = visible(data.decode(errors="replace")).encode()
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()

    def table(self, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
        """Rows for people; on no terminal as tab-separated lines that scripts can cut."""
        if not self.data_console.is_terminal:
            for row in rows:
                sys.stdout.write("\t".join(visible(cell) for cell in row) + "\n")
            sys.stdout.flush()
            return
        table = Table(box=None, pad_edge=False, header_style="bold")
        for column in columns:
            table.add_column(column)
        for row in rows:
            table.add_row(*(escape(visible(cell)) for cell in row))
        self.data_console.print(table)

    def say(self, text: str) -> None:
        """A line of talk."""
        self.talk_console.print(escape(visible(text)))

    def warn(self, text: str) -> None:
        """What is worth knowing although all went well."""
        self.talk_console.print(f"[bold yellow]warning:[/] {escape(visible(text))}")

    def problem(self, problem: Problem) -> None:
        """A failure: what, where, the mend, whose fault."""
        place = f"{problem.where}: " if problem.where else ""
        self.talk_console.print(f"[bold red]error:[/] {escape(visible(place + problem.message))}")
        if problem.hint:
            self.talk_console.print(f"[bold]hint:[/] {escape(visible(problem.hint))}")


def visible(text: str) -> str:
    """Text in which control characters other than tab and newline are shown instead of obeyed: no escape sequence gets through."""
    return "".join(letter if letter in "\t\n" or letter.isprintable() else letter.encode("unicode_escape").decode() for letter in text)
