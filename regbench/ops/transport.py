"""Equipartitioned soft assignments by entropic optimal transport. Shape suffixes: B batch, K prototypes."""

from __future__ import annotations

import math

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
    _check(scores_BK, epsilon, iterations)
    log_codes_BK = scores_BK / epsilon
    for _ in range(iterations):
        # log_softmax subtracts the log-sum-exp: one kernel per normalisation.
        log_codes_BK = torch.log_softmax(log_codes_BK, dim=0)
        log_codes_BK = torch.log_softmax(log_codes_BK, dim=1)
    return log_codes_BK.exp()


@torch.no_grad()
@full_precision
def equipartition(
    scores_BK: Tensor, *, epsilon: float = 0.05, iterations: int = 200
) -> tuple[Tensor, Tensor]:
    """Codes Q_BK like those of :func:`sinkhorn`, for scores of any spread, with exact prototype masses.

    Plain Sinkhorn needs iterations in proportion to the spread of the scores over epsilon. Here epsilon falls
    from the scores' range to its value during the first half of the iterations, the prototypes' dual potentials
    being kept (epsilon-scaling: Schmitzer, arXiv:1610.06519). What then is left of the deviation is removed by
    rounding onto the two marginals (Altschuler et al., arXiv:1705.09634, algorithm 2). No gradient.

    Returns:
        The codes, whose rows sum to 1 and whose columns sum to B / K; and the share of the batch that the rounding
        moved (0-d, 0 to 1), which says how far the iterations were from the end.

    Raises:
        ValueError: ``scores`` is no matrix, ``epsilon`` not positive, or ``iterations`` below 1.
    """
    _check(scores_BK, epsilon, iterations)
    scores_BK = scores_BK.float()
    batch, prototypes = scores_BK.shape
    span = (scores_BK.amax() - scores_BK.amin()).clamp(min=epsilon)
    potentials_K = scores_BK.new_zeros(prototypes)
    annealed = iterations // 2
    for iteration in range(iterations):
        left = max(0.0, 1 - iteration / annealed) if annealed else 0.0
        width = epsilon * (span / epsilon) ** left
        log_rows_BK = torch.log_softmax((scores_BK + potentials_K) / width, dim=1)
        potentials_K = potentials_K + width * (math.log(batch / prototypes) - log_rows_BK.logsumexp(dim=0))
        potentials_K = potentials_K - potentials_K.mean()  # a constant changes nothing, and would drift
    return _rounded(torch.softmax((scores_BK + potentials_K) / epsilon, dim=1))


def _rounded(codes_BK: Tensor) -> tuple[Tensor, Tensor]:
    """The nearest codes of equal prototype masses, for codes whose rows sum to 1; and the share that was moved."""
    batch, prototypes = codes_BK.shape
    mass = batch / prototypes
    codes_BK = codes_BK * (mass / codes_BK.sum(dim=0)).clamp(max=1)
    short_B = (1 - codes_BK.sum(dim=1)).clamp(min=0)
    short_K = (mass - codes_BK.sum(dim=0)).clamp(min=0)
    moved = short_B.sum()
    tiny = torch.finfo(codes_BK.dtype).tiny
    return codes_BK + short_B[:, None] * (short_K / short_K.sum().clamp(min=tiny)), moved / batch


def _check(scores_BK: Tensor, epsilon: float, iterations: int) -> None:
    if scores_BK.ndim != 2:
        raise ValueError(f"scores must have the shape (B, K), not {tuple(scores_BK.shape)}")
    if epsilon <= 0:
        raise ValueError(f"epsilon must be above 0, not {epsilon}")
    if iterations < 1:
        raise ValueError(f"iterations must be at least 1, not {iterations}")


@torch.no_grad()
@full_precision
def prototype_mass_deviation(codes_BK: Tensor) -> Tensor:
    """Largest relative deviation of a prototype's mass from B / K (0-d): 0 is exact, 0.02 is 2%.

    Args:
        codes_BK: codes whose rows sum to 1, as :func:`sinkhorn` returns them.
    """
    batch, prototypes = codes_BK.shape
    return (codes_BK.sum(dim=0) * (prototypes / batch) - 1).abs().max()
