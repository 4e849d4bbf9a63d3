"""SSIM in batches on the device, and its audit against scikit-image.

Shape suffixes: N images, B batch, C channels, H height, W width; P, Q height and width of the cropped map.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.errors import RegbenchError, UsageError
from regbench.evaluation.metrics import SSIM_WINDOW

SIGMA = 1.5
C1, C2 = 0.01**2, 0.03**2
AUDIT_TOLERANCE = 1e-4
_CHUNK_VALUES = {"cpu": 1 << 17, "cuda": 1 << 22}
"""The intermediates in float64 stay in a CPU's cache; a GPU wants few large kernels."""


class SSIMAuditFailed(RegbenchError):
    """The device's SSIM differs from scikit-image's; the cell's numbers are not to be trusted."""


def structural_similarity(x_BCHW: Tensor, y_BCHW: Tensor, dtype: torch.dtype | None = None) -> Tensor:
    """SSIM of each pair of images in [0, 1], float32 of shape B (Wang et al. 2004, eq. 13).

    Equal to scikit-image's ``structural_similarity(x, y, data_range=1.0, channel_axis=-1,
    gaussian_weights=True, sigma=1.5, use_sample_covariance=False)``: the mean over channels and over the
    pixels whose 11 x 11 window lies inside the image.

    The variances are differences of nearly equal numbers, to be compared with C2 = 0.0009: in plain float32
    the result can be 1e-4 off. So images are shifted by their mean first, and the work is done in float64
    except on devices that have none (MPS). ``dtype`` overrides that choice.

    Raises ``UsageError`` where a side is below 11 pixels.
    """
    if x_BCHW.shape != y_BCHW.shape:
        raise ValueError(f"shapes differ: {tuple(x_BCHW.shape)} and {tuple(y_BCHW.shape)}")
    height, width = x_BCHW.shape[-2:]
    check_side(min(height, width))
    if dtype is None:
        dtype = torch.float32 if x_BCHW.device.type == "mps" else torch.float64
    rows_PH = _window_rows(height, dtype, x_BCHW.device)
    columns_WQ = _window_rows(width, dtype, x_BCHW.device).T
    chunk = _CHUNK_VALUES.get(x_BCHW.device.type, _CHUNK_VALUES["cpu"])
    images = max(1, chunk // x_BCHW[0].numel())
    parts = [
        _ssim(x.to(dtype), y.to(dtype), rows_PH, columns_WQ)
        for x, y in zip(torch.split(x_BCHW, images), torch.split(y_BCHW, images), strict=True)
    ]
    return torch.cat(parts).float()


def _ssim(x_BCHW: Tensor, y_BCHW: Tensor, rows_PH: Tensor, columns_WQ: Tensor) -> Tensor:
    def local_mean(a_BCHW: Tensor) -> Tensor:
        return rows_PH @ a_BCHW @ columns_WQ

    x_mean, y_mean = x_BCHW.mean((-2, -1), keepdim=True), y_BCHW.mean((-2, -1), keepdim=True)
    a_BCHW, b_BCHW = x_BCHW - x_mean, y_BCHW - y_mean
    ua_BCPQ, ub_BCPQ = local_mean(a_BCHW), local_mean(b_BCHW)
    ux_BCPQ, uy_BCPQ = ua_BCPQ + x_mean, ub_BCPQ + y_mean
    variances_BCPQ = local_mean(a_BCHW.square() + b_BCHW.square()) - ua_BCPQ.square() - ub_BCPQ.square()
    # var(x - y) instead of the covariance: small for a good reconstruction, and so are its rounding errors.
    residual_BCPQ = local_mean((a_BCHW - b_BCHW).square()) - (ua_BCPQ - ub_BCPQ).square()
    luminance_BCPQ = 1 - (ux_BCPQ - uy_BCPQ).square() / (ux_BCPQ.square() + uy_BCPQ.square() + C1)
    structure_BCPQ = 1 - residual_BCPQ / (variances_BCPQ + C2)
    return (luminance_BCPQ * structure_BCPQ).flatten(1).mean(1)


def check_side(side: int) -> None:
    """Raise ``UsageError`` where images of this side are too small for the window."""
    if side < SSIM_WINDOW:
        raise UsageError(
            f"SSIM needs images of at least {SSIM_WINDOW} x {SSIM_WINDOW} pixels (its Gaussian window); "
            f"these have a side of {side}",
            hint="leave ssim out of the suite's metrics, or use larger images",
        )


@lru_cache(maxsize=16)
def _window_rows(side: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """The 1-d Gaussian filter as a banded matrix of shape (side - 10, side): one row per window inside."""
    radius = SSIM_WINDOW // 2
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SIGMA) ** 2)
    weights /= weights.sum()
    rows = np.zeros((side - 2 * radius, side))
    for position in range(len(rows)):
        rows[position, position : position + SSIM_WINDOW] = weights
    return torch.from_numpy(rows).to(dtype).to(device)


def ssim_audit(
    x_NCHW: NDArray[np.float32],
    xhat_NCHW: NDArray[np.float32],
    values_N: NDArray[np.float32],
    n: int = 32,
    rng: np.random.Generator | None = None,
) -> dict[str, Any]:
    """Compare SSIM ``values_N`` with scikit-image's in float64, on ``n`` random images (all, where fewer).

    Returns ``{"images": int, "largest_difference": float}``; raises :class:`SSIMAuditFailed` where a
    difference exceeds 1e-4.
    """
    from skimage.metrics import structural_similarity as reference

    rng = np.random.default_rng() if rng is None else rng
    chosen = rng.choice(len(values_N), size=min(n, len(values_N)), replace=False)
    largest = 0.0
    for index in chosen:
        x, xhat = (np.moveaxis(a[index].astype(np.float64), 0, -1) for a in (x_NCHW, xhat_NCHW))
        grey = x.shape[-1] == 1
        expected: float = reference(  # type: ignore[no-untyped-call]
            x[..., 0] if grey else x,
            xhat[..., 0] if grey else xhat,
            data_range=1.0,
            channel_axis=None if grey else -1,
            gaussian_weights=True,
            sigma=SIGMA,
            use_sample_covariance=False,
        )
        difference = abs(float(values_N[index]) - float(expected))
        if not difference <= AUDIT_TOLERANCE:  # so that NaN fails as well
            raise SSIMAuditFailed(
                f"SSIM of an image is {float(values_N[index]):.6f} here and {float(expected):.6f} in "
                f"scikit-image; they may differ by {AUDIT_TOLERANCE:g}",
                hint="the device computes wrongly or in low precision: try --device cpu, and report it",
            )
        largest = max(largest, difference)
    return {"images": len(chosen), "largest_difference": largest}
