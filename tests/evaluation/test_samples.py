"""Samples from the prior, or from the Gaussian that stands in for it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from regbench.errors import PluginError
from regbench.evaluation.samples import FITTED, draw_samples, sample_fitted_gaussian
from tests.evaluation.models import Noisy, Plain, random_images, small_model


def test_a_method_with_a_prior_is_sampled_from_it() -> None:
    model, images = small_model(Noisy, channels=3), random_images(30, channels=3)
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    samples = draw_samples(model, images, n=10, seed=0)
    assert samples.source == "N(3, 4 I)"
    assert samples.images_NCHW.shape == (10, 3, 16, 16)
    assert samples.images_NCHW.dtype == np.uint8
    np.testing.assert_array_equal(draw_samples(model, images, n=10, seed=0).images_NCHW, samples.images_NCHW)
    assert (draw_samples(model, images, n=10, seed=1).images_NCHW != samples.images_NCHW).any()
    assert torch.equal(torch.rand(3), expected)


def test_samples_are_decoded_prior_codes() -> None:
    model = small_model(Noisy)
    drawn: list[Tensor] = []
    draw = model.regularizer.sample

    def recorded(n: int) -> Tensor | None:
        z_ND = draw(n)
        assert z_ND is not None
        drawn.append(z_ND)
        return z_ND

    model.regularizer.sample = recorded  # type: ignore[method-assign]
    samples = draw_samples(model, random_images(5), n=6, seed=0)
    with torch.no_grad():
        expected = model.decode(drawn[0]).sigmoid().mul(255).round().numpy()
    np.testing.assert_array_equal(samples.images_NCHW, expected)


def test_a_method_without_one_gets_a_fitted_gaussian_and_the_row_says_so() -> None:
    model, images = small_model(Plain), random_images(40)
    samples = draw_samples(model, images, n=8, seed=0, batch_size=9)
    assert samples.source == FITTED == "Gaussian fitted to the training codes"
    assert samples.images_NCHW.shape == (8, 1, 16, 16)
    np.testing.assert_array_equal(
        draw_samples(model, images, n=8, seed=0, batch_size=9).images_NCHW, samples.images_NCHW
    )
    assert (draw_samples(model, images, n=8, seed=1).images_NCHW != samples.images_NCHW).any()


def test_what_a_method_fitted_itself_is_named() -> None:
    class Fitted(Noisy):
        prior = ""
        ex_post = "mixture fitted to the codes"

    samples = draw_samples(small_model(Fitted), random_images(8), n=4, seed=0)
    assert samples.source == "mixture fitted to the codes"


def test_the_fitted_gaussian_has_the_codes_mean_and_full_covariance() -> None:
    rng = np.random.default_rng(0)
    z_ND = (rng.standard_normal((300, 3)) @ rng.standard_normal((3, 3)) + [5, -5, 0]).astype(np.float32)
    drawn = sample_fitted_gaussian(z_ND, 200_000, np.random.default_rng(1))
    scale = np.abs(np.cov(z_ND.T)).max()
    np.testing.assert_allclose(drawn.mean(0), z_ND.mean(0), atol=0.02 * scale)
    np.testing.assert_allclose(np.cov(drawn.T), np.cov(z_ND.T), atol=0.02 * scale)


def test_a_singular_covariance_keeps_its_directions() -> None:
    rng = np.random.default_rng(0)
    plane_2D = rng.standard_normal((2, 8))
    z_ND = (rng.standard_normal((5, 2)) @ plane_2D).astype(np.float32)
    drawn = sample_fitted_gaussian(z_ND, 100, rng)
    outside = drawn - drawn @ np.linalg.pinv(plane_2D) @ plane_2D
    assert np.isfinite(drawn).all()
    assert np.abs(outside).max() < 1e-4 * np.abs(drawn).max()


def test_one_latent_unit_is_enough() -> None:
    z_ND = np.array([[1.0], [3.0]], dtype=np.float32)
    assert sample_fitted_gaussian(z_ND, 4, np.random.default_rng(0)).shape == (4, 1)


def test_samples_of_the_wrong_shape_are_refused() -> None:
    class Wrong(Plain):
        def sample(self, n: int) -> Tensor | None:
            return torch.zeros(n, 3)

    with pytest.raises(PluginError, match=r"sample\(7\) returned shape \(7, 3\), expected \(7, 6\)"):
        draw_samples(small_model(Wrong), random_images(5), n=7, seed=0)
