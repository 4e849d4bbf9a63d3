"""The probes against scikit-learn called by itself, and against classes that can or cannot be read off."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import NearestNeighbors

from regbench.evaluation.probe import probe_accuracy


def codes(
    n: int, d: int, classes: int, apart: float, seed: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    centres = apart * np.random.default_rng(0).standard_normal((classes, d))
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, n)
    scales = np.geomspace(0.1, 10, d)  # units of very different size
    return ((centres[labels] + rng.standard_normal((n, d))) * scales).astype(np.float32), labels


@pytest.mark.parametrize(("d", "classes", "apart"), [(4, 3, 1.0), (32, 10, 0.5)])
def test_accuracies_are_scikit_learns(d: int, classes: int, apart: float) -> None:
    (x, y), (x_test, y_test) = codes(400, d, classes, apart, 1), codes(300, d, classes, apart, 2)
    found = probe_accuracy(x, y, x_test, y_test)
    assert found is not None
    nearest = NearestNeighbors(n_neighbors=10).fit(x).kneighbors(x_test, return_distance=False)
    votes = np.array([np.bincount(y[row], minlength=classes).argmax() for row in nearest])
    assert found["knn"] == pytest.approx(np.mean(votes == y_test))
    mean, std = x.mean(0, dtype=np.float64), x.std(0, dtype=np.float64)
    linear = LogisticRegression(max_iter=5000, tol=1e-8).fit((x - mean) / std, y)
    assert found["linear"] == pytest.approx(linear.score((x_test - mean) / std, y_test), abs=0.01)


def test_separate_classes_are_read_and_noise_is_not() -> None:
    (x, y), (x_test, y_test) = codes(400, 8, 4, 30.0, 1), codes(200, 8, 4, 30.0, 2)
    assert probe_accuracy(x, y, x_test, y_test) == {"knn": 1.0, "linear": 1.0}
    shuffled = probe_accuracy(x, np.random.default_rng(0).permutation(y), x_test, y_test)
    assert shuffled is not None
    assert max(shuffled.values()) < 0.5


def test_one_class_is_nothing_to_read_and_few_codes_are_all_neighbours() -> None:
    x, y = codes(5, 3, 2, 1.0, 1)
    assert probe_accuracy(x, np.zeros(5, dtype=np.int64), x, y) is None
    found = probe_accuracy(x, np.array([0, 0, 0, 1, 1]), x, y)
    assert found is not None
    assert found["knn"] == np.mean(y == 0), "the majority of all five"


def test_an_optimizer_that_is_stopped_early_says_nothing() -> None:
    x, y = codes(400, 32, 10, 0.1, 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert probe_accuracy(x, y, x, y, iterations=1) is not None
