"""Cluster scores against scikit-learn, and against every permutation for the matching."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from sklearn.metrics import adjusted_rand_score, normalized_mutual_info_score

from regbench.evaluation.clusters import cluster_scores, separation


@pytest.mark.parametrize(("clusters", "classes"), [(4, 4), (6, 3), (2, 5), (1, 4)])
@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_scores_against_oracles(clusters: int, classes: int, noise: float) -> None:
    rng = np.random.default_rng(clusters * 10 + classes)
    labels = rng.integers(0, classes, 300)
    assignments = np.where(rng.random(300) < noise, rng.integers(0, clusters, 300), labels % clusters)
    found = cluster_scores(assignments, labels, clusters)
    assert found["nmi"] == pytest.approx(normalized_mutual_info_score(labels, assignments))
    assert found["ari"] == pytest.approx(adjusted_rand_score(labels, assignments))
    majority = [
        np.bincount(labels[assignments == k]).max() for k in range(clusters) if (assignments == k).any()
    ]
    assert found["purity"] == pytest.approx(sum(majority) / 300)
    size = max(clusters, classes)
    best = max(
        sum(np.sum((assignments == k) & (labels == order[k])) for k in range(clusters))
        for order in itertools.permutations(range(size))
    )
    assert found["accuracy"] == pytest.approx(best / 300)
    assert found["sizes"] == [int(np.sum(assignments == k)) for k in range(clusters)]


def test_a_perfect_clustering_under_other_names() -> None:
    labels = np.array([7, 7, 3, 3, 9, 9])
    found = cluster_scores(np.array([0, 0, 2, 2, 1, 1]), labels, 3)
    assert (found["purity"], found["nmi"], found["ari"], found["accuracy"]) == pytest.approx((1, 1, 1, 1))


def test_dead_prototypes_are_counted_last_ones_too() -> None:
    found = cluster_scores(np.array([1, 1, 3]), np.array([0, 0, 1]), 6)
    assert found["sizes"] == [0, 2, 0, 1, 0, 0]
    assert found["dead"] == 4
    assert cluster_scores(np.array([1, 1, 3]), np.array([0, 0, 1]))["dead"] == 2


def test_too_many_clusters_are_pure_but_not_accurate() -> None:
    found = cluster_scores(np.arange(10), np.repeat([0, 1], 5), 10)
    assert found["purity"] == 1
    assert found["accuracy"] == pytest.approx(0.2)


@pytest.mark.parametrize(
    ("assignments", "labels", "message"),
    [
        ([0, 1, 2], [0, 0, 0], "expected 0 to 1"),
        ([0, -1, 1], [0, 0, 0], "expected 0 to 1"),
        ([0, 1], [0, 0, 0], "2 assignments and 3 labels"),
        ([0.0, 1.0], [0, 0], "integers"),
        ([], [], "non-empty"),
    ],
)
def test_what_cannot_be_scored_is_refused(assignments: list[int], labels: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cluster_scores(assignments, labels, 2)


def test_separation_is_the_distance_of_prototypes_over_root_d() -> None:
    v_KD = np.random.default_rng(0).standard_normal((5, 9)).astype(np.float32)
    distances = [np.linalg.norm(v_KD[i] - v_KD[j]) / 3 for i in range(5) for j in range(i)]
    found = separation(v_KD)
    assert found is not None
    assert found["mean"] == pytest.approx(np.mean(distances), rel=1e-5)
    assert found["smallest"] == pytest.approx(min(distances), rel=1e-5)
    assert separation(v_KD[:1]) is None
