"""The suite's own classifier: it learns, always in the same way, and its features are what they should be."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
import torch

from regbench.data.split import Split
from regbench.evaluation.classifier import (
    Classifier,
    ClassifierNet,
    shape_of,
    train_classifier,
    training_steps,
)
from regbench.evaluation.references import REFERENCES, reference_numbers
from tests.evaluation.models import random_array

CPU = torch.device("cpu")


def bright_or_dark(side: int = 16, channels: int = 1, n: int = 120) -> Split:
    """Three classes, told apart by the brightness of noisy images."""
    labels = np.arange(n) % 3
    images = random_array(n, side=side, channels=channels) // 3 + (80 * labels[:, None, None, None]).astype(
        np.uint8
    )
    half = n // 2
    return Split(
        train=images[:half],
        train_labels=labels[:half],
        heldout=images[:0],
        heldout_labels=labels[:0],
        test=images[half:],
        test_labels=labels[half:],
        classes=("dark", "grey", "bright"),
    )


@pytest.fixture(scope="module")
def trained() -> tuple[Split, Classifier]:
    split = bright_or_dark()
    return split, train_classifier(split, CPU)


def test_it_learns_what_can_be_learnt(trained: tuple[Split, Classifier]) -> None:
    split, classifier = trained
    assert classifier.accuracy(split.test, split.test_labels) > 0.95
    assert classifier.accuracy(split.test, (split.test_labels + 1) % 3) < 0.05


def test_training_is_deterministic_and_leaves_the_generators_alone(trained: tuple[Split, Classifier]) -> None:
    split, classifier = trained
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    with torch.no_grad():
        assert train_classifier(split, CPU).sha256 == classifier.sha256
    assert torch.equal(torch.rand(3), expected)
    other = bright_or_dark(n=126)
    assert train_classifier(other, CPU).sha256 != classifier.sha256


@pytest.mark.parametrize("n", [40, 260])
def test_the_training_makes_the_steps_that_it_is_said_to_make(
    n: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    adam = torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda self: (steps.append(1), adam(self))[1])
    split = bright_or_dark(n=n)
    train_classifier(split, CPU)
    epochs, each = training_steps(len(split.train))
    assert len(steps) == epochs * each == 30 * max(1, n // 2 // 64)


def test_a_saved_classifier_judges_as_the_trained_one(trained: tuple[Split, Classifier]) -> None:
    split, classifier = trained
    assert classifier.sha256 == hashlib.sha256(classifier.weights).hexdigest()
    loaded = Classifier.load(classifier.weights, shape_of(split), CPU)
    for mine, its in zip(loaded.judge(split.test), classifier.judge(split.test), strict=True):
        np.testing.assert_array_equal(mine, its)


def test_features_are_the_layer_below_the_logits(trained: tuple[Split, Classifier]) -> None:
    split, classifier = trained
    features_NF, classes_N = classifier.judge(split.test)
    assert features_NF.shape == (60, 64)
    assert features_NF.min() >= 0
    weight, bias = (p.detach().numpy() for p in classifier.net.head.parameters())
    logits = features_NF @ weight.T + bias
    np.testing.assert_array_equal(classes_N, logits.argmax(1))
    with torch.no_grad():
        expected = classifier.net(torch.from_numpy(split.test).float() / 255)
    np.testing.assert_allclose(logits, expected, atol=1e-4)


@pytest.mark.parametrize(("side", "channels"), [(8, 1), (11, 3), (28, 1), (32, 3), (64, 3)])
def test_the_net_takes_every_size(side: int, channels: int) -> None:
    net = ClassifierNet(channels, side, 7)
    images = torch.rand(2, channels, side, side)
    assert net(images).shape == (2, 7)
    assert net.features(images).shape == (2, 64)


def test_without_classes_there_is_none() -> None:
    split = bright_or_dark()
    unlabelled = Split(*(getattr(split, name) for name in Split.__slots__[:-1]), classes=())
    with pytest.raises(ValueError, match="needs classes"):
        train_classifier(unlabelled, CPU)


def test_reference_numbers_are_those_of_images_beside_images(trained: tuple[Split, Classifier]) -> None:
    split, classifier = trained
    found = reference_numbers(classifier, split)
    assert found["sha256"] == classifier.sha256
    assert found["accuracy"] == classifier.accuracy(split.test, split.test_labels)
    assert found["knn_pixels"] > 0.95
    assert found["linear_pixels"] > 0.95
    # What is bright or dark falls apart by itself.
    assert found["clusters_pixels"] == pytest.approx(
        {"purity": 1, "nmi": 1, "ari": 1, "accuracy": 1}, abs=0.05
    )
    assert found["references"] == REFERENCES
    assert found["floors"].keys() == {"precision", "recall", "density", "coverage", "frechet"}
    assert found["floors"]["precision"] > 0.7, "training images pass for test images"
    noise, _ = classifier.judge(random_array(60))
    real, _ = classifier.judge(split.test)
    from regbench.evaluation.sample_quality import frechet_distance

    assert found["floors"]["frechet"] < frechet_distance(real, noise) / 10
