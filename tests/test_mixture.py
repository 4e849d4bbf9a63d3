"""The density fitted to codes: against scikit-learn's own, and against the moments of a mixture in closed form.

Shape suffixes: N codes, D latent units, K components.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from regbench.mixture import CodeMixture


def two_heaps(n: int, dims: int = 3) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    z_ND = torch.randn(n, dims, generator=generator)
    z_ND[: n // 4] = 0.3 * z_ND[: n // 4] + 6.0
    return z_ND


def moments(mixture: CodeMixture) -> tuple[Tensor, Tensor]:
    """Mean and covariance of a Gaussian mixture (law of total covariance)."""
    mean_D = (mixture.shares_K[:, None] * mixture.means_KD).sum(0)
    apart_KD = mixture.means_KD - mean_D
    inner_KDD = mixture.factors_KDD @ mixture.factors_KDD.transpose(1, 2)
    outer_KDD = apart_KD[:, :, None] * apart_KD[:, None, :]
    return mean_D, (mixture.shares_K[:, None, None] * (inner_KDD + outer_KDD)).sum(0)


def test_before_it_is_fitted_it_is_a_standard_normal() -> None:
    mean_D, covariance_DD = moments(CodeMixture(4))
    torch.testing.assert_close(mean_D, torch.zeros(4))
    torch.testing.assert_close(covariance_DD, torch.eye(4))
    torch.manual_seed(0)
    assert CodeMixture(4).sample(7).shape == (7, 4)


def test_the_fit_finds_the_heaps_and_keeps_the_moments() -> None:
    z_ND = two_heaps(2000)
    mixture = CodeMixture(3, components=2)
    torch.manual_seed(0)
    mixture.fit(z_ND)
    order = mixture.means_KD[:, 0].argsort()
    torch.testing.assert_close(mixture.shares_K[order], torch.tensor([0.75, 0.25]), atol=0.02, rtol=0)
    mean_D, covariance_DD = moments(mixture)
    # Expectation maximisation keeps both moments of the data exactly, but for the ridge.
    torch.testing.assert_close(mean_D, z_ND.mean(0), atol=1e-4, rtol=0)
    torch.testing.assert_close(covariance_DD, torch.cov(z_ND.T, correction=0), atol=5e-3, rtol=1e-3)


def test_samples_have_the_moments_of_the_mixture() -> None:
    mixture = CodeMixture(3, components=2)
    torch.manual_seed(1)
    mixture.fit(two_heaps(500))
    drawn_ND = mixture.sample(200_000)
    mean_D, covariance_DD = moments(mixture)
    error_D = (covariance_DD.diagonal() / len(drawn_ND)).sqrt()
    assert ((drawn_ND.mean(0) - mean_D).abs() < 5 * error_D).all()
    torch.testing.assert_close(torch.cov(drawn_ND.T), covariance_DD, atol=0.1, rtol=0.02)


def test_codes_of_fewer_dimensions_and_few_codes() -> None:
    flat_ND = two_heaps(60, 2) @ torch.randn(2, 16, generator=torch.Generator().manual_seed(3))
    for z_ND in (flat_ND, flat_ND[:5], flat_ND[:1].repeat(3, 1)):
        mixture = CodeMixture(16)
        torch.manual_seed(0)
        mixture.fit(z_ND)
        drawn_ND = mixture.sample(100)
        assert drawn_ND.isfinite().all()
        assert float(mixture.shares_K.sum()) == pytest.approx(1.0)


def test_the_same_stream_gives_the_same_fit_and_fitting_again_begins_anew() -> None:
    fits = []
    for earlier in (False, True):
        mixture = CodeMixture(3)
        if earlier:
            mixture.fit(100 + two_heaps(50))
        torch.manual_seed(4)
        mixture.fit(two_heaps(9))
        fits.append(mixture)
    np.testing.assert_array_equal(fits[0].shares_K, fits[1].shares_K)
    used = fits[0].shares_K > 0
    np.testing.assert_array_equal(fits[0].means_KD[used], fits[1].means_KD[used])


def test_known_clusters_are_each_fitted_to_their_own_codes() -> None:
    z_ND, clusters_N = two_heaps(2000), (torch.arange(2000) < 500).long() * 2
    mixture = CodeMixture(3, components=4)
    mixture.fit(100 + two_heaps(50), torch.arange(50) % 4)
    mixture.fit(z_ND, clusters_N)
    torch.testing.assert_close(mixture.shares_K, torch.tensor([0.75, 0.0, 0.25, 0.0]))
    for k, members_ND in ((0, z_ND[500:]), (2, z_ND[:500]), (1, z_ND), (3, z_ND)):
        covariance_DD = mixture.factors_KDD[k] @ mixture.factors_KDD[k].T
        torch.testing.assert_close(mixture.means_KD[k], members_ND.mean(0))
        torch.testing.assert_close(covariance_DD, torch.cov(members_ND.T, correction=0), atol=2e-3, rtol=1e-3)


def test_a_cluster_of_one_code_and_of_one_dimension() -> None:
    mixture = CodeMixture(1, components=2)
    mixture.fit(torch.tensor([[0.0], [1.0], [5.0]]), torch.tensor([0, 0, 1]))
    drawn_ND = mixture.sample_cluster(torch.ones(50, dtype=torch.int64))
    assert (drawn_ND - 5).abs().max() < 0.2


def test_a_clusters_samples_have_its_moments_and_scale_multiplies_their_spread() -> None:
    mixture = CodeMixture(3, components=2)
    mixture.fit(two_heaps(500), (torch.arange(500) < 125).long())
    torch.manual_seed(1)
    drawn_ND = mixture.sample_cluster(torch.ones(100_000, dtype=torch.int64), scale=2.0)
    covariance_DD = mixture.factors_KDD[1] @ mixture.factors_KDD[1].T
    torch.testing.assert_close(drawn_ND.mean(0), mixture.means_KD[1], atol=0.02, rtol=0)
    torch.testing.assert_close(torch.cov(drawn_ND.T), 4 * covariance_DD, atol=0.01, rtol=0.03)
    centre_ND = mixture.sample_cluster(torch.tensor([1, 0]), scale=0.0)
    assert torch.equal(centre_ND, mixture.means_KD[[1, 0]])
