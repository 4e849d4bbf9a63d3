"""Images of noise in the place of a data set."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from regbench.data.split import Split, SplitSizes
from regbench.evaluation.classifier import Classifier, untrained

CLASSES = 10
"""How many a data set has is not known before it is read."""


def noise_images(count: int, channels: int, side: int) -> NDArray[np.uint8]:
    """uint8 of shape (count, channels, side, side)."""
    return np.random.default_rng(count).integers(0, 256, (count, channels, side, side), dtype=np.uint8)


def noise_split(sizes: SplitSizes, channels: int, side: int) -> Split:
    """A data set of ``sizes`` with 10 classes."""

    def labels(count: int) -> NDArray[np.int64]:
        return np.arange(count, dtype=np.int64) % CLASSES

    return Split(
        train=noise_images(sizes.train, channels, side),
        train_labels=labels(sizes.train),
        heldout=noise_images(sizes.heldout, channels, side),
        heldout_labels=labels(sizes.heldout),
        test=noise_images(sizes.test, channels, side),
        test_labels=labels(sizes.test),
        classes=tuple(str(label) for label in range(CLASSES)),
    )


def noise_classifier(channels: int, side: int, device: torch.device) -> Classifier:
    """An untrained one, which takes as long as any other."""
    return untrained((channels, side, CLASSES), device)
