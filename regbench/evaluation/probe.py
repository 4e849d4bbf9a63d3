"""How well classes can be read off codes, or off pixels: k nearest neighbours and a linear probe. No torch.

Shape suffixes: N training codes, M test codes, D values of a code.
"""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
from numpy.typing import NDArray

TRAIN_IMAGES = 5_000
"""Training images that a probe is fitted on, at most."""
TEST_IMAGES = 5_000
"""Test images that it is scored on, at most."""
NEIGHBOURS = 10
ITERATIONS = 100
"""Of the linear probe's optimizer (L-BFGS), at most."""


def probe_accuracy(
    train_ND: NDArray[Any],
    train_labels_N: NDArray[np.int64],
    test_MD: NDArray[Any],
    test_labels_M: NDArray[np.int64],
    *,
    iterations: int = ITERATIONS,
) -> dict[str, float] | None:
    """Test accuracies ``knn`` and ``linear``, each from 0 to 1; ``None`` for fewer than two training classes.

    ``knn``: majority of the 10 nearest training codes (all, where fewer) in Euclidean distance, codes as they are.
    ``linear``: multinomial logistic regression (scikit-learn's, C = 1) on codes standardised per unit; it stops
    after ``iterations``, converged or not, so that every method gets the same budget.
    """
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression
    from sklearn.neighbors import KNeighborsClassifier
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if len(np.unique(train_labels_N)) < 2:
        return None
    knn = KNeighborsClassifier(min(NEIGHBOURS, len(train_ND)), algorithm="brute")
    linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=iterations))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # the budget is fixed, see above
        fitted = {"knn": knn.fit(train_ND, train_labels_N), "linear": linear.fit(train_ND, train_labels_N)}
    return {name: float(model.score(test_MD, test_labels_M)) for name, model in fitted.items()}
