"""What a method draws around its prototypes, and between two codes.

Shape suffixes: N images or samples per prototype, K prototypes, L classes, S scales, P pairs, T steps of a path,
C channels, H height, W width, D latent units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.evaluation.classifier import Classifier
from regbench.evaluation.evaluate import decode_codes
from regbench.evaluation.mode import evaluating
from regbench.evaluation.samples import check_codes
from regbench.evaluation.selection import fixed_index
from regbench.model import Model

SCALES = (0.25, 0.5, 1.0, 2.0)
SAMPLES = 4
"""Per class and scale."""
CLASSES = 10
"""The first classes get pictures, at most this many."""
JUDGED = 64
"""Samples around each prototype that the classifier sees."""
PAIRS, STEPS = 6, 8


def class_table(
    assignments_N: NDArray[np.int64], labels_N: NDArray[np.int64], clusters: int, classes: int
) -> NDArray[np.int64]:
    """Images of each class in each cluster, shape (K, L)."""
    table_KL = np.zeros((clusters, classes), dtype=np.int64)
    np.add.at(table_KL, (assignments_N, labels_N), 1)
    return table_KL


def prototypes_of_classes(table_KL: NDArray[np.int64]) -> NDArray[np.int64]:
    """For each class the cluster that holds most of its images among those where it is the majority; -1: none.

    Ties go to the lower class and the lower cluster.
    """
    majority_K = np.where(table_KL.sum(1) > 0, table_KL.argmax(1), -1)
    held_KL = np.where(majority_K[:, None] == np.arange(table_KL.shape[1]), table_KL, 0)
    return np.where(held_KL.max(0) > 0, held_KL.argmax(0), -1).astype(np.int64)


def draw_around(model: Model, clusters_N: Tensor, scale: float, *, seed: int, purpose: str) -> Tensor | None:
    """One code around the centre of each cluster; the same noise at every ``scale``, but for its size.

    ``None`` for methods whose clusters have no prior. Raises ``PluginError`` for codes of the wrong shape.
    """
    with evaluating(model, seed=seed, purpose=(purpose,), sampling=True) as device:
        z_ND = model.regularizer.sample_cluster(clusters_N.to(device), scale)
        return (
            None
            if z_ND is None
            else check_codes(model, z_ND, len(clusters_N), "sample_cluster of {n} clusters")
        )


def synthesis_pictures(model: Model, table_KL: NDArray[np.int64], *, seed: int) -> dict[str, NDArray[Any]]:
    """Samples around one prototype per class, for the first 10 classes; empty where clusters have no prior.

    ``synthesis``: uint8 (L, S, N, C, H, W), black for a class without a prototype; one row of a class has the same
    noise at each scale. ``synthesis_scales``: float64 (S,). ``synthesis_prototypes``: int64 (L,), -1 for none.
    """
    chosen_L = prototypes_of_classes(table_KL)[:CLASSES]
    found_L = np.flatnonzero(chosen_L >= 0)
    clusters_N = torch.from_numpy(np.repeat(chosen_L[found_L], SAMPLES))
    dims = model.regularizer.dims
    pictures = np.zeros(
        (len(chosen_L), len(SCALES), SAMPLES, dims.channels, dims.side, dims.side), dtype=np.uint8
    )
    for position, scale in enumerate(SCALES):
        z_ND = draw_around(model, clusters_N, scale, seed=seed, purpose="synthesis")
        if z_ND is None:
            return {}
        drawn = decode_codes(model, z_ND)
        pictures[found_L, position] = drawn.reshape(-1, SAMPLES, *drawn.shape[1:])
    return {
        "synthesis": pictures,
        "synthesis_scales": np.array(SCALES),
        "synthesis_prototypes": chosen_L,
    }


def sample_agreement(
    model: Model, classifier: Classifier, table_KL: NDArray[np.int64], *, seed: int
) -> float | None:
    """Share of 64 samples around a prototype that are classified as its majority class, mean over prototypes.

    Prototypes without images have no majority class and do not count. ``None`` where clusters have no prior.
    """
    alive_K = np.flatnonzero(table_KL.sum(1) > 0)
    clusters_N = torch.from_numpy(np.repeat(alive_K, JUDGED))
    z_ND = draw_around(model, clusters_N, 1.0, seed=seed, purpose="sample agreement")
    if z_ND is None:
        return None
    _, classes_N = classifier.judge(decode_codes(model, z_ND))
    majority_K = table_KL[alive_K].argmax(1)
    return float(np.mean(classes_N.reshape(-1, JUDGED) == majority_K[:, None]))


def interpolations(
    model: Model, codes_ND: NDArray[np.float32], shown_N: NDArray[np.int64]
) -> dict[str, NDArray[Any]]:
    """Straight paths between the mean codes of pairs of shown test images, both ends included.

    ``interpolations``: uint8 (P, T, C, H, W) with P = 6 (fewer where fewer are shown) and T = 8;
    ``interpolation_pairs``: int64 (P, 2), indices into the test images. Empty for fewer than two shown images.
    """
    chosen = shown_N[fixed_index(len(shown_N), 2 * PAIRS, "interpolation")]
    pairs_P2 = chosen[: len(chosen) // 2 * 2].reshape(2, -1).T.copy()
    if not len(pairs_P2):
        return {}
    start_PD, end_PD = codes_ND[pairs_P2[:, 0]], codes_ND[pairs_P2[:, 1]]
    share_T = np.linspace(0, 1, STEPS, dtype=np.float32)[:, None]
    path_PTD = (1 - share_T) * start_PD[:, None] + share_T * end_PD[:, None]
    images = decode_codes(model, torch.from_numpy(path_PTD.reshape(-1, codes_ND.shape[1])))
    return {
        "interpolations": images.reshape(-1, STEPS, *images.shape[1:]),
        "interpolation_pairs": pairs_P2,
    }
