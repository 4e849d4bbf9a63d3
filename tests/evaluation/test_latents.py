"""Diagnostics of codes against numpy, and codes made to have known answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from regbench.evaluation.evaluate import encode_features
from regbench.evaluation.latents import collapse_warnings, encode_images, latent_diagnostics
from tests.evaluation.models import Noisy, random_images, small_model


def test_codes_are_the_mean_codes_of_all_images_in_order() -> None:
    model, images = small_model(Noisy), random_images(30)
    model.regularizer.sampling = True
    codes = encode_images(model, images, batch_size=7)
    with torch.no_grad():
        expected = model.features(images.float() / 255)[0].numpy()
    assert codes.z_ND.dtype == np.float32
    np.testing.assert_allclose(codes.z_ND, expected, rtol=1e-5, atol=1e-6)
    assert model.regularizer.sampling is True
    known = encode_images(model, encode_features(model, images), batch_size=7)
    np.testing.assert_allclose(known.z_ND, codes.z_ND, rtol=1e-5, atol=1e-6)
    assert known.alive_features == codes.alive_features


def test_alive_features_are_those_that_differ_between_images() -> None:
    model, images = small_model(), random_images(30)
    with torch.no_grad():
        h_NF = model.net.encoder(images.float() / 255)
    alive = sum(len(set(column)) > 1 for column in h_NF.T.tolist())
    assert encode_images(model, images, batch_size=7).alive_features == alive
    with torch.no_grad():
        model.net.encoder.dense.weight[:5] = 0  # constant units, with and without the ReLU cutting them off
        model.net.encoder.dense.bias[:5] = torch.tensor([-1.0, -1.0, 0.0, 1.0, 1.0])
        model.net.encoder.dense.bias[5:] = 100.0
    assert encode_images(model, images, batch_size=7).alive_features == 7


def test_active_units_are_those_whose_variance_exceeds_a_hundredth() -> None:
    rng = np.random.default_rng(0)
    unit_ND = rng.standard_normal((500, 4))
    unit_ND /= unit_ND.std(0)
    z_ND = unit_ND * np.sqrt([0.0, 0.0099, 0.0101, 5.0]) + [3.0, 3.0, 3.0, 0.0]
    assert latent_diagnostics(z_ND.astype(np.float32))["active_units"] == 2


@pytest.mark.parametrize(("n", "d", "rank"), [(200, 16, 16), (200, 16, 5), (200, 16, 1), (10, 16, 9)])
def test_rank_is_numpys(n: int, d: int, rank: int) -> None:
    rng = np.random.default_rng(n + rank)
    z_ND = rng.standard_normal((n, min(rank, n))) @ rng.standard_normal(
        (min(rank, n), d)
    ) + rng.standard_normal(d)
    z_ND = z_ND.astype(np.float32)
    found = latent_diagnostics(z_ND)
    centred_ND = z_ND.astype(np.float64) - z_ND.astype(np.float64).mean(0)
    singular = np.linalg.svd(centred_ND, compute_uv=False)
    assert found["latent_rank"] == rank == np.sum(singular > 1e-4 * singular[0])
    share = singular / singular.sum()
    assert found["effective_rank"] == pytest.approx(np.exp(-np.sum(share * np.log(share))), rel=1e-3)
    assert 1 - 1e-9 <= found["effective_rank"] <= rank + 0.05


def test_effective_rank_of_equal_directions_is_their_number() -> None:
    eye = np.eye(8, dtype=np.float32)
    assert latent_diagnostics(np.concatenate([eye, -eye]))["effective_rank"] == pytest.approx(8)


def test_norms_are_euclidean() -> None:
    z_ND = np.array([[3, 4], [6, 8], [0, 0]], dtype=np.float32)
    found = latent_diagnostics(z_ND)
    assert found["z_norm_mean"] == pytest.approx(5)
    assert found["z_norm_max"] == pytest.approx(10)


def test_equal_codes_have_no_rank() -> None:
    found = latent_diagnostics(np.full((50, 4), 0.7, dtype=np.float32))
    assert (found["active_units"], found["latent_rank"]) == (0, 0)
    assert found["effective_rank"] == 0


HEALTHY = {"active_units": 20, "effective_rank": 15.0}


@pytest.mark.parametrize(
    ("changed", "mse", "sign"),
    [
        ({}, 0.066, "mean image"),
        ({}, float("nan"), "mean image"),
        ({"active_units": 0}, 0.01, "no latent unit is active"),
        ({"effective_rank": 1.4}, 0.01, "on a line"),
    ],
)
def test_each_sign_of_collapse_is_named(changed: dict[str, float], mse: float, sign: str) -> None:
    (found,) = collapse_warnings(HEALTHY | changed, mse=mse, mean_image_mse=0.0675)
    assert sign in found


def test_healthy_codes_raise_no_warning() -> None:
    assert collapse_warnings(HEALTHY, mse=0.06, mean_image_mse=0.0675) == []
