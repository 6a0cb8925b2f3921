"""docs/architecture.md names every layer and every folder of code: whoever adds a module gives it a place there."""

from __future__ import annotations

import configparser
import re

from tests.docs.pages import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text()
CODE = ("coordinator", "kernel", "kernfarm", "worker")


def _table(first: str) -> list[list[str]]:
    """The code in each row of the table that starts with that heading."""
    rows = PAGE.partition(f"| {first} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [re.findall(r"`([\w./]+)`", row) for row in rows]


LAYERS = _table("layer, from the top")


def test_the_layers_are_those_that_are_checked() -> None:
    contracts = configparser.ConfigParser()
    contracts.read(ROOT / ".importlinter")
    checked = contracts["importlinter:contract:layers"]["layers"].split("\n")
    assert [" | ".join(layer) for layer in LAYERS] == [layer for layer in checked if layer]


def test_every_module_of_kernfarm_has_a_layer() -> None:
    """The contract itself takes a module that it does not name."""
    folder = ROOT / "kernfarm"
    modules = {path.stem for path in folder.glob("[a-z]*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    assert modules == {name.removeprefix("kernfarm.") for layer in LAYERS for name in layer if name.startswith("kernfarm.")}


def test_every_package_has_its_row() -> None:
    named = {name for row in _table("folder") for name in row}
    packages = {f"{path.parent.relative_to(ROOT)}/" for code in CODE for path in (ROOT / code).rglob("__init__.py")}
    below = {"coordinator/migrations/versions/", "kernfarm/v1/"}  # told with the folder above
    assert packages - below - named == set()


def test_files_that_the_page_names_are_there() -> None:
    for name in re.findall(r"`([\w.-]+/[\w./-]*)`", PAGE):
        assert (ROOT / name).exists(), name
