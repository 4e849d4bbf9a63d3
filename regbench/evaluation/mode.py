"""What holds while a model is evaluated: no gradients, float32, eval mode, and a random stream of its own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from regbench.model import Model
from regbench.modes import forked, full_float32
from regbench.seeding import derive


@contextmanager
def evaluating(
    model: Model, *, seed: int, purpose: tuple[str | int, ...], sampling: bool
) -> Iterator[torch.device]:
    """Evaluate inside the block; yields the model's device.

    Random numbers come from the stream ``(seed, "evaluation", *purpose)``. Afterwards the generators, every
    module's train mode, ``regularizer.sampling`` and the precision flags are as before, so that an evaluation
    changes nothing in the training around it.
    """
    device = next(model.parameters()).device
    training = {module: module.training for module in model.modules()}
    with (
        forked(device, derive(seed, "evaluation", *purpose)),
        torch.no_grad(),
        torch.autocast(device.type, enabled=False),
        full_float32(),
        model.sampling(sampling),
    ):
        model.eval()
        try:
            yield device
        finally:
            for module, mode in training.items():
                module.training = mode
