"""MSE, PSNR and BCE - H(x) against float64 numpy, scipy and scikit-image."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.special import expit, logit, rel_entr
from skimage.metrics import peak_signal_noise_ratio

from regbench.evaluation.bundled import regbench_metrics
from regbench.evaluation.metrics import MSE, PSNR, SSIM, BCEExcess

SHAPES = [(5, 1, 16, 16), (3, 3, 28, 28), (1, 1, 1, 1)]


def pair(shape: tuple[int, ...], scale: float, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """8-bit images, exact blacks and whites among them, and logits of the given size."""
    rng = np.random.default_rng(seed)
    x = rng.choice([0, 0, 255, 255, *range(256)], size=shape).astype(np.float32) / np.float32(255)
    return torch.from_numpy(x), torch.from_numpy(rng.normal(0, scale, shape).astype(np.float32))


def float64(x: torch.Tensor, logits: torch.Tensor) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return x.numpy().astype(np.float64), logits.numpy().astype(np.float64)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
def test_mse_is_the_mean_squared_error_of_the_sigmoid(shape: tuple[int, ...], scale: float) -> None:
    x, logits = pair(shape, scale, 1)
    x64, logits64 = float64(x, logits)
    expected = ((expit(logits64) - x64) ** 2).reshape(shape[0], -1).mean(1)
    np.testing.assert_allclose(MSE().per_image(x, logits).numpy(), expected, rtol=2e-6, atol=1e-12)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0])
def test_psnr_is_scikit_images(shape: tuple[int, ...], scale: float) -> None:
    x, logits = pair(shape, scale, 2)
    x64, logits64 = float64(x, logits)
    expected = [
        peak_signal_noise_ratio(a, b, data_range=1.0) for a, b in zip(x64, expit(logits64), strict=True)
    ]
    np.testing.assert_allclose(PSNR().per_image(x, logits).numpy(), expected, rtol=1e-5, atol=1e-5)


def test_psnr_of_an_exact_reconstruction_is_its_cap_not_infinite() -> None:
    x = torch.tensor([0.0, 1.0, 1.0, 0.0]).reshape(1, 1, 2, 2)
    logits = torch.where(x > 0, 200.0, -200.0)
    assert PSNR().per_image(x, logits).tolist() == [100.0]
    assert "at most 100 dB" in PSNR.definition


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("scale", [0.1, 3.0, 50.0, 300.0])
def test_bce_excess_is_cross_entropy_minus_entropy(shape: tuple[int, ...], scale: float) -> None:
    x, logits = pair(shape, scale, 3)
    x64, logits64 = float64(x, logits)
    bce = x64 * np.logaddexp(0, -logits64) + (1 - x64) * np.logaddexp(0, logits64)
    entropy = rel_entr(x64, 1) + rel_entr(1 - x64, 1)  # x log x + (1 - x) log(1 - x)
    expected = (bce + entropy).reshape(shape[0], -1).sum(1)
    np.testing.assert_allclose(BCEExcess().per_image(x, logits).numpy(), expected, rtol=1e-5, atol=1e-4)


def test_bce_excess_is_the_kullback_leibler_divergence_of_the_pixels() -> None:
    x, logits = pair((4, 3, 16, 16), 2.0, 4)
    x64, logits64 = float64(x, logits)
    p64 = expit(logits64)
    expected = (rel_entr(x64, p64) + rel_entr(1 - x64, 1 - p64)).reshape(4, -1).sum(1)
    np.testing.assert_allclose(BCEExcess().per_image(x, logits).numpy(), expected, rtol=1e-5)


def test_bce_excess_of_the_best_reconstruction_is_zero_and_never_negative() -> None:
    x64 = np.linspace(0.002, 0.998, 28 * 28).reshape(1, 1, 28, 28)
    x, logits = torch.from_numpy(x64).float(), torch.from_numpy(logit(x64)).float()
    value = BCEExcess().per_image(x, logits).item()
    assert 0 <= value < 1e-4


def test_the_bundled_metrics_are_complete() -> None:
    metrics = regbench_metrics()
    assert {metric.name: metric.better for metric in metrics} == {
        "mse": "lower",
        "psnr": "higher",
        "ssim": "higher",
        "bce_excess": "lower",
    }
    assert all(metric.label and metric.definition.endswith("mean over test images") for metric in metrics)
    assert SSIM.minimum_side == 11
    assert MSE.minimum_side == 1


def test_listing_metrics_does_not_import_torch() -> None:
    code = (
        "import sys\n"
        "from regbench.evaluation.bundled import regbench_metrics\n"
        "assert regbench_metrics() and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
