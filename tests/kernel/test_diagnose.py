"""The root cause of failed builds, out of logs as the tools write them."""

from __future__ import annotations

import pytest

from kernel import diagnose
from kernel.errors import Code


@pytest.mark.parametrize(
    ("log", "code", "where", "said"),
    [
        (
            b"/build/src/mm/a.c: In function 'f':\n/build/src/mm/a.c:7:3: error: 'x' undeclared\nmake[2]: *** [a] Error 1\n",
            Code.KERNEL_DOES_NOT_BUILD,
            "mm/a.c:7:3",
            "'x' undeclared",
        ),
        (b"ld: vmlinux.o: in function `f':\n(.text+0x1): undefined reference to `g'\n", Code.KERNEL_DOES_NOT_BUILD, "vmlinux.o", "g"),
        (
            b"ld.lld-14: error: undefined symbol: g\n>>> referenced by a.c:2 (/build/src/a.c:2)\n>>>               vmlinux.o:(f)\n",
            Code.KERNEL_DOES_NOT_BUILD,
            "vmlinux.o",
            "undefined reference to g in f",
        ),
        (b"ld.lld: error: vmlinux.lds:3: unknown directive: x\n", Code.KERNEL_DOES_NOT_BUILD, "", "unknown directive: x (linker)"),
        (
            b"aarch64-linux-gnu-ld: a.o: in function `f':\na.c:(.text+0x8): undefined reference to `g'\n",
            Code.KERNEL_DOES_NOT_BUILD,
            "a.o",
            "g",
        ),
        (b'ERROR: modpost: "f" [x.ko] undefined!\n', Code.KERNEL_DOES_NOT_BUILD, "modpost", "undefined"),
        (b"a.c:1:1: error: x\ncc1: No space left on device\n", Code.DISK_FULL, "", "no space"),
        (b"scripts/x.c:5:10: fatal error: libelf.h: No such file or directory\n", Code.SANDBOX_FAILED, "scripts/x.c:5", "libelf.h"),
        (b"make: *** No rule to make target 'a.o', needed by 'b'.  Stop.\n", Code.KERNEL_DOES_NOT_BUILD, "a.o", "nothing makes a.o"),
        (b"gcc: fatal error: Killed signal terminated program cc1\n", Code.OUT_OF_MEMORY, "", "cc1"),
        (b"something odd\n", Code.KERNEL_DOES_NOT_BUILD, "", "something odd"),
        (b"", Code.KERNEL_DOES_NOT_BUILD, "", "no output"),
    ],
)
def test_the_root_cause_is_found(log: bytes, code: Code, where: str, said: str) -> None:
    problem = diagnose.diagnose(log)
    assert (problem.code, problem.where) == (code, where)
    assert said in problem.message


@pytest.mark.parametrize("words", ["No space left on device", "Cannot allocate memory", "virtual memory exhausted"])
@pytest.mark.parametrize(
    "quoted",
    [
        '   12 |         dev_err(x, "f: {}");\n      |         ^~~~~~~\n',
        '12345 | dev_err(x, "{}");\n',
        '        dev_err(x, "f: {}");\n        ^\n',
        "   12 | /* mm: {}\n      | ^\n",
    ],
)
def test_source_that_the_compiler_quotes_is_no_state_of_the_machine(words: str, quoted: str) -> None:
    log = (
        "  CC      drivers/a.o\n/build/src/drivers/a.c: In function 'probe':\n"
        "/build/src/drivers/a.c:12:9: error: implicit declaration of function 'dev_err' [-Werror=implicit-function-declaration]\n"
        + quoted.format(words)
        + "cc1: some warnings being treated as errors\nmake[3]: *** [scripts/Makefile.build:250: drivers/a.o] Error 1\n"
    )
    problem = diagnose.diagnose(log.encode())
    assert (problem.code, problem.where) == (Code.KERNEL_DOES_NOT_BUILD, "drivers/a.c:12:9")
    assert problem.message.startswith("implicit declaration of function 'dev_err'")


def test_an_error_directive_that_speaks_of_a_full_disk_is_the_authors_own() -> None:
    problem = diagnose.diagnose(b"a.c:3:2: error: #error config: No space left on device\n")
    assert (problem.code, problem.where) == (Code.KERNEL_DOES_NOT_BUILD, "a.c:3:2")


@pytest.mark.parametrize(
    "line",
    [
        "/usr/bin/ld: final link failed: No space left on device",
        "/build/src/lib/a.c:100: fatal error: error writing to /tmp/ccJ8.s: No space left on device",
        "/build/src/lib/a.c:100:1: fatal error: opening dependency file lib/.a.o.d: No space left on device",
        "{standard input}:12: Fatal error: can't write 12 bytes to section .text of a.o: 'No space left on device'",
        "{standard input}: Fatal error: can't close a.o: No space left on device",
        "tar: linux/a.c: Cannot write: No space left on device",
        "xz: (stdout): Write error: No space left on device",
        "/bin/sh: 1: cannot create include/x.h: No space left on device",
        "scripts/mkcompile_h: line 12: echo: write error: No space left on device",
        "make[2]: write error: stdout: No space left on device",
        "OSError: [Errno 28] No space left on device",
        "error: unable to open output file 'a.o': 'No space left on device'",
    ],
)
def test_a_full_disk_in_the_tools_own_words(line: str) -> None:
    assert diagnose.diagnose(f"  CC      a.o\n{line}\nmake: *** [a.o] Error 1\n".encode()).code is Code.DISK_FULL


@pytest.mark.parametrize(
    "line",
    [
        "virtual memory exhausted: Cannot allocate memory",
        "make[1]: *** virtual memory exhausted.  Stop.",
        "cc1: out of memory allocating 65536 bytes after a total of 811008 bytes",
        "gcc-12: fatal error: cannot execute 'cc1': vfork: Cannot allocate memory",
        "make[3]: vfork: Cannot allocate memory",
        "aarch64-linux-gnu-gcc-12: fatal error: Killed signal terminated program cc1",
    ],
)
def test_too_little_memory_in_the_tools_own_words(line: str) -> None:
    assert diagnose.diagnose(f"  CC      a.o\n{line}\nmake: *** [a.o] Error 1\n".encode()).code is Code.OUT_OF_MEMORY
