"""Squared distances through the Gram matrix, and the kernels on them.

Shape suffixes: N, M samples, P pooled samples, B batch, D latent units.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, Literal, Protocol, TypeAlias

import torch
from pydantic import Field
from torch import Tensor

from regbench.ops.compilation import compilable
from regbench.ops.precision import full_precision, matmul

KernelName: TypeAlias = Literal["gaussian", "imq"]
"""Names that :func:`kernel` knows; usable as the type of an option."""
Bandwidth: TypeAlias = Annotated[float, Field(gt=0)] | Literal["median"] | None
"""Standard deviation sigma of a Gaussian kernel, the median heuristic, or the default sigma^2 = D."""

NO_CLOSED_FORM = 'closed_form needs the "gaussian" kernel: expectations of others have no closed form'


@full_precision
def squared_distances(x_ND: Tensor, y_MD: Tensor | None = None) -> Tensor:
    """|x_i - y_j|^2 of shape (N, M), at least 0; without ``y`` those within ``x``, exactly 0 on the diagonal.

    Computed as |x|^2 + |y|^2 - 2<x, y> in float32: no N x M x D tensor.
    """
    return _squared_distances(x_ND, y_MD)


@compilable(type(None))
def _squared_distances(x_ND: Tensor, y_MD: Tensor | None) -> Tensor:
    within = y_MD is None
    # Distances do not depend on the origin; a near one keeps the subtraction below from losing digits.
    origin_D = x_ND.detach().mean(dim=0)
    x_ND = x_ND - origin_D
    y_MD = x_ND if y_MD is None else y_MD - origin_D
    gram_NM = matmul(x_ND, y_MD.T)
    lengths_N = x_ND.square().sum(dim=1)
    lengths_M = lengths_N if within else y_MD.square().sum(dim=1)
    squares_NM = (lengths_N[:, None] + lengths_M[None, :]).sub(gram_NM, alpha=2).clamp(min=0)
    return squares_NM.fill_diagonal_(0) if within else squares_NM


class Kernel(Protocol):
    """A positive definite kernel as a function of squared distances."""

    def __call__(self, squares_PP: Tensor, dim: int) -> Tensor:
        """k_PP from the squared distances within one (pooled) sample in ``dim`` dimensions."""
        ...


def _off_diagonal_median(squares_PP: Tensor) -> Tensor:
    count = len(squares_PP)
    if count < 2:
        return squares_PP.new_ones(())
    # Without its last element the matrix, read in rows of P + 1, has the diagonal in its first column.
    off_diagonal = squares_PP.detach().flatten()[:-1].view(count - 1, count + 1)[:, 1:]
    return off_diagonal.flatten().median().clamp(min=torch.finfo(squares_PP.dtype).tiny)


@dataclass(frozen=True, slots=True)
class GaussianKernel:
    """k(x, y) = exp(-|x - y|^2 / (2 sigma^2)).

    ``bandwidth`` is sigma. None: sigma^2 = D, so that 2 sigma^2 is the expected squared distance of two draws
    of N(0, I). ``"median"``: 2 sigma^2 is the median squared distance within the pooled sample (Gretton et
    al., JMLR 2012, section 8), taken as a constant by the gradient.
    """

    bandwidth: float | Literal["median"] | None = None

    def variance(self, squares_PP: Tensor, dim: int) -> Tensor:
        """sigma^2 as a 0-d tensor; ``squares_PP`` matters to the median heuristic alone."""
        variance = self._variance(squares_PP, dim)
        return variance if isinstance(variance, Tensor) else squares_PP.new_full((), variance)

    def _variance(self, squares_PP: Tensor, dim: int) -> Tensor | float:
        """The number itself, where it is known, spares the device two kernels."""
        if self.bandwidth == "median":
            return 0.5 * _off_diagonal_median(squares_PP)
        return float(dim) if self.bandwidth is None else self.bandwidth**2

    def __call__(self, squares_PP: Tensor, dim: int) -> Tensor:
        return torch.exp(squares_PP / (-2 * self._variance(squares_PP, dim)))

    @staticmethod
    def expected(squares_B: Tensor, variance: Tensor, dim: int) -> Tensor:
        """E k(z, y) over y ~ N(v, I), from |z - v|^2 and sigma^2 (Rustamov, arXiv:1901.03227).

        (s / (1 + s))^(D/2) exp(-|z - v|^2 / (2 (1 + s))) with s = sigma^2.
        """
        return torch.exp(-0.5 * (dim * torch.log1p(1 / variance) + squares_B / (1 + variance)))

    @staticmethod
    def expected_within(variance: Tensor, dim: int) -> Tensor:
        """E k(y, y') over independent y, y' ~ N(v, I): (s / (2 + s))^(D/2), 0-d."""
        return torch.exp(-0.5 * dim * torch.log1p(2 / variance))


@dataclass(frozen=True, slots=True)
class InverseMultiquadraticKernel:
    """k(x, y) = sum_s C_s / (C_s + |x - y|^2) with C_s = 2 D s.

    The kernel of WAE (arXiv:1711.01558, section 4); ``scales`` are those of the authors' code.
    """

    scales: tuple[float, ...] = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)

    def __call__(self, squares_PP: Tensor, dim: int) -> Tensor:
        k_PP = torch.zeros_like(squares_PP)
        for scale in self.scales:
            constant = 2 * dim * scale
            k_PP = k_PP + constant / (constant + squares_PP)
        return k_PP


def kernel(
    name: KernelName = "gaussian",
    bandwidth: float | Literal["median"] | None = None,
    *,
    closed_form: bool = False,
) -> Kernel:
    """The kernel that a method's options name; ``closed_form`` says that its expectations will be asked for.

    Raises:
        ValueError: the name is unknown, a bandwidth is not a positive number or "median", or the "imq"
            kernel, a sum over fixed scales, is given a bandwidth or asked for closed forms.
    """
    if name == "gaussian":
        if isinstance(bandwidth, str):
            valid = bandwidth == "median"
        else:
            valid = bandwidth is None or (bandwidth > 0 and math.isfinite(bandwidth))
        if not valid:
            raise ValueError(f'bandwidth must be a positive number, "median" or None, not {bandwidth!r}')
        return GaussianKernel(bandwidth)
    if name == "imq":
        if bandwidth is not None:
            raise ValueError('the "imq" kernel sums over fixed scales and takes no bandwidth: leave it out')
        if closed_form:
            raise ValueError(NO_CLOSED_FORM)
        return InverseMultiquadraticKernel()
    raise ValueError(f'unknown kernel {name!r}: "gaussian" or "imq"')
