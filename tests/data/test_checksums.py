from __future__ import annotations

import dataclasses
import gzip
import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regbench.data.base import Images, ImageShape
from regbench.data.checksums import fingerprint_from, fingerprint_of, md5_of, md5_unpacked
from tests.data.small import random_images

IMAGES = random_images(ImageShape(3, 8), ("a", "b"))


def moved(images: Images) -> Images:
    """The last training image made the first test image: the same bytes, another split."""
    return dataclasses.replace(
        images,
        train=images.train[:-1],
        test=np.concatenate([images.train[-1:], images.test]),
        train_labels=images.train_labels[:-1],
        test_labels=np.concatenate([images.train_labels[-1:], images.test_labels]),
    )


@pytest.mark.parametrize(
    "change",
    [
        lambda i: dataclasses.replace(i, train=i.train ^ 1),
        lambda i: dataclasses.replace(i, test=i.test[::-1]),
        lambda i: dataclasses.replace(i, train_labels=1 - i.train_labels),
        lambda i: dataclasses.replace(i, test_labels=1 - i.test_labels),
        lambda i: dataclasses.replace(i, classes=("a", "c")),
        lambda i: dataclasses.replace(i, train=i.train.reshape(-1, 3, 4, 16)),
        moved,
    ],
)
def test_every_part_counts(change: Any) -> None:
    assert fingerprint_of(change(IMAGES)) != fingerprint_of(IMAGES)


def test_memory_layout_and_byte_order_do_not_count() -> None:
    same = dataclasses.replace(
        IMAGES, train=np.asfortranarray(IMAGES.train), test_labels=IMAGES.test_labels.astype(">i8")
    )
    assert fingerprint_of(same) == fingerprint_of(IMAGES)


def test_published_checksums_count_by_file() -> None:
    first = fingerprint_from("x", {"a": "1", "b": "2"})
    assert fingerprint_from("x", {"b": "2", "a": "1"}) == first
    assert (
        len({first, fingerprint_from("y", {"a": "1", "b": "2"}), fingerprint_from("x", {"a": "2", "b": "1"})})
        == 3
    )


def test_md5s(tmp_path: Path) -> None:
    content = b"x" * 3_000_000
    (tmp_path / "a").write_bytes(content)
    (tmp_path / "a.gz").write_bytes(gzip.compress(content))
    assert md5_of(tmp_path / "a") == md5_unpacked(tmp_path / "a.gz") == hashlib.md5(content).hexdigest()
