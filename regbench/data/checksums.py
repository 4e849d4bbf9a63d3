"""Checksums of files and of decoded images."""

from __future__ import annotations

import gzip
import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from regbench.data.base import Images


def md5_of(path: Path) -> str:
    """MD5 of a file in hexadecimal. Data sets publish MD5s; against accidents they are good enough."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def md5_unpacked(archive: Path) -> str:
    """MD5 of what a gzip file holds. Raises ``OSError`` or ``EOFError`` where it cannot be unpacked."""
    with gzip.open(archive, "rb") as file:
        return hashlib.file_digest(file, _md5).hexdigest()


def fingerprint_of(images: Images) -> str:
    """SHA-256 over the decoded data, as ``sha256:<hex>``: shapes, pixels, labels, class names and the split.

    For data sets without published checksums; the same images give the same fingerprint on every machine.
    """
    arrays = (images.train, images.train_labels, images.test, images.test_labels)
    digest = hashlib.sha256(_canonical([[list(a.shape), a.dtype.name] for a in arrays], images.classes))
    for array in arrays:
        little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
        digest.update(little.reshape(-1).view(np.uint8).data)
    return f"sha256:{digest.hexdigest()}"


def fingerprint_from(name: str, checksums: dict[str, str]) -> str:
    """A fingerprint made of published checksums alone, so that it is known without the data."""
    return f"sha256:{hashlib.sha256(_canonical(name, checksums)).hexdigest()}"


def _canonical(*parts: Any) -> bytes:
    return json.dumps(parts, sort_keys=True, separators=(",", ":")).encode()


def _md5() -> Any:
    return hashlib.md5(usedforsecurity=False)
