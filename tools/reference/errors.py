"""docs/reference/errors.md, from kernel.errors."""

from __future__ import annotations

from coordinator.machine import MAX_FAILURES, MAX_LOSSES
from kernel.errors import HANDLING, MEANING, Code, Fault
from kernfarm.rpc import DOMAIN
from tools.reference import markdown

_INTRO = f"""A failure is a code, what went wrong, the place, and the mend. Over the API it is a `google.rpc.Status` whose `ErrorInfo` has
the code as `reason`, the domain `{DOMAIN}`, and `message`, `where` and `hint` as metadata; those where trying again can help have
`RetryInfo`. The command line prints the same, and ends with the code's exit code; with `--json` it is a build's `problem`.

Attempts of steps that fail with a code that is marked "retried" are made again by the farm itself: after failures at most
{MAX_FAILURES - 1} times, after lost workers at most {MAX_LOSSES - 1} times, and preferably on another worker.
"""
_FAULTS = {
    Fault.USER: "whoever asked: the request, the credentials, the command",
    Fault.KERNEL: "whoever wrote the kernel, its patches or its configuration",
    Fault.INFRASTRUCTURE: "whoever runs the farm, or nobody: machines and networks fail",
    Fault.BUG: "kernfarm's developers",
}


def page() -> str:
    """The page, the same each time."""
    rows = []
    for code in Code:
        handling = HANDLING[code]
        retried = "yes" if handling.retry else ""
        rows.append((f"`{code}`", MEANING[code], handling.fault.value, f"`{handling.status}`", str(handling.exit_code), retried))
    codes = markdown.table(("code", "meaning", "fault", "gRPC status", "exit code", "retried"), rows)
    faults = markdown.table(("fault", "who has to act"), [(fault.value, _FAULTS[fault]) for fault in Fault])
    return markdown.page("Errors", "tools/reference/errors.py", _INTRO, "## Codes\n", codes, "## Faults\n", faults)
