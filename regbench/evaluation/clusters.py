"""How a method's clusters agree with the labels. Pure functions of arrays.

Shape suffixes: N images, K clusters (prototypes), L classes, D latent units.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cluster_scores(
    assignments_N: ArrayLike, labels_N: ArrayLike, clusters: int | None = None
) -> dict[str, Any]:
    """Agreement of cluster assignments with class labels.

    ``clusters`` is K, so that a cluster nobody is assigned to counts; by default the largest assignment + 1.
    Returns ``purity`` (share of images in their cluster's majority class), ``nmi`` (normalised mutual
    information, arithmetic mean), ``ari`` (adjusted Rand index), ``accuracy`` (best one-to-one matching of
    clusters to classes, Hungarian method; images of unmatched clusters count as wrong), ``sizes``
    (K integers) and ``dead`` (clusters of size 0).
    """
    from scipy.optimize import linear_sum_assignment
    from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

    assignments = _integers(assignments_N, "assignments")
    labels = _integers(labels_N, "labels")
    if assignments.shape != labels.shape:
        raise ValueError(f"{len(assignments)} assignments and {len(labels)} labels")
    count = int(assignments.max()) + 1 if clusters is None else clusters
    if assignments.min() < 0 or assignments.max() >= count:
        raise ValueError(
            f"assignments go from {assignments.min()} to {assignments.max()}; expected 0 to {count - 1}"
        )
    classes, labels = np.unique(labels, return_inverse=True)
    table_KL = np.zeros((count, len(classes)), dtype=np.int64)
    np.add.at(table_KL, (assignments, labels), 1)
    matched = linear_sum_assignment(table_KL, maximize=True)
    sizes_K = table_KL.sum(1)
    return {
        "purity": float(table_KL.max(1).sum() / len(labels)),
        "nmi": float(normalized_mutual_info_score(labels, assignments)),
        "ari": float(adjusted_rand_score(labels, assignments)),
        "accuracy": float(table_KL[matched].sum() / len(labels)),
        "sizes": sizes_K.tolist(),
        "dead": int(np.count_nonzero(sizes_K == 0)),
    }


def separation(prototypes_KD: ArrayLike) -> dict[str, float] | None:
    """Mean and smallest |v_i - v_j| / sqrt(D) over pairs of prototypes; ``None`` for a single one.

    N(v, I) noise has a norm of about sqrt(D), so clusters of unit noise overlap where this is well below 1.
    """
    from scipy.spatial.distance import pdist

    v_KD = np.asarray(prototypes_KD, dtype=np.float64)
    if len(v_KD) < 2:
        return None
    distances = pdist(v_KD) / np.sqrt(v_KD.shape[1])
    return {"mean": float(distances.mean()), "smallest": float(distances.min())}


def _integers(values: ArrayLike, name: str) -> NDArray[np.int64]:
    array = np.asarray(values)
    if array.ndim != 1 or not len(array) or not np.issubdtype(array.dtype, np.integer):
        raise ValueError(
            f"{name} must be a non-empty vector of integers, not {array.dtype} of shape {array.shape}"
        )
    return array.astype(np.int64)
