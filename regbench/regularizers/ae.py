"""The plain autoencoder: no regularization. The baseline that every other method is compared with.

Shape suffixes: B batch, C channels, H height, W width, D latent units.
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor

import regbench
from regbench import Field, Model, Regularizer, Update


class AE(Regularizer):
    """Reconstruction alone."""

    name = "ae"
    paper = "doi:10.1126/science.1127647"
    regularizes = "nothing"

    class Options(regbench.Options):
        """Options of ``ae``."""

        updates_per_batch: int = Field(
            1,
            ge=1,
            description="optimizer steps on the reconstruction per batch, each on a fresh encoding; "
            "3 is the step-matched control for methods that take three",
        )

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        for step in range(1, self.options.updates_per_batch + 1):
            bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
            yield Update(
                "reconstruction" if step == 1 else f"reconstruction-{step}",
                bce,
                updates=[*model.encoding, model.decoder],
                optimizer="reconstruction",
                log={"bce": bce} if step == 1 else {},
            )
