"""What planning asks of an array file, kept below the cache directory until the file changes."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from regbench.data.base import Images, Sizes
from regbench.data.checksums import fingerprint_of
from regbench.data.location import cache_root
from regbench.errors import StoreError
from regbench.store.files import write_json

VERSION = 1
"""Raised whenever reading changes what comes out."""

log = logging.getLogger(__name__)


def facts_of(path: Path, options: dict[str, Any], load: Callable[[], Images]) -> tuple[Sizes, str]:
    """Sizes and fingerprint of the images that ``load`` reads from ``path`` with these options.

    They are read only where the file's size or times of change, or an option, are others than when they were kept.
    A cache that is damaged or cannot be written means that they are read again.
    """
    try:
        state = path.stat()
    except OSError:
        images = load()  # which says what is wrong
        return Sizes(len(images.train), len(images.test)), fingerprint_of(images)
    # The time of change can be set, as copying programs do; that of the change of state cannot.
    times = [state.st_mtime_ns, state.st_ctime_ns]
    stamp = [VERSION, str(path.resolve()), options, state.st_size, *times]
    key = hashlib.sha256(json.dumps(stamp, sort_keys=True).encode()).hexdigest()
    file = cache_root() / "arrays" / f"{key[:32]}.json"
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        if kept["stamp"] == stamp:
            return Sizes(int(kept["train"]), int(kept["test"])), str(kept["fingerprint"])
    except (OSError, ValueError, KeyError, TypeError):
        pass
    images = load()
    sizes, fingerprint = Sizes(len(images.train), len(images.test)), fingerprint_of(images)
    facts = {"train": sizes.train, "test": sizes.test, "fingerprint": fingerprint}
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_json(file, {"stamp": stamp, **facts})
    except (OSError, StoreError) as error:
        log.warning("cannot keep what is known of %s in %s (%s); it will be read again", path, file, error)
    return sizes, fingerprint
