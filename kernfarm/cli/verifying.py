"""`kernfarm verify`: no farm is asked; the image, a public key and nothing else."""

from __future__ import annotations

import argparse
from pathlib import Path

from kernel.codec import to_plain
from kernel.errors import HANDLING, Code, FarmError
from kernfarm import verify
from kernfarm.cli.output import Output
from kernfarm.verify import Report
from kernfarm.verify_key import VerifyKey
from kernfarm.verify_source import ImageSource, LayoutSource


def run(words: argparse.Namespace, out: Output) -> int:
    """Exit code 0 only when every check holds."""
    key = VerifyKey.read(words.key)
    report = verify.verify(open_source(words.image), key, builder=words.builder)
    show(report, out)
    return 0 if report.ok else HANDLING[Code.BAD_SIGNATURE].exit_code


def open_source(image: str) -> ImageSource:
    """The place that a word on the command line means. Raises FarmError."""
    folder = Path(image)
    if folder.is_dir():
        return LayoutSource(folder)
    hint = "kernfarm fetch BUILD --to DIR; kernfarm verify DIR --key cosign.pub"
    raise FarmError(Code.MISSING_FILE, "there is no such folder with an OCI layout", where=image, hint=hint)


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
