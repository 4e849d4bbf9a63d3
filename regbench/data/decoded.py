"""Decoded image folders, kept below the cache directory so that they are decoded once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import PIL

from regbench.data.base import Images
from regbench.data.checksums import fingerprint_of
from regbench.data.location import cache_root

VERSION = 1
"""Raised whenever decoding changes what comes out."""

log = logging.getLogger(__name__)


class DecodedCache:
    """The decoded copy of one tree and options; void as soon as the state of the files, or Pillow, differs.

    One file, replaced as a whole. Its zip checksums are verified on reading; whatever is wrong with it
    only means that the images are decoded again.
    """

    def __init__(self, top: Path, options: dict[str, Any], state: list[list[Any]]) -> None:
        place = _digest([str(top.resolve()), options])
        self.file = cache_root() / "folder" / f"{place[:32]}.npz"
        self.stamp = _digest([VERSION, PIL.__version__, options, state])

    def fingerprint(self) -> str | None:
        """The fingerprint of the decoded images, without reading them; ``None``: not cached."""
        found = self._read("fingerprint")
        return None if found is None else str(found["fingerprint"])

    def images(self) -> Images | None:
        """The decoded images; ``None``: not cached."""
        found = self._read("train", "train_labels", "test", "test_labels", "classes")
        if found is None:
            return None
        return Images(
            found["train"],
            found["train_labels"],
            found["test"],
            found["test_labels"],
            tuple(str(name) for name in found["classes"]),
        )

    def store(self, images: Images) -> str:
        """Keep ``images`` and return their fingerprint. A cache that cannot be written is a warning."""
        fingerprint = fingerprint_of(images)
        try:
            self._write(images, fingerprint)
        except OSError as error:
            log.warning("cannot keep decoded images in %s (%s); they will be decoded again", self.file, error)
        return fingerprint

    def _read(self, *names: str) -> dict[str, Any] | None:
        try:
            with self.file.open("rb") as file, np.load(file, allow_pickle=False) as archive:
                if str(archive["stamp"]) != self.stamp:
                    return None
                return {name: archive[name] for name in names}
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("the decoded images in %s are damaged (%s); decoding again", self.file, error)
            return None

    def _write(self, images: Images, fingerprint: str) -> None:
        self.file.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=self.file.parent, suffix=".tmp")
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as file:
                np.savez(
                    file,
                    stamp=np.array(self.stamp),
                    fingerprint=np.array(fingerprint),
                    train=images.train,
                    train_labels=images.train_labels,
                    test=images.test,
                    test_labels=images.test_labels,
                    classes=np.array(images.classes, dtype=np.str_),
                )
            temporary.replace(self.file)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
