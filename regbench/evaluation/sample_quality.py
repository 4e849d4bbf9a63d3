"""How samples compare with test images in the features of the suite's own classifier. No torch.

Shape suffixes: N real images, M samples, F features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import cdist

NEIGHBOURS = 5
IMAGES = 2_000
"""Test images, and samples, that are compared, at most."""


@dataclass(frozen=True)
class RealFeatures:
    """Features of real images with what every comparison with them needs."""

    features_NF: NDArray[np.float64]
    radii_N: NDArray[np.float64] | None
    """Distance of each to its 5th nearest other; ``None`` for five images or fewer."""

    @classmethod
    def of(cls, features_NF: NDArray[Any]) -> RealFeatures:
        features_NF = np.asarray(features_NF, dtype=np.float64)
        return cls(features_NF, neighbour_radii(features_NF))


def neighbour_radii(features_NF: NDArray[np.float64]) -> NDArray[np.float64] | None:
    """Distance of each point to its 5th nearest other, the point itself not counted; ``None`` for five or fewer."""
    if len(features_NF) <= NEIGHBOURS:
        return None
    # Position 0 of the sorted distances is the point itself, at distance 0.
    radii_N: NDArray[np.float64] = np.partition(cdist(features_NF, features_NF), NEIGHBOURS, axis=1)[
        :, NEIGHBOURS
    ]
    return radii_N


def sample_scores(real: RealFeatures, samples_MF: NDArray[Any]) -> dict[str, float] | None:
    """``precision``, ``recall``, ``density`` and ``coverage``, k = 5; ``None`` for five images or samples, or fewer.

    With the ball of a point reaching to its 5th nearest neighbour of its own kind, border included:
    precision and recall are the shares of samples inside a real image's ball and of real images inside a sample's
    (Kynkaanniemi et al., arXiv:1904.06991, eq. 1 and 2). Density is the mean over samples of the number of real
    balls around them, divided by 5; it may exceed 1. Coverage is the share of real images with a sample in their
    ball (Naeem et al., arXiv:2002.09797, eq. 3 and 4).
    """
    samples_MF = np.asarray(samples_MF, dtype=np.float64)
    sample_radii_M = neighbour_radii(samples_MF)
    if real.radii_N is None or sample_radii_M is None:
        return None
    distances_NM = cdist(real.features_NF, samples_MF)
    in_real_NM = distances_NM <= real.radii_N[:, None]
    in_sample_NM = distances_NM <= sample_radii_M[None, :]
    return {
        "precision": float(in_real_NM.any(0).mean()),
        "recall": float(in_sample_NM.any(1).mean()),
        "density": float(in_real_NM.sum() / (NEIGHBOURS * len(samples_MF))),
        "coverage": float(in_real_NM.any(1).mean()),
    }


def frechet_distance(a_NF: NDArray[Any], b_MF: NDArray[Any]) -> float:
    """Squared Frechet distance of the Gaussians fitted to two sets of features (Dowson and Landau 1982), at least 0.

    |m - n|^2 + tr(S + T - 2 (S T)^(1/2)). Its value depends on the features and on the number of images: it is no
    FID, and comparable only within one suite. Raises ``ValueError`` for fewer than two images.
    """
    if min(len(a_NF), len(b_MF)) < 2:
        raise ValueError(f"covariances need two images each, not {len(a_NF)} and {len(b_MF)}")
    a_NF, b_MF = np.asarray(a_NF, dtype=np.float64), np.asarray(b_MF, dtype=np.float64)
    s_FF, t_FF = (np.cov(features, rowvar=False).reshape(a_NF.shape[1], -1) for features in (a_NF, b_MF))
    values_F, axes_FF = np.linalg.eigh(s_FF)
    root_FF = (axes_FF * np.sqrt(np.clip(values_F, 0, None))) @ axes_FF.T
    # (S T)^(1/2) and the symmetric (S^(1/2) T S^(1/2))^(1/2) have the same trace.
    common_F = np.linalg.eigvalsh(root_FF @ t_FF @ root_FF)
    shift_F = a_NF.mean(0) - b_MF.mean(0)
    distance = (
        shift_F @ shift_F + np.trace(s_FF) + np.trace(t_FF) - 2 * np.sqrt(np.clip(common_F, 0, None)).sum()
    )
    return max(float(distance), 0.0)
