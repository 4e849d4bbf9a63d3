"""RAE-L2, VampPrior and VaDE as latent regularizers for regbench."""

from __future__ import annotations

import regbench
from regbench_priors.rae import RAEL2
from regbench_priors.vade import VaDE
from regbench_priors.vamp_prior import VampPrior

__all__ = ["RAEL2", "VaDE", "VampPrior", "regbench_regularizers"]


@regbench.hookimpl
def regbench_regularizers() -> list[type[regbench.Regularizer]]:
    return [RAEL2, VampPrior, VaDE]
