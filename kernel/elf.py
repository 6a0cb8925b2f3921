"""What a program is for, by the first bytes of its file (elf(5))."""

from __future__ import annotations

_MAGIC = b"\x7fELF"
_BIG_ENDIAN = 2
# So much of a file's beginning tells its machine.
HEAD_BYTES = 20


def machine(data: bytes) -> int:
    """e_machine, such as 62 (x86-64) or 183 (AArch64); 0 for what is no ELF file."""
    if len(data) < HEAD_BYTES or not data.startswith(_MAGIC):
        return 0
    return int.from_bytes(data[18:20], "big" if data[5] == _BIG_ENDIAN else "little")
