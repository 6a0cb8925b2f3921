"""`kernfarm verify`: no farm is asked; the image in a folder or a registry, a public key and nothing else."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from kernel.codec import to_plain
from kernel.errors import HANDLING, Code, FarmError
from kernfarm import verify
from kernfarm.cli.output import Output
from kernfarm.registry.reference import Reference
from kernfarm.registry.source import RegistrySource
from kernfarm.verify import Report
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import ImageSource, LayoutSource


def run(words: argparse.Namespace, out: Output) -> int:
    """Exit code 0 only when every check holds."""
    key = VerifyKey.read(words.key)
    with open_source(words.image, plain_http=words.plain_http) as source:
        report = verify.verify(source, key, builder=words.builder, booted=words.booted)
    show(report, out)
    return 0 if report.ok else HANDLING[Code.BAD_SIGNATURE].exit_code


@contextmanager
def open_source(image: str, *, plain_http: bool = False) -> Iterator[ImageSource]:
    """The place that a word on the command line means: a folder that is there, else a reference as docker has it. Raises FarmError."""
    folder = Path(image)
    if folder.is_dir():
        yield LayoutSource(folder)
        return
    if image.startswith((".", "/", "~")):
        hint = "kernfarm fetch BUILD --to DIR; kernfarm verify DIR --key cosign.pub"
        raise FarmError(Code.MISSING_FILE, "there is no such folder with an OCI layout", where=image, hint=hint)
    with RegistrySource(Reference.parse(image), plain_http=plain_http) as source:
        yield source


def show(report: Report, out: Output) -> None:
    """Each check with what and where; failures once more on stderr, for people."""
    if out.json_mode:
        checks = [
            {"name": check.name, "where": check.where, "ok": check.ok, "problem": to_plain(check.problem) if check.problem else None}
            for check in report.checks
        ]
        out.data({"source": report.source, "image": report.image, "builder": report.builder, "ok": report.ok, "checks": checks})
    else:
        rows = [
            ("ok" if check.ok else "FAILED", check.name, check.where, check.problem.message if check.problem else "")
            for check in report.checks
        ]
        out.table(("", "check", "where", "problem"), rows)
    failed = [check for check in report.checks if check.problem is not None]
    for check in failed:
        if check.problem is not None:
            out.problem(check.problem)
    verdict = "every check holds" if report.ok else f"{len(failed)} checks failed"
    out.say(f"{report.image}: {verdict}; built by {report.builder or 'nobody known'}")
