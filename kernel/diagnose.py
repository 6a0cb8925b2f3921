"""The root cause out of a build log: a table of strong and weak patterns, strongest first, earliest match wins.

The idea is syzkaller's (pkg/build): what a person would look for first, instead of the last hundred lines.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from kernel.errors import Code, Problem


@dataclass(frozen=True, slots=True)
class _Cause:
    code: Code
    pattern: re.Pattern[str]
    message: str
    where: str = ""
    hint: str = ""


def _cause(code: Code, pattern: str, message: str, where: str = "", hint: str = "") -> _Cause:
    return _Cause(code, re.compile(pattern, re.MULTILINE), message, where, hint)


_KERNEL = Code.KERNEL_DOES_NOT_BUILD
_HEADERS = {"openssl": "libssl-dev", "libelf.h": "libelf-dev", "gelf.h": "libelf-dev", "libelf": "libelf-dev", "gmp.h": "libgmp-dev"}

# How tools begin a line of their own: `cc1: `, `make[2]: `, `/usr/bin/ld: `, and `FILE:LINE: fatal error: ` of a compiler or assembler
# that gives up. Not with blanks or `  12 | `, which begin the source lines that a compiler quotes: those may say anything at all.
_TOOL = r"^(?:[\w./+-]+(?:\[\d+\])?|\{standard input\}|(?:\{standard input\}|[^\s:]+):\d+(?::\d+)?: [Ff]atal error): "


def _said(words: str) -> str:
    """What the system said to a tool, which puts it at the end of its line."""
    return rf"{_TOOL}(?:[^\n]*(?:: |\] ))?'?{words}'?(?: \(os error \d+\))?\.?$"


# Strongest first: an environment that is broken explains every compiler error after it.
_CAUSES = (
    _cause(Code.DISK_FULL, _said("No space left on device"), "no space left on the worker's disk"),
    _cause(Code.OUT_OF_MEMORY, _said("Cannot allocate memory"), "the compiler ran out of memory"),
    _cause(
        Code.OUT_OF_MEMORY,
        rf"(?:^|{_TOOL}(?:\*\*\* )?)(?:virtual memory exhausted|out of memory allocating \d+ bytes)",
        "the compiler ran out of memory",
    ),
    _cause(
        Code.OUT_OF_MEMORY,
        r"^[\w./+-]+: fatal error: Killed signal terminated program (\S+)",
        "{0} was killed, most likely by the memory limit",
    ),
    _cause(
        Code.SANDBOX_FAILED,
        r"^(?:/build/src/)?((?:scripts|tools|certs)/[^:\s]+:\d+)[^\n]*fatal error: (openssl/\S+|libelf\.h|gelf\.h|gmp\.h): No such file",
        "the worker lacks {1}, which the kernel's host tools need",
        "{0}",
        "apt-get install {package} on the worker",
    ),
    _cause(
        Code.SANDBOX_FAILED,
        r"^/bin/sh: \d+: ([\w.-]+): not found$",
        "the worker lacks the program {0}",
        "",
        "apt-get install it on the worker",
    ),
    _cause(
        _KERNEL,
        r"^(?:/build/src/|\./)?(\S+?:\d+(?::\d+)?): (?:fatal )?error: (.+)$",
        "{1}",
        "{0}",
        "mend the source, a patch or the config",
    ),
    _cause(_KERNEL, r"^(?:/build/src/|\./)?(\S+?:\d+): Error: (.+)$", "{1} (assembler)", "{0}", "mend the source or a patch"),
    _cause(
        _KERNEL,
        r"ld(?:\.\w+)?: (\S+?): in function `([^']+)':.*\n?.*undefined reference to `([^']+)'",
        "undefined reference to {2} in {1}",
        "{0}",
    ),
    _cause(_KERNEL, r"undefined reference to `([^']+)'", "undefined reference to {0}", "", "a config symbol that provides it is off"),
    _cause(
        _KERNEL,
        r"^ld\.lld(?:-\d+)?: error: undefined symbol: (\S+)\n>>> referenced by [^\n]*\n>>> +(\S+?):\(([^)\n]+)\)",
        "undefined reference to {0} in {2}",
        "{1}",
    ),
    _cause(_KERNEL, r"^ld\.lld(?:-\d+)?: error: (.+)$", "{0} (linker)"),
    _cause(_KERNEL, r"^ERROR: modpost: (.+)$", "{0}", "modpost"),
    _cause(_KERNEL, r"No rule to make target '([^']+)', needed by '([^']+)'", "nothing makes {0}, which {1} needs", "{0}"),
    _cause(_KERNEL, r"^(?:/build/src/)?(\S+?:\d+): (?:\*\*\* )?(missing separator.*|recipe commences.*|multiple target.*)$", "{1}", "{0}"),
    _cause(_KERNEL, r"^([^\s:]+:\d+): (syntax error.*|unknown statement.*|invalid .*)$", "{1}", "{0}"),
    _cause(_KERNEL, r"^make\[?\d*\]?: \*\*\* \[([^\]]+?):? ([^\]\s]+)\] Error (\d+)", "making {1} failed with exit code {2}", "{0}"),
)


def diagnose(log: bytes) -> Problem:
    """The most telling line of a failed build's output, as a problem with place and mend."""
    text = log.decode(errors="replace").replace("\r", "")
    for cause in _CAUSES:
        match = cause.pattern.search(text)
        if match is None:
            continue
        words = [group or "" for group in match.groups()]
        package = next((name for key, name in _HEADERS.items() if any(word.startswith(key) for word in words)), "")
        return Problem(
            code=cause.code,
            message=cause.message.format(*words),
            where=cause.where.format(*words),
            hint=cause.hint.format(*words, package=package),
        )
    last = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no output at all")
    return Problem(code=_KERNEL, message=f"the build failed; the last it said: {last[:300]}")
