"""Content-addressed blobs in a folder or an S3-compatible store, through one library. Every read checks the digest.

Layout: `blobs/ab/cdef...` for content, `PREFIX/...` for keyed entries (compiler results), whose envelope is checked instead.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import logging
import os
import tempfile
import urllib.parse
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import IO, Any, cast

import obstore
from obstore import exceptions
from obstore.store import LocalStore, ObjectStore, S3Store

from kernel import digest as digests
from kernel.errors import Code, FarmError
from kernfarm.regular import NotRegularError, open_regular

log = logging.getLogger(__name__)

CHUNK = 1 << 20
_ENVELOPE = b"kernfarm1"


class BlobStore:
    """All methods block and are thread-safe. Errors of the backend are FarmErrors that name the store without its secrets."""

    def __init__(self, store: ObjectStore, *, name: str, folder: Path | None) -> None:
        self._store = store
        self._folder = folder
        self.name = name

    @classmethod
    def open(cls, url: str, options: dict[str, str] | None = None) -> BlobStore:
        """`file:///FOLDER` or `s3://BUCKET/PREFIX`; `options` as the library names them (endpoint, region, access_key_id, ...).

        Raises FarmError(INVALID_ARGUMENT) for another scheme, an unknown option, or plain HTTP that was not asked for.
        """
        parts = urllib.parse.urlsplit(url)
        name = f"{parts.scheme}://{parts.hostname or ''}{parts.path}"
        if parts.scheme == "file" and not parts.netloc and parts.path.startswith("/"):
            folder = Path(urllib.parse.unquote(parts.path))
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            return cls(LocalStore(folder), name=name, folder=folder)
        if parts.scheme == "s3" and parts.netloc:
            given: dict[str, Any] = dict(options or {})
            client: Any = {"allow_http": given.pop("allow_http", "false") == "true", "timeout": "60s", "connect_timeout": "5s"}
            retry: Any = {"max_retries": 4}
            try:
                store = S3Store(parts.netloc, prefix=parts.path.strip("/") or None, client_options=client, retry_config=retry, **given)
            except exceptions.BaseError as error:
                raise FarmError(Code.INVALID_ARGUMENT, f"cannot open the blob store: {_short(error)}", where=name) from error
            return cls(store, name=name, folder=None)
        raise FarmError(Code.INVALID_ARGUMENT, f"no blob store address: {url!r}", hint="file:///FOLDER or s3://BUCKET/PREFIX")

    def put_bytes(self, data: bytes) -> str:
        """Store a byte string; returns its digest."""
        digest = digests.of_bytes(data)
        self._ensure(_key(digest), data, len(data))
        return digest

    def put_file(self, path: Path) -> tuple[str, int]:
        """Store a regular file (never what a symbolic link points to); returns digest and size in bytes."""
        with _open_regular(path) as file:
            return self._put_open(file)

    def put_stream(self, chunks: Iterable[bytes], *, expect: str = "", limit: int = 0) -> tuple[str, int]:
        """Store what a stream brings, once it is complete. Raises FarmError(BAD_DIGEST) when it is not `expect`, INVALID_ARGUMENT
        when it is longer than `limit` bytes; then nothing is left behind."""
        with self._spool() as spool:
            size = 0
            for chunk in chunks:
                size += len(chunk)
                if limit and size > limit:
                    raise FarmError(Code.INVALID_ARGUMENT, f"more than {limit} bytes", where=expect)
                with _disk(self.name):
                    spool.write(chunk)
            found = _hash(spool)
            if expect and found != expect:
                raise FarmError(Code.BAD_DIGEST, f"expected {expect}, got {found}", where=expect)
            return self._put_open(spool)

    def has(self, digest: str) -> bool:
        """Whether there is a blob of that digest (its content is checked on reading)."""
        return self._size(_key(digest)) is not None

    def size(self, digest: str) -> int:
        """Its size in bytes. Raises FarmError(BLOB_LOST)."""
        size = self._size(_key(digest))
        if size is None:
            raise _lost(digest, "is missing")
        return size

    def get_bytes(self, digest: str, *, limit: int = 64 << 20) -> bytes:
        """A small blob as a whole. Raises FarmError: BLOB_LOST, or INVALID_ARGUMENT when it is larger than `limit` bytes."""
        if self.size(digest) > limit:
            raise FarmError(Code.INVALID_ARGUMENT, f"larger than {limit} bytes", where=digest)
        return b"".join(self.stream(digest))

    def get_file(self, digest: str, path: Path) -> int:
        """Write a blob to `path`, all or nothing. Returns its size in bytes."""
        size = 0
        with _disk(str(path.parent)), tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name[:40]}.", delete=False) as file:
            try:
                for chunk in self.stream(digest):
                    size += file.write(chunk)
                file.close()
                Path(file.name).replace(path)
            except BaseException:
                Path(file.name).unlink(missing_ok=True)
                raise
        return size

    def stream(self, digest: str, *, offset: int = 0) -> Iterator[bytes]:
        """A blob in chunks, from `offset` on. The digest is checked when the end is reached: use nothing of it before that.

        A wrong blob is removed, so that it can be made again. A read from the middle can't be checked here; the receiver does it.
        """
        key = _key(digest)
        sha = hashlib.sha256()
        try:
            size = self.size(digest)
            start = offset
            while start < size:
                part = obstore.get_range(self._store, key, start=start, end=min(size, start + 8 * CHUNK))
                data = bytes(memoryview(cast(Any, part)))
                sha.update(data)
                start += len(data)
                yield data
        except (exceptions.BaseError, FileNotFoundError) as error:
            raise self._error(error, digest) from error
        if offset == 0 and f"sha256:{sha.hexdigest()}" != digest:
            log.error("%s: blob %s is damaged; removed", self.name, digest)
            self.delete(digest)
            raise _lost(digest, f"was damaged: its content had {sha.hexdigest()}")

    def delete(self, digest: str) -> None:
        """Remove a blob; none there is fine."""
        self._delete(_key(digest))

    def keyed(self, prefix: str) -> KeyedStore:
        """Entries under names of the caller's, below `prefix`."""
        return KeyedStore(self, prefix)

    def _spool(self) -> IO[bytes]:
        with _disk(self.name):
            return tempfile.TemporaryFile(dir=self._folder)

    def _put_open(self, file: IO[bytes]) -> tuple[str, int]:
        digest = _hash(file)
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        self._ensure(_key(digest), file, size)
        return digest, size

    def _size(self, key: str) -> int | None:
        try:
            return int(obstore.head(self._store, key)["size"])
        except (FileNotFoundError, exceptions.NotFoundError):
            return None
        except exceptions.BaseError as error:
            raise self._error(error, key) from error

    def _ensure(self, key: str, data: bytes | IO[bytes], size: int) -> None:
        """Durable when this returns, also when another writer put it there a moment ago."""
        if self._size(key) != size:
            self._write_entry(key, data)
        if self._folder is not None:
            with _disk(self.name):
                _sync(self._folder / key)

    def _write_entry(self, key: str, data: bytes | IO[bytes]) -> None:
        """Not synced: an entry lost in a power cut is made again, a damaged one is noticed."""
        try:
            obstore.put(self._store, key, cast(Any, data))
        except exceptions.BaseError as error:
            raise self._error(error, key) from error

    def _read(self, key: str) -> bytes | None:
        try:
            return bytes(memoryview(cast(Any, obstore.get(self._store, key).bytes())))
        except (FileNotFoundError, exceptions.NotFoundError):
            return None
        except exceptions.BaseError as error:
            raise self._error(error, key) from error

    def _delete(self, key: str) -> None:
        try:
            obstore.delete(self._store, key)
        except (FileNotFoundError, exceptions.NotFoundError):
            return
        except exceptions.BaseError as error:
            raise self._error(error, key) from error

    def _error(self, error: Exception, what: str) -> FarmError:
        text = _short(error)
        if isinstance(error, (FileNotFoundError, exceptions.NotFoundError)):
            return _lost(what, "is missing")
        if "No space left" in text or "StorageFull" in text or "os error 28" in text:
            return FarmError(Code.DISK_FULL, "the blob store is full", where=self.name, hint="free space, or move it")
        return FarmError(Code.UNAVAILABLE, f"the blob store does not answer: {text}", where=self.name)


class KeyedStore:
    """Entries under keys that say nothing about the content. The envelope carries key and digest: a swapped or damaged entry is none."""

    def __init__(self, blobs: BlobStore, prefix: str) -> None:
        if not prefix or any(part in ("", ".", "..") for part in prefix.split("/")):
            raise ValueError(f"no prefix for keys: {prefix!r}")
        self._blobs = blobs
        self._prefix = prefix

    def get(self, key: bytes) -> bytes | None:
        """The entry, or None when there is none that is whole and belongs to this key."""
        data = self._blobs._read(self._path(key))
        if data is None:
            return None
        head = _ENVELOPE + len(key).to_bytes(2, "big") + key
        body = data[len(head) + 32 :]
        if data.startswith(head) and hashlib.sha256(body).digest() == data[len(head) : len(head) + 32]:
            return body
        log.warning("%s: entry %s is damaged or belongs elsewhere; removed", self._blobs.name, key.hex())
        self.remove(key)
        return None

    def put(self, key: bytes, data: bytes) -> None:
        """Store an entry, in place of an older one, all or nothing."""
        head = _ENVELOPE + len(key).to_bytes(2, "big") + key
        self._blobs._write_entry(self._path(key), head + hashlib.sha256(data).digest() + data)

    def remove(self, key: bytes) -> None:
        """Remove an entry; none there is fine."""
        self._blobs._delete(self._path(key))

    def _path(self, key: bytes) -> str:
        name = key.hex()
        return f"{self._prefix}/{name[:2]}/{name[2:]}"


def _key(digest: str) -> str:
    name = digests.hex_of(digest)
    return f"blobs/{name[:2]}/{name[2:]}"


def _hash(file: IO[bytes]) -> str:
    file.seek(0)
    return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"  # type: ignore[arg-type]  # IO[bytes] reads and seeks


def _open_regular(path: Path) -> IO[bytes]:
    try:
        return open_regular(path, follow=False)
    except NotRegularError as error:
        raise FarmError(Code.INVALID_ARGUMENT, "not a regular file", where=str(path)) from error


@contextlib.contextmanager
def _disk(where: str) -> Iterator[None]:
    """Turn what a local disk refuses into a problem that names the place."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise FarmError(Code.DISK_FULL, "the disk is full", where=where, hint="free space, or move it") from error
        raise FarmError(Code.UNAVAILABLE, f"the disk refuses: {error.strerror}", where=where) from error


def _sync(path: Path) -> None:
    """Make a new file and its name durable: a result is announced only when it survives a power cut."""
    for each in (path, path.parent, path.parent.parent):
        descriptor = os.open(each, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _lost(digest: str, what: str) -> FarmError:
    return FarmError(Code.BLOB_LOST, f"blob {digest} {what}", where=digest)


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:300]
