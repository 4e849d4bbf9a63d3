"""Which images and which epochs are looked at: pure functions, the same for every cell and method."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from regbench.seeding import derive

SHOWN = 256
LATENTS = 2_000
CODES = 10_000
CURVE_IMAGES = 10_000


def fixed_index(n: int, count: int, purpose: str) -> NDArray[np.int64]:
    """``count`` of ``n`` positions (all, where fewer), ascending; always the same for one ``purpose``.

    Positions are ranked by a hash, not by a random generator whose stream may change between versions: the
    choice of 256 is part of the choice of 2,000.
    """
    return _fixed_index(n, count, purpose).copy()  # whoever gets it may change it


@lru_cache(maxsize=64)
def _fixed_index(n: int, count: int, purpose: str) -> NDArray[np.int64]:
    ranked = sorted(range(n), key=lambda position: derive(0, "selection", purpose, position))
    return np.sort(np.array(ranked[:count], dtype=np.int64))


def shown_index(n_test: int) -> NDArray[np.int64]:
    """The 256 test images whose reconstructions are kept."""
    return fixed_index(n_test, SHOWN, "test")


def latent_index(n_test: int) -> NDArray[np.int64]:
    """The 2,000 test images whose codes are kept; the shown ones are among them."""
    return fixed_index(n_test, LATENTS, "test")


def code_index(n_test: int) -> NDArray[np.int64]:
    """The 10,000 test images whose codes are compared with priors; the kept ones are among them."""
    return fixed_index(n_test, CODES, "test")


def curve_index(n_train: int, count: int = CURVE_IMAGES) -> NDArray[np.int64]:
    """The fixed training images on which the training curve is measured; all, where there are fewer than ``count``."""
    return fixed_index(n_train, count, "train")


def curve_epochs(epochs: int, warmup: int, points: int = 60) -> frozenset[int]:
    """Epochs (counted from 1) after which the curves are measured: about ``points``, evenly spaced.

    Always among them: the first, the last, and the last of the warm-up where there is one.
    """
    if epochs < 1 or not 0 <= warmup <= epochs or points < 2:
        raise ValueError(f"epochs {epochs}, warmup {warmup}, points {points}")
    spaced = {round(epoch) for epoch in np.linspace(1, epochs, min(points, epochs)).tolist()}
    return frozenset(spaced | ({warmup} if warmup else set()))
