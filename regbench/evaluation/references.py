"""What a data set's classifier and simple probes make of the images themselves: numbers to read the results by."""

from __future__ import annotations

from typing import Any

from regbench.data.split import Split
from regbench.evaluation.classifier import Classifier
from regbench.evaluation.probe import TEST_IMAGES, TRAIN_IMAGES, probe_accuracy
from regbench.evaluation.sample_quality import RealFeatures, frechet_distance, sample_scores
from regbench.evaluation.selection import curve_index, fixed_index, latent_index

PIXEL_ITERATIONS = 25
"""Of the linear probe on pixels, which are many."""


def real_features(classifier: Classifier, split: Split) -> RealFeatures:
    """Features of the 2,000 test images that samples are compared with."""
    return RealFeatures.of(classifier.judge(split.test[latent_index(len(split.test))])[0])


def reference_numbers(classifier: Classifier, split: Split) -> dict[str, Any]:
    """``sha256`` and test ``accuracy`` of the classifier; ``knn_pixels`` and ``linear_pixels``, the probes on pixels;
    ``floors``, what sample quality is for training images in the place of samples, as many as test images.
    """
    real = real_features(classifier, split)
    train = fixed_index(len(split.train), len(real.features_NF), "train")
    features_MF, _ = classifier.judge(split.train[train])
    scores = sample_scores(real, features_MF)
    few = min(len(real.features_NF), len(features_MF)) < 2
    frechet = None if few else frechet_distance(real.features_NF, features_MF)
    names = ("precision", "recall", "density", "coverage")
    pixels = _pixel_probe(split)
    return {
        "sha256": classifier.sha256,
        "accuracy": classifier.accuracy(split.test, split.test_labels),
        "knn_pixels": pixels and pixels["knn"],
        "linear_pixels": pixels and pixels["linear"],
        "floors": {**(scores or dict.fromkeys(names)), "frechet": frechet},
    }


def _pixel_probe(split: Split) -> dict[str, float] | None:
    train = curve_index(len(split.train), TRAIN_IMAGES)
    test = fixed_index(len(split.test), TEST_IMAGES, "test")
    return probe_accuracy(
        split.train[train].reshape(len(train), -1) / 255.0,
        split.train_labels[train],
        split.test[test].reshape(len(test), -1) / 255.0,
        split.test_labels[test],
        iterations=PIXEL_ITERATIONS,
    )
