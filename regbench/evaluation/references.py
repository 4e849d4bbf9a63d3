"""What a data set's classifier and simple methods make of the images themselves: numbers to read the results by.

Shape suffixes: N images, P values of one image, M images in the place of samples, F features.
"""

from __future__ import annotations

from typing import Any, TypeAlias

from numpy.typing import NDArray

from regbench.data.split import Split
from regbench.evaluation.classifier import Classifier
from regbench.evaluation.clusters import cluster_scores
from regbench.evaluation.probe import TEST_IMAGES, TRAIN_IMAGES, probe_accuracy
from regbench.evaluation.sample_quality import RealFeatures, frechet_distance, sample_scores
from regbench.evaluation.selection import curve_index, fixed_index, latent_index

PIXEL_ITERATIONS = 25
"""Of the linear probe on pixels, which are many."""
STARTS = 5
"""How often k-means on pixels is started; the best counts."""
REFERENCES = 2
"""Version of what is computed here; known numbers of another one are computed anew."""

_Rows: TypeAlias = tuple[tuple[NDArray[Any], NDArray[Any]], tuple[NDArray[Any], NDArray[Any]]]
"""Pixels x_NP and labels of training images, and of test images."""


def real_features(classifier: Classifier, split: Split) -> RealFeatures:
    """Features of the 2,000 test images that samples are compared with."""
    return RealFeatures.of(classifier.judge(split.test[latent_index(len(split.test))])[0])


def reference_numbers(classifier: Classifier, split: Split) -> dict[str, Any]:
    """``sha256`` and test ``accuracy`` of the classifier; ``knn_pixels`` and ``linear_pixels``, the probes on pixels;
    ``clusters_pixels``, how k-means on pixels agrees with the classes; ``floors``, what sample quality is for training
    images in the place of samples, as many as test images; ``references``, the version of all this.
    """
    real = real_features(classifier, split)
    train = fixed_index(len(split.train), len(real.features_NF), "train")
    features_MF, _ = classifier.judge(split.train[train])
    scores = sample_scores(real, features_MF)
    few = min(len(real.features_NF), len(features_MF)) < 2
    frechet = None if few else frechet_distance(real.features_NF, features_MF)
    names = ("precision", "recall", "density", "coverage")
    rows = _pixels(split)
    pixels = _pixel_probe(rows)
    return {
        "sha256": classifier.sha256,
        "accuracy": classifier.accuracy(split.test, split.test_labels),
        "knn_pixels": pixels and pixels["knn"],
        "linear_pixels": pixels and pixels["linear"],
        "clusters_pixels": _pixel_clusters(rows, len(split.classes)),
        "floors": {**(scores or dict.fromkeys(names)), "frechet": frechet},
        "references": REFERENCES,
    }


def _pixel_probe(rows: _Rows) -> dict[str, float] | None:
    (train_NP, train_labels_N), (test_NP, test_labels_N) = rows
    return probe_accuracy(train_NP, train_labels_N, test_NP, test_labels_N, iterations=PIXEL_ITERATIONS)


def _pixel_clusters(rows: _Rows, clusters: int) -> dict[str, float] | None:
    """k-means with as many clusters as classes, found on training images; ``None`` where these are fewer still."""
    from sklearn.cluster import KMeans

    (train_NP, _), (test_NP, labels_N) = rows
    if len(train_NP) < clusters:
        return None
    means = KMeans(clusters, n_init=STARTS, random_state=0).fit(train_NP)
    scores = cluster_scores(means.predict(test_NP), labels_N, clusters)
    return {name: scores[name] for name in ("purity", "nmi", "ari", "accuracy")}


def _pixels(split: Split) -> _Rows:
    """Images as rows on [0, 1], with their labels: those that probes are fitted on, and scored on."""
    train = curve_index(len(split.train), TRAIN_IMAGES)
    test = fixed_index(len(split.test), TEST_IMAGES, "test")
    return (
        (split.train[train].reshape(len(train), -1) / 255.0, split.train_labels[train]),
        (split.test[test].reshape(len(test), -1) / 255.0, split.test_labels[test]),
    )
