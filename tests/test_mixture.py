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
