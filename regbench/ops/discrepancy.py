"""Squared maximum mean discrepancies (Gretton et al., JMLR 2012), between samples and per prototype.

Shape suffixes: N, M samples, P pooled samples, B batch, D latent units, K prototypes, 2 codes and draws.
"""

from __future__ import annotations

import torch
from torch import Tensor

from regbench.ops.compilation import compilable
from regbench.ops.kernels import (
    NO_CLOSED_FORM,
    GaussianKernel,
    InverseMultiquadraticKernel,
    Kernel,
    squared_distances,
)
from regbench.ops.precision import full_precision


@compilable(GaussianKernel, InverseMultiquadraticKernel)
def _mmd(x_ND: Tensor, y_MD: Tensor, kernel: Kernel, biased: bool) -> Tensor:
    n, m = len(x_ND), len(y_MD)
    # With one Gram matrix of the pooled sample.
    weights_PP = x_ND.new_full((n + m, n + m), -1 / (n * m))
    for block, size in ((weights_PP[:n, :n], n), (weights_PP[n:, n:], m)):
        block.fill_(1 / (size * size if biased else size * (size - 1)))
    if not biased:
        weights_PP.fill_diagonal_(0)
    return _weighted(kernel, torch.cat([x_ND, y_MD]), weights_PP)


def _weighted(kernel: Kernel, pooled_PD: Tensor, weights_PP: Tensor) -> Tensor:
    return (weights_PP * kernel(squared_distances(pooled_PD), pooled_PD.shape[1])).sum()


@full_precision
def mmd(x_ND: Tensor, y_MD: Tensor, kernel: Kernel | None = None, *, biased: bool = False) -> Tensor:
    """Squared MMD of two samples (0-d).

    Args:
        x_ND, y_MD: samples of the two distributions.
        kernel: a Gaussian with sigma^2 = D unless given.
        biased: the V-statistic (eq. 5 of Gretton et al.), which is at least 0, in place of the U-statistic
            (eq. 3), which has expectation 0 where the distributions are equal and may be negative.

    Raises:
        ValueError: the shapes do not fit, or a sample is too small: the U-statistic needs two on each side,
            the V-statistic one.
    """
    if x_ND.ndim != 2 or y_MD.ndim != 2 or x_ND.shape[1] != y_MD.shape[1]:
        shapes = f"{tuple(x_ND.shape)} and {tuple(y_MD.shape)}"
        raise ValueError(f"samples must have the shapes (N, D) and (M, D), not {shapes}")
    n, m = len(x_ND), len(y_MD)
    least = 1 if biased else 2
    if min(n, m) < least:
        raise ValueError(f"the estimate needs at least {least} in each sample, not {n} and {m}")

    return _mmd(x_ND, y_MD, kernel or GaussianKernel(), biased)


@full_precision
def per_prototype_mmd(
    z_BD: Tensor,
    prototypes_KD: Tensor,
    assignments_B: Tensor,
    kernel: Kernel | None = None,
    *,
    biased: bool = False,
    closed_form: bool = False,
    noise_BD: Tensor | None = None,
) -> Tensor:
    """sum_k MMD^2(codes assigned to prototype k, N(v_k, I)) (0-d), the ProtoVAE paper's eq. 5.

    The whole batch at once: with A_ij = [c_i = c_j], n_i = sum_j A_ij and y_i = v_{c_i} + e_i, it is

        sum_{i != j} A_ij [k(z_i, z_j) + k(y_i, y_j)] / (n_i (n_i - 1))  -  2 sum_ij A_ij k(z_i, y_j) / n_i^2

    Clusters of fewer than two codes contribute nothing. The prototypes are constants: no gradient to them.

    Args:
        z_BD: codes.
        prototypes_KD: the v_k.
        assignments_B: c_i, integers in [0, K).
        kernel: a Gaussian with sigma^2 = D unless given.
        biased: V-statistics, over all pairs of a cluster. Their minimum shrinks small clusters.
        closed_form: take the expectations over y exactly in place of a draw (Gaussian kernel only): lower
            variance. ``biased`` then concerns the pairs of codes alone, and the median heuristic their
            distances alone.
        noise_BD: the e_i ~ N(0, I); drawn from torch's global generator unless given.

    Raises:
        ValueError: a closed form of another kernel than the Gaussian.
    """
    kernel = kernel or GaussianKernel()
    if closed_form:
        if not isinstance(kernel, GaussianKernel):
            raise ValueError(NO_CLOSED_FORM)
        return _to_prototypes(z_BD, prototypes_KD, assignments_B, kernel, biased)
    noise_BD = torch.randn_like(z_BD) if noise_BD is None else noise_BD
    return _to_draws(z_BD, prototypes_KD, assignments_B, noise_BD, kernel, biased)


def _same(assignments_B: Tensor, like: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """A_BB; the sizes n_B; and 1 where a code's cluster counts, having two or more of them."""
    same_BB = (assignments_B[:, None] == assignments_B[None, :]).to(like.dtype)
    size_B = same_BB.sum(dim=1)
    return same_BB, size_B, (size_B >= 2).to(like.dtype)


def _per_pair(size_B: Tensor, counted_B: Tensor, biased: bool) -> Tensor:
    return counted_B / (size_B * (size_B if biased else size_B - 1)).clamp(min=1)


@compilable(GaussianKernel, InverseMultiquadraticKernel)
def _to_draws(
    z_BD: Tensor, prototypes_KD: Tensor, assignments_B: Tensor, noise_BD: Tensor, kernel: Kernel, biased: bool
) -> Tensor:
    same_BB, size_B, counted_B = _same(assignments_B, z_BD)
    batch = len(z_BD)
    within_BB = same_BB * _per_pair(size_B, counted_B, biased)[:, None]
    if not biased:
        within_BB.fill_diagonal_(0)
    across_BB = same_BB * -_per_pair(size_B, counted_B, True)[:, None]
    weights_22BB = torch.stack([within_BB, across_BB, across_BB, within_BB]).view(2, 2, batch, batch)
    weights_PP = weights_22BB.transpose(1, 2).reshape(2 * batch, 2 * batch)
    draws_BD = prototypes_KD.detach().to(z_BD.dtype).index_select(0, assignments_B) + noise_BD
    return _weighted(kernel, torch.cat([z_BD, draws_BD]), weights_PP)


@compilable(GaussianKernel)
def _to_prototypes(
    z_BD: Tensor, prototypes_KD: Tensor, assignments_B: Tensor, kernel: GaussianKernel, biased: bool
) -> Tensor:
    same_BB, size_B, counted_B = _same(assignments_B, z_BD)
    weights_BB = same_BB * _per_pair(size_B, counted_B, biased)[:, None]
    if not biased:
        weights_BB.fill_diagonal_(0)
    dim = z_BD.shape[1]
    squares_BB = squared_distances(z_BD)
    variance = kernel.variance(squares_BB, dim)
    centre_BD = prototypes_KD.detach().to(z_BD.dtype).index_select(0, assignments_B)
    cross_B = kernel.expected((z_BD - centre_BD).square().sum(dim=1), variance, dim)
    # Each cluster once: its members' counted / size sum to 1.
    share_B = counted_B / size_B
    expected = share_B * (kernel.expected_within(variance, dim) - 2 * cross_B)
    return (weights_BB * kernel(squares_BB, dim)).sum() + expected.sum()


@full_precision
def mmd_to_standard_normal(
    z_BD: Tensor, kernel: Kernel | None = None, *, biased: bool = False, closed_form: bool = False
) -> Tensor:
    """Squared MMD between codes and N(0, I) (0-d), of which as many draws as codes are compared.

    It is :func:`per_prototype_mmd` with one prototype at the origin, and takes its options; 0 for one code.
    """
    origin_KD = z_BD.new_zeros(1, z_BD.shape[1])
    assignments_B = torch.zeros(len(z_BD), dtype=torch.int64, device=z_BD.device)
    return per_prototype_mmd(z_BD, origin_KD, assignments_B, kernel, biased=biased, closed_form=closed_form)
