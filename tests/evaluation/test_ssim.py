"""SSIM against scikit-image, and the audit that compares the two in every cell."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from skimage.metrics import structural_similarity as reference

from regbench.errors import UsageError
from regbench.evaluation import ssim as module
from regbench.evaluation.ssim import SSIMAuditFailed, ssim_audit, structural_similarity

Pair = tuple[NDArray[np.float32], NDArray[np.float32]]


def expected(x_CHW: NDArray[np.float32], y_CHW: NDArray[np.float32]) -> float:
    """scikit-image in float64, called as the definition says."""
    x, y = (np.moveaxis(a.astype(np.float64), 0, -1) for a in (x_CHW, y_CHW))
    grey = x.shape[-1] == 1
    return float(
        reference(
            x[..., 0] if grey else x,
            y[..., 0] if grey else y,
            data_range=1.0,
            channel_axis=None if grey else -1,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
        )
    )


def pairs(channels: int, height: int, width: int) -> dict[str, Pair]:
    """Image pairs that strain SSIM in different ways."""
    rng = np.random.default_rng(channels * 1000 + height)
    shape = (channels, height, width)
    noise = rng.random(shape)
    halves = np.broadcast_to(np.arange(width) >= width // 2, shape).astype(np.float64)
    edge = np.ones(shape)
    edge[:, :2] = 0
    made = {
        "random": (noise, rng.random(shape)),
        "near identical": (noise, np.clip(noise + 1e-3 * rng.standard_normal(shape), 0, 1)),
        "identical": (noise, noise),
        "inverted": (noise, 1 - noise),
        "white and nearly white": (np.ones(shape), np.full(shape, 0.999)),
        "black and white": (np.zeros(shape), np.ones(shape)),
        "black and black": (np.zeros(shape), np.zeros(shape)),
        "halves": (halves, 0.99 * halves),
        "halves and noise": (halves, np.clip(halves + 2e-3 * rng.standard_normal(shape), 0, 1)),
        "grey halves": (0.6 + 0.3 * halves, 0.95 - 0.4 * halves + 1e-3 * noise),
        "bright edge": (edge, 0.97 * np.ones(shape)),
    }
    return {name: (x.astype(np.float32), y.astype(np.float32)) for name, (x, y) in made.items()}


SIZES = [
    (1, 11, 11),
    (3, 11, 11),
    (1, 16, 16),
    (3, 16, 16),
    (1, 28, 28),
    (3, 32, 32),
    (3, 64, 64),
    (2, 13, 20),
]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(None, 1e-6), (torch.float32, 5e-5)])
def test_ssim_is_scikit_images(
    size: tuple[int, int, int], dtype: torch.dtype | None, tolerance: float
) -> None:
    made = pairs(*size)
    x, y = (torch.from_numpy(np.stack([pair[i] for pair in made.values()])) for i in (0, 1))
    found = structural_similarity(x, y, dtype)
    assert found.shape == (len(made),)
    assert found.dtype == torch.float32
    for name, value in zip(made, found.tolist(), strict=True):
        assert value == pytest.approx(expected(*made[name]), abs=tolerance), name


def test_each_image_is_by_itself_whatever_the_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = torch.rand(7, 3, 16, 16), torch.rand(7, 3, 16, 16)
    whole = structural_similarity(x, y)
    monkeypatch.setattr(module, "_CHUNK_VALUES", {"cpu": 2 * 3 * 16 * 16})
    assert torch.equal(structural_similarity(x, y), whole)
    assert torch.equal(structural_similarity(x[4:5], y[4:5]), whole[4:5])


def test_memory_format_makes_no_difference() -> None:
    x, y = torch.rand(2, 3, 16, 16), torch.rand(2, 3, 16, 16)
    last = structural_similarity(x.to(memory_format=torch.channels_last), y)
    torch.testing.assert_close(last, structural_similarity(x, y), rtol=0, atol=1e-7)


@pytest.mark.parametrize("shape", [(2, 1, 10, 10), (2, 3, 11, 8)])
def test_images_below_the_window_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="at least 11 x 11 pixels") as caught:
        structural_similarity(torch.rand(shape), torch.rand(shape))
    assert caught.value.hint is not None


def test_shapes_must_agree() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        structural_similarity(torch.rand(2, 1, 16, 16), torch.rand(1, 1, 16, 16))


@pytest.fixture(params=[1, 3])
def evaluated(request: pytest.FixtureRequest) -> tuple[NDArray[np.float32], ...]:
    rng = np.random.default_rng(0)
    x = rng.random((40, request.param, 16, 16), dtype=np.float32)
    y = np.clip(x + 0.1 * rng.standard_normal(x.shape, dtype=np.float32), 0, 1)
    return x, y, structural_similarity(torch.from_numpy(x), torch.from_numpy(y)).numpy()


def test_the_audit_passes_right_values(evaluated: tuple[NDArray[np.float32], ...]) -> None:
    audit = ssim_audit(*evaluated, rng=np.random.default_rng(0))
    assert audit["images"] == 32
    assert 0 < audit["largest_difference"] < 1e-6
    assert ssim_audit(*evaluated, n=100)["images"] == 40


@pytest.mark.parametrize("wrong", [2e-4, -2e-4, float("nan")])
def test_the_audit_fails_on_one_wrong_value(evaluated: tuple[NDArray[np.float32], ...], wrong: float) -> None:
    x, y, values = evaluated
    values = values.copy()
    values[17] += wrong
    with pytest.raises(SSIMAuditFailed, match="scikit-image"):
        ssim_audit(x, y, values, n=40)


def test_the_audit_takes_a_random_sample(evaluated: tuple[NDArray[np.float32], ...]) -> None:
    x, y, values = evaluated
    values = values.copy()
    values[17] += 1

    def caught(seed: int) -> bool:
        try:
            ssim_audit(x, y, values, n=20, rng=np.random.default_rng(seed))
        except SSIMAuditFailed:
            return True
        return False

    assert 1 < sum(caught(seed) for seed in range(20)) < 19
