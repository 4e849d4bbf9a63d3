"""The suite's own classifier of a data set: a small fixed CNN in whose features samples are judged.

It is trained once per data set and run directory, always in the same way, and identified by its weights' SHA-256.

Shape suffixes: N images, B batch, C channels, H height, W width, F features, L classes.
"""

from __future__ import annotations

import hashlib
import io
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.data.batches import Batches
from regbench.data.split import Split
from regbench.evaluation.selection import fixed_index
from regbench.modes import deterministic_convolutions, forked, full_float32, threads
from regbench.seeding import derive

VERSION = 1
"""Raised, together with ``EVALUATION``, when the net or its training changes: classifiers of another version are
trained anew."""
TRAIN_IMAGES = 20_000
FEATURES = 64
WIDTHS = (16, 32, 64, 64)
BATCH = 64
EPOCHS, MOST_EPOCHS = 12, 30
FEWEST_STEPS = 300
"""Small data sets are gone through more often, for this many steps or ``MOST_EPOCHS``."""
LEARNING_RATE = 2e-3
_EVALUATION_BATCH = 512


class ClassifierNet(nn.Module):
    """Stride-2 convolutions down to 4 x 4 pixels or below, two at least; a dense layer of 64 features; logits."""

    def __init__(self, channels: int, side: int, classes: int) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        for block, width in enumerate(WIDTHS):
            if side <= 4 and block >= 2:
                break
            blocks += [nn.Conv2d(channels, width, 3, stride=2, padding=1), nn.ReLU()]
            channels, side = width, (side + 1) // 2
        self.body = nn.Sequential(*blocks, nn.Flatten(), nn.Linear(channels * side**2, FEATURES), nn.ReLU())
        self.head = nn.Linear(FEATURES, classes)

    def features(self, x_BCHW: Tensor) -> Tensor:
        """The penultimate layer, features_BF, at least 0; pixels in [0, 1]."""
        features_BF: Tensor = self.body(x_BCHW - 0.5)
        return features_BF

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """logits_BL."""
        logits_BL: Tensor = self.head(self.features(x_BCHW))
        return logits_BL


@dataclass(frozen=True)
class Classifier:
    """A trained net on a device."""

    net: ClassifierNet
    device: torch.device
    weights: bytes
    """What is saved, and what :attr:`sha256` is the checksum of."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.weights).hexdigest()

    @classmethod
    def load(cls, weights: bytes, shape: tuple[int, int, int], device: torch.device) -> Classifier:
        """A saved classifier of ``shape`` = (channels, side, classes)."""
        classifier = untrained(shape, device)
        classifier.net.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True))
        return replace(classifier, weights=weights)

    def judge(self, images_NCHW: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Features (N, 64) and predicted classes (N,) of uint8 images."""
        features, classes = [], []
        with torch.no_grad(), torch.autocast(self.device.type, enabled=False), full_float32():
            for x_BCHW in Batches(images_NCHW, self.device).sequential(_EVALUATION_BATCH):
                features_BF = self.net.features(x_BCHW)
                features.append(features_BF)
                classes.append(self.net.head(features_BF).argmax(1))
        return torch.cat(features).cpu().numpy(), torch.cat(classes).cpu().numpy()

    def accuracy(self, images_NCHW: NDArray[np.uint8], labels_N: NDArray[np.int64]) -> float:
        """Share of images classified as labelled."""
        return float(np.mean(self.judge(images_NCHW)[1] == labels_N))


def shape_of(split: Split) -> tuple[int, int, int]:
    """Channels, side and number of classes."""
    return split.train.shape[1], split.train.shape[2], len(split.classes)


def untrained(shape: tuple[int, int, int], device: torch.device) -> Classifier:
    """One of ``shape`` = (channels, side, classes) with initial weights, which are not kept as bytes."""
    with forked(device):  # the initial weights must not cost anybody random numbers
        return Classifier(ClassifierNet(*shape).to(device).eval(), device, b"")


def training_steps(images: int) -> tuple[int, int]:
    """Epochs, and steps in each, of the training on a data set of so many training images."""
    images = min(images, TRAIN_IMAGES)
    each = images // min(BATCH, images)
    return min(max(EPOCHS, math.ceil(FEWEST_STEPS / each)), MOST_EPOCHS), each


def train_classifier(split: Split, device: torch.device) -> Classifier:
    """Train on at most 20,000 of the training images: Adam, cross-entropy, learning rate falling linearly to 0.

    In float32 with deterministic kernels and a seed of its own: the same images give the same weights on one
    device and one version of torch. Raises ``ValueError`` for a data set without classes.
    """
    if not split.classes:
        raise ValueError("a classifier needs classes")
    chosen = fixed_index(len(split.train), TRAIN_IMAGES, "classifier")
    images = Batches(split.train[chosen], device)
    labels_N = torch.from_numpy(split.train_labels[chosen]).to(device)
    flops = 6.0 * BATCH * split.train[0].size * sum(WIDTHS)  # an upper bound is enough to choose the threads
    with (
        forked(device, derive(0, "classifier")),
        threads(device, flops),
        full_float32(),
        deterministic_convolutions(),
        torch.autocast(device.type, enabled=False),
        torch.enable_grad(),
    ):
        net = ClassifierNet(*shape_of(split)).to(device)
        _fit(net, images, labels_N)
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in net.state_dict().items()}, buffer)
    return Classifier(net.eval(), device, buffer.getvalue())


def _fit(net: ClassifierNet, images: Batches, labels_N: Tensor) -> None:
    size = min(BATCH, len(images))
    epochs, each = training_steps(len(images))
    adam = torch.optim.Adam(net.parameters(), lr=LEARNING_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(adam, 1.0, 0.0, epochs * each)
    for _ in range(epochs):
        order = torch.randperm(len(images))[: each * size]
        for index_B in order.view(each, size):
            loss = F.cross_entropy(net(images.at(index_B)), labels_N[index_B.to(labels_N.device)])
            adam.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            adam.step()
            schedule.step()
