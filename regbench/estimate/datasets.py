"""What a data set takes once, whatever the number of its cells: indices, anchors, classifier, reference numbers."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from regbench.assess import CellData
from regbench.data.split import Split, SplitSizes
from regbench.estimate.noise import noise_classifier, noise_split
from regbench.evaluation.anchors import LARGEST_PCA, compute_anchors
from regbench.evaluation.classifier import train_classifier, training_steps
from regbench.evaluation.probe import TEST_IMAGES, TRAIN_IMAGES
from regbench.evaluation.references import reference_numbers
from regbench.suite.cells import CellSpec

IMAGES = 1_000
"""Of each split, at most: what takes longer is scaled up."""
_VALUES = 1_024
"""Values of an image up to which principal components are timed as they are."""
_CLASSIFIED = 128


@dataclass(frozen=True, slots=True)
class DatasetProbe:
    """Seconds, scaled to the size of the data set."""

    loading: float
    """Choosing images, putting them on the device, and judging the test images."""
    anchors: float
    classifier: float
    """Its training, and the numbers that go with it."""

    def seconds(self, *, judged: bool) -> float:
        """In all; ``judged``: the anchors and the classifier are in the run already."""
        return self.loading if judged else self.loading + self.anchors + self.classifier

    @classmethod
    def measure(cls, spec: CellSpec, sizes: SplitSizes, device: torch.device) -> DatasetProbe:
        few = SplitSizes(min(sizes.train, IMAGES), 1, min(sizes.test, IMAGES))
        split = noise_split(few, spec.channels, spec.side)
        classifier = noise_classifier(spec.channels, spec.side, device)
        grown = max(sizes.train / few.train, sizes.test / few.test)
        loading = _timed(lambda: CellData.on(device, split, IMAGES).judged_by(classifier))
        # The probes on pixels are most of these; they take only so many images.
        capped = max(min(sizes.train, TRAIN_IMAGES) / few.train, min(sizes.test, TEST_IMAGES) / few.test)
        references = _timed(lambda: reference_numbers(classifier, split))
        return cls(
            loading=loading * grown,
            anchors=_anchors(split, spec.model["latent"], sizes.train),
            classifier=_training(split, sizes.train, device) + references * capped,
        )


def _anchors(split: Split, latent: int, train: int) -> float:
    """A product of N x P^2 operations and an eigenproblem of P^3, for N images of P values."""
    side = split.train.shape[2]
    values = split.train[0].size
    if values > LARGEST_PCA:
        return _timed(lambda: compute_anchors(split.train, split.test, latent)) * train / len(split.train)
    while values * side**2 // split.train.shape[2] ** 2 > _VALUES:
        side -= 1
    images, test = split.train[..., :side, :side].copy(), split.test[..., :side, :side].copy()
    seconds = _timed(lambda: compute_anchors(images, test, latent))
    return seconds * _work(train, values) / _work(len(images), images[0].size)


def _work(images: int, values: int) -> float:
    return float(images * values**2 + values**3)


def _training(split: Split, train: int, device: torch.device) -> float:
    few, labels = split.train[:_CLASSIFIED], split.train_labels[:_CLASSIFIED]
    part = replace(split, train=few, train_labels=labels)
    seconds = _timed(lambda: train_classifier(part, device))
    epochs, each = training_steps(train)
    probed_epochs, probed_each = training_steps(len(part.train))
    return seconds * epochs * each / (probed_epochs * probed_each)


def _timed(work: Callable[[], object]) -> float:
    """What ``work`` returns is on the host: there is no device to wait for."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started
