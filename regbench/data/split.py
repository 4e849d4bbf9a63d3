"""Which images train, which are held out for selection, which test. The run's seed has no say in it."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from regbench.data.base import Images, Sizes
from regbench.errors import DataError, PluginError, UsageError
from regbench.seeding import derive

HELD_OUT_MOST = 5000
FEWEST_TRAIN = 10


@dataclass(frozen=True, slots=True)
class SplitSizes:
    """Number of images that train, that are held out, and that test."""

    train: int
    heldout: int
    test: int


@dataclass(frozen=True, slots=True)
class Split:
    """A data set as every cell sees it. Images are uint8 of shape (N, C, H, W), labels int64 of (N,)."""

    train: NDArray[np.uint8]
    train_labels: NDArray[np.int64]
    heldout: NDArray[np.uint8]
    heldout_labels: NDArray[np.int64]
    test: NDArray[np.uint8]
    test_labels: NDArray[np.int64]
    classes: tuple[str, ...]


def split_sizes(sizes: Sizes, train_images: int | None = None, test_images: int | None = None) -> SplitSizes:
    """Sizes that :func:`prepare` will give, known without the data.

    Held out are 5,000 of the training images, or a tenth (rounded down) where that is less. ``train_images``
    and ``test_images`` take that many of what remains; ``None``: all. Raises ``UsageError`` for more than
    there are, and ``DataError`` for a set that is too small.
    """
    if sizes.train < FEWEST_TRAIN or sizes.test < 1:
        raise DataError(
            f"the data set has {sizes.train} training and {sizes.test} test images; "
            f"at least {FEWEST_TRAIN} and 1 are needed"
        )
    heldout = min(HELD_OUT_MOST, sizes.train // 10)
    return SplitSizes(
        train=_taken("train_images", train_images, sizes.train - heldout, f"after {heldout} are held out"),
        heldout=heldout,
        test=_taken("test_images", test_images, sizes.test, "in the test split"),
    )


def prepare(images: Images, train_images: int | None = None, test_images: int | None = None) -> Split:
    """Hold out images for selection, then take subsets, each by a fixed permutation.

    A smaller subset is part of a larger one, and images keep their order within each part. Arguments and
    errors are those of :func:`split_sizes`; ``PluginError`` where ``images`` are not what they should be.
    """
    _check(images)
    sizes = split_sizes(Sizes(len(images.train), len(images.test)), train_images, test_images)
    order = _permutation("held-out", len(images.train))
    heldout, rest = np.sort(order[: sizes.heldout]), np.sort(order[sizes.heldout :])
    train = rest[_subset("training subset", len(rest), sizes.train)]
    test = _subset("test subset", len(images.test), sizes.test)
    return Split(
        train=images.train[train],
        train_labels=images.train_labels[train],
        heldout=images.train[heldout],
        heldout_labels=images.train_labels[heldout],
        test=images.test[test],
        test_labels=images.test_labels[test],
        classes=images.classes,
    )


def hashed_test_count(count: int) -> int:
    """Number of test images in a set of ``count`` that has no official split: a fifth, rounded down."""
    return count // 5


def hashed_test(keys: Sequence[str]) -> NDArray[np.bool_]:
    """The test split of a set that has no official one: a fixed fifth, as a mask over ``keys``.

    Chosen by a hash of each image's key (its index or relative path), which must be unique. Another order
    of the same keys chooses the same images.
    """

    def rank(index: int) -> bytes:
        return hashlib.sha256(f"test split:{keys[index]}".encode(errors="surrogateescape")).digest()

    ranked = sorted(range(len(keys)), key=rank)
    mask = np.zeros(len(keys), dtype=np.bool_)
    mask[ranked[: hashed_test_count(len(keys))]] = True
    return mask


def _taken(name: str, wanted: int | None, available: int, where: str) -> int:
    if wanted is None:
        return available
    if not 1 <= wanted <= available:
        raise UsageError(
            f"{name} = {wanted}: expected a number from 1 to {available:,}, which is all there are {where}",
            hint=f"leave {name} out to take them all",
        )
    return wanted


def _permutation(purpose: str, count: int) -> NDArray[np.int64]:
    # RandomState rather than Generator: numpy promises that its stream never changes.
    seed = derive(0, "split", purpose) % 2**32
    return np.random.RandomState(seed).permutation(count).astype(np.int64)


def _subset(purpose: str, count: int, size: int) -> NDArray[np.int64]:
    return np.sort(_permutation(purpose, count)[:size])


def _check(images: Images) -> None:
    for name in ("train", "test"):
        pixels, labels = getattr(images, name), getattr(images, f"{name}_labels")
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
            raise _broken(
                f"{name} is {pixels.dtype} of shape {pixels.shape}; expected uint8, (N, 1 or 3, side, side)"
            )
        if pixels.shape[2] != pixels.shape[3] or pixels.shape[1:] != images.train.shape[1:]:
            raise _broken(f"{name} has shape {pixels.shape}; expected square images, the same in both splits")
        if labels.dtype != np.int64 or labels.shape != pixels.shape[:1]:
            raise _broken(
                f"{name}_labels is {labels.dtype} of shape {labels.shape}; expected int64, ({len(pixels)},)"
            )
        lowest, highest = (0, len(images.classes) - 1) if images.classes else (-1, -1)
        if labels.size and not lowest <= labels.min() <= labels.max() <= highest:
            raise _broken(
                f"{name}_labels run from {labels.min()} to {labels.max()}; expected {lowest} to {highest} "
                f"for {len(images.classes)} classes"
            )


def _broken(what: str) -> PluginError:
    return PluginError(f"a data set's load() broke the contract: {what}")
