"""YAML in the documentation is read by the code that would read it: names and types of settings are those that exist."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from kernel import tables
from kernfarm import credentials, request, settings
from kernfarm.settings import CoordinatorSettings, SignerSettings, WorkerSettings
from tests.docs.pages import ROOT, Block, Page, pages

BLOCKS = [(page, block) for page in pages() for block in page.blocks if block.language == "yaml"]
# What looks like one of the chart's values, and is a file's name.
FILES = frozenset({"signer.key"})


def _settings(kind: type[Any]) -> Callable[[Path], object]:
    return lambda path: settings.load(kind, path)


def _request(path: Path) -> None:
    draft = request.read_file(path)
    request.parse_source(draft.source)
    own = {flavour.name for flavour in draft.own_flavours}
    for flavour in (*draft.flavours, *(each.extends for each in draft.own_flavours)):
        assert flavour in own or tables.flavour(flavour)
    assert [tables.arch(name) for name in draft.arch]
    assert tables.toolchain(draft.toolchain)


def _farms(path: Path) -> None:
    (home := path.parent / "kernfarm").mkdir()
    path.rename(home / "farms.yaml")
    for address in yaml.safe_load((home / "farms.yaml").read_text()):
        assert credentials._of_config(address, {"XDG_CONFIG_HOME": str(path.parent)}) != credentials.Places()


def _values(path: Path) -> None:
    """Keys of the chart's values."""
    _below(yaml.safe_load(path.read_text()), yaml.safe_load((ROOT / "helm/kernfarm/values.yaml").read_text()))


def _below(given: Any, known: Any) -> None:
    for key in given if isinstance(given, dict) and known else ():
        assert key in known, key
        _below(given[key], known[key])


def _any(path: Path) -> None:
    """Files of other programs."""
    assert yaml.safe_load(path.read_text())


READERS: Mapping[str, Callable[[Path], object]] = {
    "coordinator.yaml": _settings(CoordinatorSettings),
    "worker.yaml": _settings(WorkerSettings),
    "signer.yaml": _settings(SignerSettings),
    "kernfarm.yaml": _request,
    "farms.yaml": _farms,
    "values.yaml": _values,
    "prometheus.yaml": _any,
}


@pytest.mark.parametrize(("page", "block"), BLOCKS, ids=[f"{page}:{block.line}" for page, block in BLOCKS])
def test_the_program_that_would_read_it_takes_it(page: Page, block: Block, tmp_path: Path) -> None:
    name = block.text.partition("\n")[0].removeprefix("# ").strip()
    assert name in READERS, f"{page}:{block.line}: the first line says which file it is: # {', # '.join(READERS)}"
    (tmp_path / name).write_text(block.text)
    READERS[name](tmp_path / name)


def test_there_are_examples_of_all_kinds_that_people_write() -> None:
    names = {block.text.partition("\n")[0].removeprefix("# ") for _, block in BLOCKS}
    assert names >= {"coordinator.yaml", "kernfarm.yaml", "farms.yaml"}


def test_values_of_the_chart_that_the_deployment_page_names_exist() -> None:
    values = yaml.safe_load((ROOT / "helm/kernfarm/values.yaml").read_text())
    spans = [span.partition(":")[0] for span in Page(ROOT / "docs/howto/deploy.md").spans]
    named = [span for span in spans if re.fullmatch(r"[a-zA-Z]+(\.[a-zA-Z]+)+", span) and span not in FILES]
    named = [span for span in named if span.partition(".")[0] in values]
    assert len(named) > 3
    for span in named:
        below: Any = values
        for key in span.split("."):
            assert key in below, span
            below = below[key]
