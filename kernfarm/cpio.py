"""The kernel's initramfs format, newc (Documentation/driver-api/early-userspace/buffer-format.rst). Pure."""

from __future__ import annotations

import stat


class Cpio:
    """An archive that grows; folders come with the files in them. Times and owners are 0, so the same files give the same bytes."""

    def __init__(self) -> None:
        self._data = bytearray()
        self._folders: set[str] = set()
        self._inode = 0

    def add(self, name: str, content: bytes, *, mode: int = 0o644) -> None:
        """A regular file; `name` is relative to the root."""
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            folder = "/".join(parts[:depth])
            if folder not in self._folders:
                self._folders.add(folder)
                self._entry(folder, stat.S_IFDIR | 0o755, b"")
        self._entry(name, stat.S_IFREG | mode, content)

    def finish(self) -> bytes:
        """The whole archive; nothing can be added any more."""
        self._entry("TRAILER!!!", 0, b"")
        return bytes(self._data)

    def _entry(self, name: str, mode: int, content: bytes) -> None:
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(encoded), 0)
        self._data += b"070701" + b"".join(f"{value:08x}".encode() for value in fields) + encoded
        self._data += b"\0" * (-len(self._data) % 4) + content
        self._data += b"\0" * (-len(self._data) % 4)
