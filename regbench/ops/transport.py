"""Equipartitioned soft assignments by entropic optimal transport. Shape suffixes: B batch, K prototypes."""

from __future__ import annotations

import math
import os
import shutil
import sysconfig
from functools import lru_cache
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor, library

from regbench.modes import full_float32
from regbench.ops.compilation import compilable
from regbench.ops.precision import full_precision

LARGEST_ROW = 128
LARGEST_MATRIX = 1 << 17
"""Padded elements up to which one program is faster than a kernel for each step of each iteration."""

LEAST_MASS = 1e-20
"""A prototype with less of its share has lost terms that were rounded to zero: it is taken in the log domain."""
LARGEST_SCALING = 1e8
"""Scalings of at most this, and at least its inverse, times exponentials of at most 1 lose no digits."""
UNCHECKED = 10
"""Scalings computed before their range is looked at."""
NO_DENORMALS = 1e-28
"""Smaller exponentials are zero: they change no digit, and their products would be slow denormal numbers."""


@torch.no_grad()
@full_precision
def sinkhorn(scores_BK: Tensor, *, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Codes Q_BK that follow ``scores`` (larger: more similar) while every prototype receives B / K samples.

    Maximises <Q, scores> + epsilon H(Q) over the two marginals by Sinkhorn-Knopp in the log domain, which
    neither overflows nor underflows. Rows sum to 1; the prototypes' masses approach B / K as iterations grow
    (:func:`prototype_mass_deviation` says how closely). SwAV (arXiv:2006.09882), eq. 3-5. No gradient.

    In float32 on a CUDA device all iterations are one kernel launch, if Triton can be used there and the matrix has
    up to 2^17 elements, B and K each raised to a power of 2, and K up to 128. :func:`equipartition` likewise.

    Args:
        scores_BK: similarities, any B and K (B < K and K = 1 included).
        epsilon: weight of the entropy; small values give nearly hard codes and need more iterations.
        iterations: pairs of normalisations, prototypes first and samples last.

    Raises:
        ValueError: ``scores`` is no matrix, ``epsilon`` not positive, or ``iterations`` below 1.
    """
    _check(scores_BK, epsilon, iterations)
    codes_BK: Tensor = _sinkhorn(scores_BK, epsilon, iterations)
    return codes_BK


# Custom operators, for torch.compile would trace every iteration.
@library.custom_op("regbench::sinkhorn", mutates_args=())
def _sinkhorn(scores_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    if _fits_one_kernel(scores_BK):
        from regbench.ops.fused_transport import transport

        return transport(scores_BK, epsilon, iterations, annealed=False)[0]
    log_codes_BK = scores_BK / epsilon
    for _ in range(iterations):
        # log_softmax subtracts the log-sum-exp: one kernel per normalisation.
        log_codes_BK = torch.log_softmax(log_codes_BK, dim=0)
        log_codes_BK = torch.log_softmax(log_codes_BK, dim=1)
    return log_codes_BK.exp_()


@_sinkhorn.register_fake
def _(scores_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    return scores_BK.new_empty(scores_BK.shape)


def _fits_one_kernel(scores_BK: Tensor) -> bool:
    batch, prototypes = (1 << (size - 1).bit_length() for size in scores_BK.shape)
    return (
        scores_BK.is_cuda
        and scores_BK.dtype == torch.float32
        and scores_BK.numel() > 0
        and prototypes <= LARGEST_ROW
        and batch * prototypes <= LARGEST_MATRIX
        and _triton_runs(scores_BK.device)
    )


@lru_cache
def _triton_runs(device: torch.device) -> bool:
    """Whether Triton is there, supports the GPU, and has the C compiler and headers that its launcher is built with."""
    return (
        torch.version.cuda is not None
        and find_spec("triton") is not None
        and torch.cuda.get_device_capability(device) >= (8, 0)
        and any(map(shutil.which, [os.environ.get("CC", "cc"), "gcc", "clang"]))
        and (Path(sysconfig.get_path("include")) / "Python.h").exists()
    )


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
    codes_BK, moved = _equipartition(scores_BK.float(), epsilon, iterations)
    return codes_BK, moved


@library.custom_op("regbench::equipartition", mutates_args=())
def _equipartition(scores_BK: Tensor, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    if _fits_one_kernel(scores_BK):
        from regbench.ops.fused_transport import transport

        return transport(scores_BK, epsilon, iterations, annealed=True)
    find = _potentials_on_a_cpu if scores_BK.device.type == "cpu" else _potentials
    potentials_K = find(scores_BK, epsilon, iterations)
    return _rounded(torch.softmax((scores_BK + potentials_K) / epsilon, dim=1))


@_equipartition.register_fake
def _(scores_BK: Tensor, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    return scores_BK.new_empty(scores_BK.shape), scores_BK.new_empty(())


def _potentials(scores_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    """The prototypes' potentials after ``iterations`` of falling widths. Nothing waits for the device."""
    span = (scores_BK.amax() - scores_BK.amin()).clamp(min=epsilon)
    potentials_K = scores_BK.new_zeros(scores_BK.shape[1])
    annealed = iterations // 2
    for iteration in range(iterations):
        left = max(0.0, 1 - iteration / annealed) if annealed else 0.0
        potentials_K = _raised(scores_BK, potentials_K, epsilon * (span / epsilon) ** left)
    return potentials_K


def _raised(scores_BK: Tensor, potentials_K: Tensor, width: Tensor | float) -> Tensor:
    """The potentials that give every prototype its mass at that width, were the samples left alone."""
    batch, prototypes = scores_BK.shape
    log_rows_BK = torch.log_softmax((scores_BK + potentials_K) / width, dim=1)
    potentials_K = potentials_K + width * (math.log(batch / prototypes) - log_rows_BK.logsumexp(dim=0))
    return potentials_K - potentials_K.mean()  # a constant changes nothing, and would drift


def _potentials_on_a_cpu(scores_BK: Tensor, epsilon: float, iterations: int) -> Tensor:
    """:func:`_potentials` in fewer and shorter operations, which look at numbers: a CPU is not waited for.

    One exponential per element while the width falls; then, as scalings of fixed exponentials, two products. What
    would underflow is done in the log domain.
    """
    batch, prototypes = scores_BK.shape
    span = max((scores_BK.amax() - scores_BK.amin()).item(), epsilon)
    potentials_K = scores_BK.new_zeros(prototypes)
    averaging_K = scores_BK.new_full((prototypes,), 1 / prototypes)
    logits_BK = torch.empty_like(scores_BK)
    annealed = iterations // 2
    widths = [epsilon * (span / epsilon) ** (1 - iteration / annealed) for iteration in range(annealed)]
    # Factors as tensors: a number would be made one each time.
    for width, rate in zip(widths, (1 / scores_BK.new_tensor(widths)).unbind(), strict=True):
        torch.add(scores_BK, potentials_K, out=logits_BK).mul_(rate)
        masses_K = torch.softmax(logits_BK, dim=1).sum(dim=0)
        if masses_K.min().item() > LEAST_MASS * batch / prototypes:  # false for NaN
            log_masses_K = masses_K.log_()  # over the share they are a constant less, which changes nothing
            potentials_K.sub_(log_masses_K.sub_(log_masses_K.dot(averaging_K)), alpha=width)
        else:
            potentials_K = _raised(scores_BK, potentials_K, width)
    with full_float32():
        return _scaled_on_a_cpu(scores_BK, potentials_K, epsilon, iterations - annealed)


def _scaled_on_a_cpu(scores_BK: Tensor, potentials_K: Tensor, epsilon: float, iterations: int) -> Tensor:
    """Potentials after ``iterations`` more at one width, as scalings of the columns of fixed exponentials."""
    batch, prototypes = scores_BK.shape
    inverse_B = scores_BK.new_empty(batch)
    before_K, scaling_K = scores_BK.new_empty(2, prototypes).unbind()
    inside = False
    for start in range(0, iterations, UNCHECKED):
        few = min(UNCHECKED, iterations - start)
        if not inside:
            logits_BK = (scores_BK + potentials_K) / epsilon
            fixed_BK = torch.exp(logits_BK - logits_BK.amax(dim=1, keepdim=True))
            fixed_BK = torch.threshold(fixed_BK, NO_DENORMALS, 0)
            fixed_KB = (fixed_BK.T * (prototypes / batch)).contiguous()
            before_K.fill_(1)
        scaling_K.copy_(before_K)
        for _ in range(few):
            torch.mv(fixed_BK, scaling_K, out=inverse_B).reciprocal_()
            torch.mv(fixed_KB, inverse_B, out=scaling_K).reciprocal_()
        least, largest = (value.item() for value in scaling_K.aminmax())
        inside = least > 1 / LARGEST_SCALING and largest < LARGEST_SCALING
        if inside:
            before_K.copy_(scaling_K)
            continue
        potentials_K = potentials_K + epsilon * before_K.log()
        before_K.fill_(1)
        for _ in range(few):
            potentials_K = _raised(scores_BK, potentials_K, epsilon)
    return potentials_K + epsilon * before_K.log()


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
    return _deviation(codes_BK)


@compilable()
def _deviation(codes_BK: Tensor) -> Tensor:
    batch, prototypes = codes_BK.shape
    return (codes_BK.sum(dim=0) * (prototypes / batch) - 1).abs().max()
