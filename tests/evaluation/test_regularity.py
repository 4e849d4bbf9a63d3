"""Distances of codes to priors against loops, closed forms, and codes whose answer is known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal, kl_divergence

from regbench.api import Dims
from regbench.errors import PluginError
from regbench.evaluation.regularity import (
    Gaussian,
    cluster_distances,
    gaussian_kl,
    mmd_squared,
    normal_distances,
    prior_distances,
    sliced_wasserstein,
    spectrum,
    spectrum_summary,
)
from regbench.regularizers.ae import AE
from regbench.regularizers.infovae_mmd import InfoVAEMMD
from tests.evaluation.models import Plain, small_model


class Clustered(Plain):
    """Clusters at (0, 0, ...), (10, 10, ...), (20, 20, ...) of spread 1, 1, 3; a code goes to the nearest."""

    name = "clustered"
    prior = "one of three"

    def build(self, dims: Dims) -> None:
        self.centres_KD = 10.0 * torch.arange(3.0)[:, None].expand(3, dims.latent)
        self.spreads_K = torch.tensor([1.0, 1.0, 3.0])

    def prototypes(self) -> Tensor:
        return self.centres_KD

    def assign(self, z_BD: Tensor) -> Tensor:
        return torch.cdist(z_BD, self.centres_KD).argmin(1)

    def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
        centres_ND = self.centres_KD[k_N]
        return centres_ND + scale * self.spreads_K[k_N, None] * torch.randn_like(centres_ND)

    def sample(self, n: int) -> Tensor:
        return self.sample_cluster(torch.randint(3, (n,)))


def draws(n: int, d: int, seed: int = 0) -> Tensor:
    return torch.randn(n, d, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m", "d"), [(30, 20, 3), (7, 11, 16), (2, 2, 1)])
def test_mmd_is_the_loop_over_pairs(n: int, m: int, d: int) -> None:
    x, y = 2 * draws(n, d).double().numpy() + 1, draws(m, d, 1).double().numpy()

    def k(a: np.ndarray, b: np.ndarray) -> float:  # type: ignore[type-arg]
        square = float(((a - b) ** 2).sum())
        return sum(2 * d * s / (2 * d * s + square) for s in (0.1, 0.2, 0.5, 1, 2, 5, 10))

    xx = sum(k(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(k(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    xy = sum(k(a, b) for a in x for b in y) / (n * m)
    found = mmd_squared(torch.from_numpy(x).float(), torch.from_numpy(y).float())
    assert found == pytest.approx(xx + yy - 2 * xy, abs=2e-5)


def test_mmd_of_a_large_sample_is_that_of_a_choice_from_all_of_it() -> None:
    """Test images may be sorted by class: the first ones would be no fair choice."""
    sorted_ND = torch.cat([draws(3000, 2), draws(3000, 2, 1) + 20])
    shuffled_ND = sorted_ND[torch.randperm(6000, generator=torch.Generator().manual_seed(0))]
    assert mmd_squared(sorted_ND, shuffled_ND) < 0.01
    assert mmd_squared(draws(3000, 2), shuffled_ND) > 0.5


def test_sliced_wasserstein_of_a_translation_is_its_length_over_root_d() -> None:
    for d in (2, 16, 64):
        x_ND = draws(500, d)
        shift_D = draws(1, d, 1)[0]
        shift_D *= 3 / shift_D.norm()
        exact = 3 / math.sqrt(d)  # of all directions; 256 of them are drawn
        assert sliced_wasserstein(x_ND, x_ND + shift_D) == pytest.approx(exact, rel=0.15)
        assert sliced_wasserstein(x_ND, x_ND[torch.randperm(500)]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize(("mean", "spread"), [(0.0, 1.0), (2.0, 1.0), (0.0, 0.3), (-1.0, 2.0)])
def test_sliced_wasserstein_in_one_dimension_is_that_of_two_gaussians(mean: float, spread: float) -> None:
    """W2^2 of N(0, 1) and N(m, s^2) is m^2 + (1 - s)^2."""
    x_ND, y_ND = draws(10_000, 1), mean + spread * draws(10_000, 1, 1)
    exact = math.sqrt(mean**2 + (1 - spread) ** 2)
    assert sliced_wasserstein(x_ND, y_ND) == pytest.approx(exact, abs=0.05)


def test_sliced_wasserstein_needs_one_size() -> None:
    with pytest.raises(ValueError, match="one shape"):
        sliced_wasserstein(draws(3, 2), draws(4, 2))


def random_gaussian(d: int, seed: int) -> tuple[Gaussian, MultivariateNormal]:
    factor = draws(d, 2 * d, seed).double()
    mean, covariance = draws(1, d, seed + 1)[0].double(), factor @ factor.T / d
    return Gaussian(mean.numpy(), covariance.numpy()), MultivariateNormal(mean, covariance)


@pytest.mark.parametrize("d", [1, 3, 20])
def test_gaussian_kl_is_torchs(d: int) -> None:
    (p, p_torch), (q, q_torch) = random_gaussian(d, 1), random_gaussian(d, 7)
    assert gaussian_kl(p, q) == pytest.approx(float(kl_divergence(p_torch, q_torch)), rel=1e-8)
    assert gaussian_kl(p, p) == pytest.approx(0, abs=1e-9)


def test_an_unused_direction_costs_the_same_whatever_the_scale() -> None:
    cost = 0.5 * (1e-6 - 1 - math.log(1e-6))
    for scale in (1.0, 100.0):
        prior = Gaussian(np.zeros(4), scale * np.eye(4))
        flat = Gaussian(np.zeros(4), scale * np.diag([1.0, 1.0, 1.0, 0.0]))
        assert gaussian_kl(flat, prior) == pytest.approx(cost)
    assert gaussian_kl(Gaussian.standard(2), Gaussian(np.zeros(2), np.zeros((2, 2)))) is None


def test_a_fit_has_the_sample_moments() -> None:
    z_ND = draws(50, 4)
    fitted = Gaussian.fit(z_ND)
    np.testing.assert_allclose(fitted.mean_D, z_ND.mean(0), atol=1e-6)
    np.testing.assert_allclose(fitted.covariance_DD, np.cov(z_ND.T), atol=1e-6)
    assert not Gaussian.fit(z_ND[:1]).covariance_DD.any()


def test_the_spectrum_is_that_of_the_covariance() -> None:
    z_ND = draws(20_000, 5) * torch.tensor([3.0, 1.0, 1.0, 0.5, 0.0])
    found = spectrum(z_ND)
    np.testing.assert_allclose(found, [9, 1, 1, 0.25, 0], rtol=0.05, atol=1e-9)
    assert spectrum_summary(found) == {
        "largest": found[0],
        "median": found[2],
        "smallest": found[4],
    }
    assert (spectrum(draws(3, 8)) >= 0).all()


@pytest.mark.parametrize("d", [2, 32])
def test_a_perfect_sampler_is_at_the_floor_and_others_are_far_above(d: int) -> None:
    at_floor = normal_distances(draws(2000, d, 5), seed=0)
    for name in ("mmd", "sw2", "kl"):
        value, floor = at_floor[name], at_floor[f"{name}_floor"]
        assert value is not None
        assert floor is not None
        assert abs(value - floor) < (0.01 if name == "mmd" else floor), name
    for wrong_ND in (0.5 * draws(2000, d, 5), draws(2000, d, 5) + 1):
        found = normal_distances(wrong_ND, seed=0)
        assert found["mmd"] > 0.05  # type: ignore[operator]
        assert found["sw2"] > 3 * found["sw2_floor"]  # type: ignore[operator]
        assert found["kl"] > 10 * found["kl_floor"]  # type: ignore[operator]


def test_distances_to_the_prior_are_to_what_the_method_samples() -> None:
    class Elsewhere(Plain):
        def sample(self, n: int) -> Tensor | None:
            return 3 + 2 * torch.randn(n, self.dims.latent)

    model = small_model(Elsewhere)
    at_prior = prior_distances(model, 3 + 2 * draws(1500, 6), seed=0)
    at_origin = prior_distances(model, draws(1500, 6), seed=0)
    assert at_prior is not None
    assert at_origin is not None
    for name in ("mmd", "sw2", "kl"):
        assert at_prior[name] < at_origin[name] / 10  # type: ignore[operator]
    assert prior_distances(small_model(AE), draws(1500, 6), seed=0) is None
    assert prior_distances(model, draws(1500, 6), seed=0) == at_origin


def test_there_is_no_distance_to_what_was_fitted_to_the_codes() -> None:
    class Fitted(Clustered):
        ex_post = "Gaussian fitted to the codes"

        def sample(self, n: int) -> Tensor | None:
            return self.standard_normal(n)

    model = small_model(Fitted)
    assert model.regularizer.sample(3) is not None
    assert prior_distances(model, draws(90, 6), seed=0) is None
    assert cluster_distances(model, draws(90, 6), seed=0) is None
    assert cluster_distances(small_model(Clustered), draws(90, 6), seed=0) is not None


def test_a_regularizer_that_does_nothing_is_as_far_from_its_prior_as_the_autoencoder_from_n01() -> None:
    ae, infovae = small_model(AE), small_model(InfoVAEMMD)
    idle_ND = 0.1 * draws(800, 6)  # the codes of both, as no weight moves them
    own, plain = prior_distances(infovae, idle_ND, seed=0), normal_distances(idle_ND, seed=0)
    assert own is not None
    assert prior_distances(ae, idle_ND, seed=0) is None
    for name, near in (("mmd", 0.1), ("sw2", 0.1), ("kl", 0.2)):
        assert own[name] == pytest.approx(plain[name], rel=near)
        assert own[name] > 5 * max(own[f"{name}_floor"], 0)  # type: ignore[type-var,operator]


def test_too_few_codes_have_no_covariance_and_one_code_no_distance() -> None:
    few = normal_distances(draws(6, 6), seed=0)
    assert (few["kl"], few["kl_floor"]) == (None, None)
    assert few["sw2"] is not None
    assert set(normal_distances(draws(1, 6), seed=0).values()) == {None}


def per_cluster(change: Callable[[Tensor, Tensor], Tensor]) -> dict[str, object]:
    """Distances of 600 codes of clusters 0 and 1 and one of cluster 2, drawn from the prior and changed."""
    model = small_model(Clustered)
    k_N = torch.tensor([0] * 400 + [1] * 200 + [2])
    centres_ND = model.regularizer.centres_KD[k_N]  # type: ignore[union-attr,index]
    found = cluster_distances(model, change(centres_ND, draws(601, 6)), seed=0)  # type: ignore[arg-type]
    assert found is not None
    return found


def test_codes_drawn_from_their_clusters_priors_are_at_the_floor() -> None:
    found = per_cluster(lambda centres, noise: centres + noise)
    assert abs(found["mmd"] - found["mmd_floor"]) < 0.02  # type: ignore[operator]
    assert found["sw2"] < 2 * found["sw2_floor"]  # type: ignore[operator]
    assert found["kl"] < 3 * found["kl_floor"]  # type: ignore[operator]
    lists = found["per_prototype"]
    assert [len(values) for values in lists.values()] == [3, 3, 3]  # type: ignore[attr-defined]
    assert [lists[name][2] for name in ("mmd", "sw2", "kl")] == [None] * 3  # type: ignore[index]
    for name in ("mmd", "sw2"):
        first, second, _ = lists[name]  # type: ignore[index]
        assert found[name] == pytest.approx((400 * first + 200 * second) / 600)


def test_the_cluster_that_has_shrunk_is_the_one_that_is_far() -> None:
    def shrunk(centres: Tensor, noise: Tensor) -> Tensor:
        return centres + noise * torch.where(centres[:, :1] == 10, 0.1, 1.0)

    lists = per_cluster(shrunk)["per_prototype"]
    for name in ("mmd", "sw2", "kl"):
        first, second, _ = lists[name]  # type: ignore[index]
        assert second > 5 * first
    # 6 dimensions of spread 0.1: 3 (0.01 - 1 - ln 0.01) nats.
    assert lists["kl"][1] == pytest.approx(3 * (0.01 - 1 - math.log(0.01)), rel=0.1)  # type: ignore[index]


def test_pooled_residuals_are_relative_to_each_clusters_centre() -> None:
    found = per_cluster(lambda centres, noise: centres + 0.5 + noise)
    # The pooled prior is N(0, I) but for one draw in 600 of spread 3.
    assert found["kl"] == pytest.approx(6 * 0.5**2 / 2, rel=0.25)


def test_small_clusters_have_no_kl_and_methods_without_cluster_priors_nothing() -> None:
    model = small_model(Clustered)
    found = cluster_distances(model, draws(6, 6), seed=0)
    assert found is not None
    assert found["per_prototype"]["kl"] == [None] * 3
    assert found["per_prototype"]["sw2"][0] is not None
    assert (found["kl"], found["kl_floor"]) == (None, None)
    assert cluster_distances(small_model(Plain), draws(6, 6), seed=0) is None


def test_cluster_draws_of_the_wrong_shape_are_the_plugins_fault() -> None:
    class Wrong(Clustered):
        def sample_cluster(self, k_N: Tensor, scale: float = 1.0) -> Tensor:
            return torch.zeros(len(k_N), 3)

    with pytest.raises(PluginError, match=r"sample_cluster of 9 clusters returned shape \(9, 3\)"):
        cluster_distances(small_model(Wrong), draws(9, 6), seed=0)
