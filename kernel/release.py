"""The release that a kernel calls itself (`uname -r`): text of a build, which names folders, tags and images."""

from __future__ import annotations

import re

from kernel.errors import Code, FarmError

# Linux' own limit is 64 bytes with the terminating zero (include/linux/utsname.h), and kbuild keeps it (uts_len in the top Makefile).
_FORM = re.compile(r"[0-9A-Za-z][0-9A-Za-z._+~-]{0,62}")


def check(release: str) -> str:
    """The release again. Raises FarmError(BAD_CONFIG) for text that is none: a tree can make `make kernelrelease` print anything."""
    if not _FORM.fullmatch(release) or ".." in release:
        message = f"the kernel calls itself {release[:80]!r}, which is no release"
        hint = "at most 63 letters, digits and ._+~-; see CONFIG_LOCALVERSION, localversion files and EXTRAVERSION"
        raise FarmError(Code.BAD_CONFIG, message, where="kernelrelease", hint=hint)
    return release
