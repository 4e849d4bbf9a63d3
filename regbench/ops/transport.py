"""Equipartitioned soft assignments by entropic optimal transport. Shape suffixes: B batch, K prototypes."""

from __future__ import annotations

import torch
from torch import Tensor

from regbench.ops.precision import full_precision


@torch.no_grad()
@full_precision
def sinkhorn(scores_BK: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes Q_BK that follow ``scores`` (larger: more similar) while every prototype receives B / K samples.

    Maximises <Q, scores> + epsilon H(Q) over the two marginals by Sinkhorn-Knopp in the log domain, which
    neither overflows nor underflows. Rows sum to 1; the prototypes' masses approach B / K as iterations grow
    (:func:`prototype_mass_deviation` says how closely). SwAV (arXiv:2006.09882), eq. 3-5. No gradient.

    Args:
        scores_BK: similarities, any B and K (B < K and K = 1 included).
        epsilon: weight of the entropy; small values give nearly hard codes and need more iterations.
        iterations: pairs of normalisations, prototypes first and samples last.

    Raises:
        ValueError: ``scores`` is no matrix, ``epsilon`` not positive, or ``iterations`` below 1.
    """
    if scores_BK.ndim != 2:
        raise ValueError(f"scores must have the shape (B, K), not {tuple(scores_BK.shape)}")
    if epsilon <= 0:
        raise ValueError(f"epsilon must be above 0, not {epsilon}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")
    log_codes_BK = scores_BK / epsilon
    for _ in range(iterations):
        # log_softmax subtracts the log-sum-exp: one kernel per normalisation.
        log_codes_BK = torch.log_softmax(log_codes_BK, dim=0)
        log_codes_BK = torch.log_softmax(log_codes_BK, dim=1)
    return log_codes_BK.exp()


@torch.no_grad()
@full_precision
def prototype_mass_deviation(codes_BK: Tensor) -> Tensor:
    """Largest relative deviation of a prototype's mass from B / K (0-d): 0 is exact, 0.02 is 2%.

    Args:
        codes_BK: codes whose rows sum to 1, as :func:`sinkhorn` returns them.
    """
    batch, prototypes = codes_BK.shape
    return (codes_BK.sum(dim=0) * (prototypes / batch) - 1).abs().max()
