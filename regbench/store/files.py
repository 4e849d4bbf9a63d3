"""Writing files so that each is complete or absent, also when the machine stops in between."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from regbench.errors import StoreError

_HINTS = {
    errno.ENOSPC: "free some space and run the same command again: finished cells are kept",
    errno.EDQUOT: "free some of your quota and run the same command again: finished cells are kept",
    errno.EFBIG: "raise the file size limit (ulimit -f) and run the same command again: finished cells are kept",
    errno.EROFS: "choose another place with --runs-dir or REGBENCH_RUNS",
    errno.EEXIST: "something else is where a directory belongs: move it aside",
    errno.ENOTDIR: "something else is where a directory belongs: move it aside",
    errno.EACCES: "choose another place with --runs-dir or REGBENCH_RUNS, or mend the permissions",
}


@contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """An ``OSError`` of the block becomes a ``StoreError`` that names ``path`` and what to do."""
    try:
        yield
    except OSError as error:
        hint = _HINTS.get(error.errno or 0, "see that the directory exists and can be written")
        raise StoreError(f"cannot write {path}: {error.strerror or error}", hint=hint) from error


def write_bytes(path: Path, content: bytes) -> None:
    """Replace ``path`` in one step: a reader sees the old content or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    with storage_errors(path):
        try:
            with temporary.open("wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)


def write_json(path: Path, value: Any) -> None:
    write_bytes(path, (json.dumps(value, indent=1, allow_nan=False) + "\n").encode())


def append_line(path: Path, line: str) -> None:
    """Append one line and see it on the disk. Where that fails, the file is again what it was before."""
    with storage_errors(path), path.open("ab", buffering=0) as stream:
        before = stream.seek(0, os.SEEK_END)
        try:
            content = memoryview(f"{line}\n".encode())
            while content:  # a disk that is nearly full takes a part
                content = content[stream.write(content) :]
            os.fsync(stream.fileno())
        except BaseException:
            with suppress(OSError):
                os.truncate(stream.fileno(), before)
            raise


def sync_directory(path: Path) -> None:
    """Make renames in ``path`` last; file systems that cannot sync a directory are left to their own."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:  # Windows opens no directories
        return
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
