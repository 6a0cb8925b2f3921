"""The tutorial's commands, as they stand on the page, on the farm that they start: they end as the page says, and show what it shows.

What is different here is in this table and nowhere else: the kernel is a stand-in that builds in seconds, and folders are the test's own.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from tests.docs.pages import ROOT, Page
from tests.docs.session import Step, compare, steps, substituted
from tests.fakes import fake_linux
from tests.homes import make_home
from tests.integration.test_terminal import Terminal, terminal

pytestmark = pytest.mark.ray

PAGE = Page(ROOT / "docs/tutorial.md")
UP = "kernfarm up"
# The stand-in has no code for a processor to run: QEMU waits for a kernel that never speaks, and the command has to say so. So its words
# are checked, and everything up to QEMU's start; that real kernels boot by it is for tests/e2e.
BOOT, BOOT_FAILS = "kernfarm boot", 3
STATE = "/var/lib/kernfarm"
SOURCE = "--source debian:6.1"
CONFIG = "demo/x86_64.config"
CONFIG_HERE = "CONFIG_FAKE_FS=m\n"


@dataclass(slots=True, kw_only=True)
class Reader:
    """Who follows the page: a folder to work in, a farm's folder, and what was seen of builds' ids."""

    work: Path
    state: Path
    ids: dict[str, str] = field(default_factory=dict)

    @property
    def words(self) -> dict[str, str]:
        """The page's words and those in their place."""
        return {
            f"{UP} --workers 2": f"{UP} --workers 2 --state {self.state}",
            STATE: str(self.state),
            SOURCE: f"--source file:{self.work}/linux-fake.tar --no-boot",
            CONFIG: f"{self.work}/fake.config",
            BOOT: f"{BOOT} --timeout 3",
            **self.ids,
        }

    @property
    def shown(self) -> dict[str, str]:
        """The same for what commands show."""
        return {"debian:6.1": "file:linux-fake.tar", STATE: str(self.state)}

    @property
    def environment(self) -> dict[str, str]:
        """Of a terminal of a certain width. Commands find the farm as they would in its usual place."""
        env = {"PYTHONPATH": os.pathsep.join(entry for entry in sys.path if entry), "COLUMNS": "160", "NO_COLOR": "1"}
        env["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
        if (self.state / "address").exists():
            keys = self.state / "credentials"
            env |= {"KERNFARM": (self.state / "address").read_text().strip()}
            env |= {"KERNFARM_CA": str(keys / "ca.pem"), "KERNFARM_TOKEN_FILE": str(keys / "token")}
        return env

    def start(self, step: Step) -> AbstractContextManager[Terminal]:
        """One command of the page, on a terminal."""
        command = f"cd {self.work} && exec {substituted(step.command, self.words)}"
        return terminal("bash", "-c", command, env=self.environment)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    home = make_home()
    try:
        fake_linux.tarball(tmp_path / "linux-fake.tar")
        (tmp_path / "fake.config").write_text(CONFIG_HERE)
        yield Reader(work=tmp_path, state=home)
    finally:
        if "KEEP" not in os.environ:
            shutil.rmtree(home)


def test_the_page_is_about_what_is_replaced_here() -> None:
    # Installs packages: whoever runs this has done so, by the same program.
    assert [block.text for block in PAGE.blocks if block.language != "console"] == ["make setup\n. .venv/bin/activate\n"]
    commands = "\n".join(step.command for step in steps(PAGE))
    for word in (f"{UP} --workers 2", STATE, SOURCE, CONFIG, BOOT):
        assert word in commands, f"{word} is not on the page any more: does the table still fit?"


def test_the_tutorial_does_what_it_says(reader: Reader) -> None:
    first, *others = steps(PAGE)
    assert first.command.startswith(UP), "the farm is started first, in a terminal of its own"
    with reader.start(first) as farm:
        try:
            farm.read_until(b"Ctrl-C stops it", 120)
            assert not compare(first, farm.seen.decode(), {})
            wrong = [f"docs/tutorial.md:{step.line}: {step.command}: {said}" for step in others if (said := follow(reader, step))]
        finally:
            farm.press(b"\x03")  # whatever happened: its programs end with it, and only so
            code = farm.end(60)
        assert code == 0
    assert not wrong, "\n".join(wrong)


def follow(reader: Reader, step: Step) -> str:
    """One command of the page, to its end. Returns what is not as the page says, "" for nothing."""
    with reader.start(step) as screen:
        code = screen.end(120)
        said = screen.seen.decode(errors="replace")
    if step.command.startswith(BOOT):
        return "" if code == BOOT_FAILS and "no user space after" in said else f"exit code {code}\n{said}"
    if code != step.code:
        return f"exit code {code}, the page says {step.code}\n{said}"
    return compare(replace(step, shown=tuple(substituted(line, reader.shown) for line in step.shown)), said, reader.ids)
