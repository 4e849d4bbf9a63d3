"""What the codes look like: how many units are in use, their rank and size, and whether they have collapsed.

Shape suffixes: N images, B batch, D latent units, F features.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from regbench.evaluation.evaluate import BATCH, Features, ImageSource, batch_of, feature_batches
from regbench.evaluation.mode import evaluating
from regbench.model import Model

ACTIVE_VARIANCE = 0.01
RANK_TOLERANCE = 1e-4
COLLAPSED_RANK = 2.0
COLLAPSED_MSE = 0.95


@dataclass(frozen=True, slots=True)
class Codes:
    """Codes of a set of images, and how much of the encoder they came from."""

    z_ND: NDArray[np.float32]
    alive_features: int
    """Units of the encoder's feature vector h that differ between at least two of the images."""


def encode_images(
    model: Model,
    images: ImageSource | Features,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    sampling: bool = False,
) -> Codes:
    """Mean codes (``regularizer.sampling`` off) of all images, in order; with ``sampling`` one sampled code each.

    Where the features of the images are known, they may be given in their place.
    """
    batch_size = batch_size or (BATCH if sampling else batch_of(model))
    with evaluating(model, seed=seed, purpose=("codes",), sampling=sampling):
        parts, lows, highs = [], [], []
        for features in feature_batches(model, images, batch_size):
            parts.append(model.regularizer(features.code_ND, features.h_NF)[0].float())
            lows.append(features.h_NF.amin(0))
            highs.append(features.h_NF.amax(0))
        alive = torch.stack(highs).amax(0) > torch.stack(lows).amin(0)
        return Codes(torch.cat(parts).cpu().numpy(), int(alive.sum()))


def latent_diagnostics(z_ND: NDArray[np.float32]) -> dict[str, float]:
    """Numbers that describe the codes of N images, for any regularizer, deterministic ones included.

    ``active_units``: units whose variance over the images exceeds 0.01 (Burda et al. 2016, arXiv:1509.00519).
    ``latent_rank``: singular values of the centred codes above 1e-4 of the largest one.
    ``effective_rank``: exp of the entropy of the normalised singular values (Roy and Vetterli 2007), 1 to D;
    0 where all codes are equal.
    ``z_norm_mean``, ``z_norm_max``: mean and largest Euclidean norm of a code.
    """
    z_ND = np.asarray(z_ND, dtype=np.float64)
    centred_ND = z_ND - z_ND.mean(0)
    singular_D = np.sqrt(np.clip(np.linalg.eigvalsh(centred_ND.T @ centred_ND), 0, None))
    norms_N = np.linalg.norm(z_ND, axis=1)
    return {
        "active_units": int(np.count_nonzero(centred_ND.var(0) > ACTIVE_VARIANCE)),
        "latent_rank": int(np.count_nonzero(singular_D > RANK_TOLERANCE * singular_D.max(initial=0))),
        "effective_rank": _effective_rank(singular_D),
        "z_norm_mean": float(norms_N.mean()),
        "z_norm_max": float(norms_N.max()),
    }


def _effective_rank(singular_D: NDArray[np.float64]) -> float:
    total = singular_D.sum()
    if total == 0:
        return 0.0
    share_D = singular_D[singular_D > 0] / total
    return math.exp(-float(np.sum(share_D * np.log(share_D))))


def collapse_warnings(diagnostics: dict[str, float], *, mse: float, mean_image_mse: float) -> list[str]:
    """Signs, in words, that the codes say little or nothing about the images; empty: none was found.

    Three signs, each by itself enough: the test MSE at the mean code is above 0.95 of the mean image's; no
    unit is active; the effective rank of the codes is below 2. The first is what collapse does to the images,
    the others are seen in the codes, also where a decoder still makes something of them.
    """
    found = []
    if not mse <= COLLAPSED_MSE * mean_image_mse:
        found.append(
            f"reconstructions are hardly better than the mean image: test MSE {mse:.4f}, "
            f"mean image {mean_image_mse:.4f}"
        )
    if diagnostics["active_units"] == 0:
        found.append(
            f"no latent unit is active (variance of every unit <= {ACTIVE_VARIANCE:g} over the test images)"
        )
    if diagnostics["effective_rank"] < COLLAPSED_RANK:
        found.append(f"the codes lie on a line (effective rank {diagnostics['effective_rank']:.2f})")
    return found
