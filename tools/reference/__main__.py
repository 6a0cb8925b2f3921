"""`python -m tools.reference` writes the generated pages; `--check` compares with what is there instead and fails when one differs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path

from tools.reference import api, cli, errors, metrics, settings

HOME = Path(__file__).resolve().parent.parent.parent / "docs/reference"
PAGES: Mapping[str, Callable[[], str]] = {
    "api.md": api.page,
    "cli.md": cli.page,
    "errors.md": errors.page,
    "metrics.md": metrics.page,
    "settings.md": settings.page,
}


def main() -> None:
    made = {name: page() for name, page in PAGES.items()}
    if "--check" not in sys.argv[1:]:
        for name, text in made.items():
            (HOME / name).write_text(text, encoding="utf-8")
        return
    there = {name: (HOME / name).read_text(encoding="utf-8") if (HOME / name).exists() else "" for name in made}
    differing = sorted(name for name, text in made.items() if there[name] != text)
    if differing:
        raise SystemExit(f"docs/reference: not up to date: {', '.join(differing)}; run `make reference`")


if __name__ == "__main__":
    main()
