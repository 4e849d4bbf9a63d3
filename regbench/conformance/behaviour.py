"""A short training on real digits, for tests of what a method does: see :func:`train`.

Shape suffixes: N images, C channels, H height, W width, D latent units.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from regbench.api import Regularizer
from regbench.conformance.bench import one_thread, small_digits
from regbench.data.batches import Batches
from regbench.errors import UsageError
from regbench.model import Model, build_model
from regbench.nets import NetShape
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings


@dataclass(frozen=True, slots=True)
class Trained:
    """A model after :func:`train`, with the images to look at it."""

    model: Model
    """In it ``regularizer``, the method."""
    history: Sequence[Mapping[str, Any]]
    """One row per epoch, with ``epoch``, ``phase``, ``losses``, ``log`` and ``log_max``."""
    images_NCHW: Tensor
    """The digits that it was trained on, float32 in [0, 1]."""
    labels_N: Tensor
    """Which digit each of them is, int64 from 0 to 9."""
    heldout_NCHW: Tensor
    """The other digits of the 1,797; none where all were trained on."""

    def codes(self, images_NCHW: Tensor | None = None) -> Tensor:
        """The mean codes z_ND of images, of those it was trained on unless others are given; without gradients."""
        return self.model.codes(torch.split(self.images_NCHW if images_NCHW is None else images_NCHW, 500))


def train(
    method: type[Regularizer],
    options: Mapping[str, Any] | None = None,
    *,
    epochs: int,
    warmup: int = 5,
    images: int = 640,
    latent: int = 16,
    features: int = 64,
    widths: Sequence[int] = (8,),
    bottleneck_relu: bool = True,
    batch_size: int = 32,
    lr: float = 2e-3,
    seed: int = 3,
) -> Trained:
    """Train ``method`` with ``options`` as ``regbench run`` would, on the first ``images`` of scikit-learn's digits
    of 8 x 8 pixels, in a small net on the CPU: about 0.2 s per epoch.

    ``epochs`` counts the ``warmup``: with as many the model is as the method finds it, and with 0 it is as it starts,
    and nothing of the method but its ``build`` has run. All else is as in a suite. The same arguments give the same
    numbers, and leave torch's random stream at the same place, so that what a test draws afterwards is the same each
    time.

    Raises ``UsageError`` for arguments that do not go together, and what the method raises.
    """
    pixels_NCHW, labels_N = small_digits()
    if not 1 <= images <= len(pixels_NCHW):
        raise UsageError(
            f"images = {images}: expected 1 to {len(pixels_NCHW):,}, which is how many digits there are"
        )
    if min(epochs, warmup) < 0:
        raise UsageError(f"epochs = {epochs}, warmup = {warmup}: expected at least 0")
    if 0 < epochs < warmup:
        raise UsageError(
            f"epochs = {epochs}, warmup = {warmup}: the training ends within the warm-up, in which the method does "
            "nothing; expected more epochs than warmup, as many for the codes that the method starts from, or 0 for "
            "the model as it is built"
        )
    all_NCHW = Batches(pixels_NCHW, "cpu").at(range(len(pixels_NCHW)))
    shape = NetShape(1, 8, latent, features, tuple(widths), bottleneck_relu=bottleneck_relu)
    settings = TrainingSettings(epochs, warmup, batch_size, AdamSettings(lr=lr), "fp32")
    with one_thread():
        model = build_model(shape, method, options, seed=seed, images=images)
        history = []
        if epochs:
            trainer = Trainer(model, Batches(pixels_NCHW[:images], "cpu"), settings, seed)
            history = [trainer.run_epoch(epoch) for epoch in range(1, epochs + 1)]
            trainer.finish()
    return Trained(model, history, all_NCHW[:images], torch.from_numpy(labels_N[:images]), all_NCHW[images:])
