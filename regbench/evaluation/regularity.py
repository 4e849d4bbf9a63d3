"""How far codes are from a prior: MMD, sliced Wasserstein distance and Gaussian-fit KL, with their floors.

The codes are the *aggregate* codes of the test images: one sampled code per image where a method samples, else
the codes themselves. A *floor* is the same number for as many fresh draws of the prior as there are codes.

Shape suffixes: N codes, M draws, D latent units, L directions, K clusters.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench import ops
from regbench.errors import PluginError
from regbench.evaluation.mode import evaluating
from regbench.evaluation.samples import check_codes
from regbench.evaluation.selection import fixed_index
from regbench.model import Model
from regbench.seeding import derive

MMD_CODES = 1_000
"""The MMD takes at most that many codes: time and memory grow with their square."""
DIRECTIONS = 256
SMALLEST_EIGENVALUE = 1e-6
"""Variances below this share of the prior's count as this share, in the KL of Gaussian fits."""
FIT_DRAWS = 4
"""Draws per code that a prior's Gaussian is fitted to, ..."""
MOST_FIT_DRAWS = 20_000
"""... and the most of them."""
_NAMES = ("mmd", "mmd_floor", "sw2", "sw2_floor", "kl", "kl_floor")


def mmd_squared(x_ND: Tensor, y_MD: Tensor) -> float:
    """Unbiased squared MMD, multi-scale inverse multiquadratic kernel; of larger samples a fixed choice of 1,000.

    The kernel is that of WAE (Tolstikhin et al., arXiv:1711.01558), k(x, y) = sum_s 2Ds / (2Ds + |x - y|^2) with s
    from 0.1 to 10; the U-statistic is eq. 3 of Gretton et al. (JMLR 2012). Its expectation is 0 for equal
    distributions, so it may be negative; at most 14. Raises ``ValueError`` for fewer than two codes.
    """
    return float(ops.mmd(_some(x_ND), _some(y_MD), ops.InverseMultiquadraticKernel()))


def _some(z_ND: Tensor) -> Tensor:
    if len(z_ND) <= MMD_CODES:
        return z_ND
    return z_ND[torch.from_numpy(fixed_index(len(z_ND), MMD_CODES, "mmd")).to(z_ND.device)]


def sliced_wasserstein(x_ND: Tensor, y_ND: Tensor) -> float:
    """Sliced Wasserstein-2 distance of two samples of one size, not squared (Bonneel et al. 2015).

    The root of the mean, over 256 fixed unit directions, of the squared 1-d Wasserstein-2 distance, which pairs
    sorted projections. A shift by m moves it to |m| / sqrt(D): its unit is that of a single coordinate, whatever
    D. Raises ``ValueError`` where the shapes differ.
    """
    if x_ND.shape != y_ND.shape:
        raise ValueError(f"samples must have one shape, not {tuple(x_ND.shape)} and {tuple(y_ND.shape)}")
    return _paired(_sorted_projections(x_ND), _sorted_projections(y_ND))


def _paired(x_LN: Tensor, y_LN: Tensor) -> float:
    return float((x_LN - y_LN).square().mean().sqrt())


def _sorted_projections(z_ND: Tensor) -> Tensor:
    projected_LN = ops.matmul(_directions(z_ND.shape[1]).to(z_ND).T, z_ND.T)
    if projected_LN.device.type == "cpu":
        # numpy sorts floats with vector instructions; torch's sort also keeps track of where each came from.
        return torch.from_numpy(np.sort(projected_LN.numpy(), axis=1))
    return projected_LN.sort(dim=1).values


def _directions(dim: int) -> Tensor:
    """The same ones for every cell, so that their choice cancels out of comparisons."""
    generator = torch.Generator().manual_seed(derive(0, "evaluation", "directions", dim))
    directions_DL = torch.randn(dim, DIRECTIONS, generator=generator, dtype=torch.float64)
    lengths_L = directions_DL.square().sum(dim=0).sqrt()
    return directions_DL / lengths_L


@dataclass(frozen=True, slots=True)
class Gaussian:
    """A mean and a full covariance, in float64."""

    mean_D: NDArray[np.float64]
    covariance_DD: NDArray[np.float64]

    @classmethod
    def fit(cls, z_ND: Tensor | NDArray[Any]) -> Gaussian:
        """Sample mean and unbiased sample covariance; that of a single code is 0."""
        array_ND = z_ND.detach().cpu().numpy() if isinstance(z_ND, Tensor) else z_ND
        array_ND = np.asarray(array_ND, dtype=np.float64)
        mean_D = array_ND.mean(0)
        centred_ND = array_ND - mean_D
        return cls(mean_D, centred_ND.T @ centred_ND / max(len(array_ND) - 1, 1))

    @classmethod
    def standard(cls, dim: int) -> Gaussian:
        """N(0, I)."""
        return cls(np.zeros(dim), np.eye(dim))


def gaussian_kl(codes: Gaussian, prior: Gaussian) -> float | None:
    """KL(codes || prior) of two Gaussians in nats, at least 0; ``None`` where the prior has no spread at all.

    0.5 (tr(P^-1 S) + (m - p)' P^-1 (m - p) - D + ln det P - ln det S). Deterministic codes have a singular S, for
    which it is infinite: so the eigenvalues of S relative to P (of P^-1/2 S P^-1/2) are taken to be at least 1e-6,
    which makes an unused direction cost 6.4 nats. Those of P are taken to be at least 1e-6 of its largest.
    """
    variances_D, axes_DD = np.linalg.eigh(prior.covariance_DD)
    if not variances_D[-1] > 0:
        return None
    whiten_DD = axes_DD / np.sqrt(np.maximum(variances_D, SMALLEST_EIGENVALUE * variances_D[-1]))
    relative_D = np.linalg.eigvalsh(whiten_DD.T @ codes.covariance_DD @ whiten_DD)
    relative_D = np.maximum(relative_D, SMALLEST_EIGENVALUE)
    shift_D = whiten_DD.T @ (codes.mean_D - prior.mean_D)
    return float(0.5 * (np.sum(relative_D - 1 - np.log(relative_D)) + shift_D @ shift_D))


def spectrum(z_ND: Tensor) -> NDArray[np.float64]:
    """Eigenvalues of the codes' covariance, descending, shape (D,); of N(0, I) all are 1."""
    ascending_D = np.linalg.eigvalsh(Gaussian.fit(z_ND).covariance_DD)
    eigenvalues_D: NDArray[np.float64] = np.maximum(ascending_D[::-1], 0.0).astype(np.float64)
    return eigenvalues_D


def spectrum_summary(eigenvalues_D: NDArray[np.float64]) -> dict[str, float]:
    return {
        "largest": float(eigenvalues_D[0]),
        "median": float(np.median(eigenvalues_D)),
        "smallest": float(eigenvalues_D[-1]),
    }


def _distances(
    z_ND: Tensor, drawn_ND: Tensor, fresh_ND: Tensor, fitted: Callable[[], Gaussian]
) -> dict[str, float | None]:
    """The three distances of codes to a prior, and their floors.

    ``drawn`` and ``fresh`` are draws of the prior, as many as codes; ``fitted`` gives its Gaussian. Without more
    codes than latent units their covariance is singular whatever they are, and there is no KL; for fewer than two
    codes there is nothing.
    """
    n, dim = z_ND.shape
    if n < 2:
        return dict.fromkeys(_NAMES)
    prior = fitted() if n > dim else None
    drawn_LN = _sorted_projections(drawn_ND)
    return {
        "mmd": mmd_squared(z_ND, drawn_ND),
        "mmd_floor": mmd_squared(fresh_ND, drawn_ND),
        "sw2": _paired(_sorted_projections(z_ND), drawn_LN),
        "sw2_floor": _paired(_sorted_projections(fresh_ND), drawn_LN),
        "kl": gaussian_kl(Gaussian.fit(z_ND), prior) if prior else None,
        "kl_floor": gaussian_kl(Gaussian.fit(fresh_ND), prior) if prior else None,
    }


def normal_distances(z_ND: Tensor, *, seed: int) -> dict[str, float | None]:
    """``mmd``, ``sw2``, ``kl`` of codes to N(0, I) and, with ``_floor``, of as many draws of it."""
    generator = torch.Generator().manual_seed(derive(seed, "evaluation", "normal"))
    drawn_ND, fresh_ND = (torch.randn(z_ND.shape, generator=generator).to(z_ND) for _ in range(2))
    return _distances(z_ND, drawn_ND, fresh_ND, lambda: Gaussian.standard(z_ND.shape[1]))


def prior_distances(model: Model, z_ND: Tensor, *, seed: int) -> dict[str, float | None] | None:
    """``mmd``, ``sw2``, ``kl`` of codes to the method's own prior, and floors; ``None`` where it has none.

    A density that was fitted to the codes after the training is none: anything is near to what was fitted to it.
    The prior's Gaussian is fitted to four draws per code, at most 20,000.
    """
    with evaluating(model, seed=seed, purpose=("prior",), sampling=True):
        if model.regularizer.ex_post or model.regularizer.sample(2) is None:
            return None

        def draw(n: int) -> Tensor:
            return check_codes(model, model.regularizer.sample(n), n)

        n = len(z_ND)
        return _distances(z_ND, draw(n), draw(n), lambda: Gaussian.fit(draw(_fit_draws(n))))


def _fit_draws(codes: int) -> int:
    return min(FIT_DRAWS * codes, MOST_FIT_DRAWS)


def cluster_distances(model: Model, z_ND: Tensor, *, seed: int) -> dict[str, Any] | None:
    """Distances of each cluster's codes to that cluster's prior; ``None`` for methods without one, or with one that is
    only fitted to the codes afterwards.

    ``per_prototype`` has a list of K for ``mmd``, ``sw2`` (``None`` for clusters of fewer than two codes) and
    ``kl`` (``None`` for those of at most D codes). ``mmd`` and ``sw2`` are the means of the lists weighted by
    cluster size; ``kl`` is that of the pooled residuals, codes minus their cluster's centre, to those of the prior.
    Each of the three has its floor. Raises ``PluginError`` for codes of the wrong shape.
    """
    with evaluating(model, seed=seed, purpose=("cluster prior",), sampling=True):
        method = model.regularizer
        assigned_N = method.assign(z_ND)
        if method.ex_post or assigned_N is None or method.sample_cluster(assigned_N) is None:
            return None
        prototypes = method.prototypes()
        count = int(assigned_N.max()) + 1 if prototypes is None else len(prototypes)
        draws = _ClusterDraws(model)
        drawn_ND, fresh_ND = draws(assigned_N), draws(assigned_N)
        rows = []
        for cluster in range(count):
            mine_N = assigned_N == cluster
            rows.append(_one_cluster(z_ND[mine_N], drawn_ND[mine_N], fresh_ND[mine_N], cluster, draws))
        sizes_K = torch.bincount(assigned_N, minlength=count).cpu().numpy()
        means = {
            name: _weighted([row[name] for row in rows], sizes_K)
            for name in ("mmd", "mmd_floor", "sw2", "sw2_floor")
        }
        lists = {name: [row[name] for row in rows] for name in ("mmd", "sw2", "kl")}
        return {**means, **_pooled(z_ND, fresh_ND, assigned_N, draws), "per_prototype": lists}


class _ClusterDraws:
    """Draws from the priors of clusters, their shape checked."""

    def __init__(self, model: Model) -> None:
        self.model = model

    def __call__(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        z_ND = self.model.regularizer.sample_cluster(k_N, scale)
        if z_ND is None:
            raise PluginError(
                f"regularizer {self.model.regularizer.name!r}: sample_cluster returned None for some clusters only",
                hint="return codes for every cluster, or None for all",
            )
        return check_codes(self.model, z_ND, len(k_N), "sample_cluster of {n} clusters")


def _one_cluster(
    z_ND: Tensor, drawn_ND: Tensor, fresh_ND: Tensor, cluster: int, draws: _ClusterDraws
) -> dict[str, float | None]:
    def fitted() -> Gaussian:
        many_M = torch.full((_fit_draws(len(z_ND)),), cluster, device=z_ND.device)
        return Gaussian.fit(draws(many_M))

    return _distances(z_ND, drawn_ND, fresh_ND, fitted)


def _pooled(
    z_ND: Tensor, fresh_ND: Tensor, assigned_N: Tensor, draws: _ClusterDraws
) -> dict[str, float | None]:
    n, dim = z_ND.shape
    if n <= dim:
        return {"kl": None, "kl_floor": None}
    centres_ND = draws(assigned_N, 0.0)
    many_M = assigned_N.repeat(FIT_DRAWS)[: _fit_draws(n)]
    prior = Gaussian.fit(draws(many_M) - draws(many_M, 0.0))
    return {
        "kl": gaussian_kl(Gaussian.fit(z_ND - centres_ND), prior),
        "kl_floor": gaussian_kl(Gaussian.fit(fresh_ND - centres_ND), prior),
    }


def _weighted(values: list[float | None], sizes_K: NDArray[np.int64]) -> float | None:
    known = [(value, int(size)) for value, size in zip(values, sizes_K, strict=True) if value is not None]
    total = sum(size for _, size in known)
    return sum(value * size for value, size in known) / total if known else None
