"""Reconstruction metrics of a model, one number per image.

Shape suffixes: N images, B batch, C channels, H height, W width, D latent units, M metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.data.batches import Batches
from regbench.errors import PluginError, RegbenchError
from regbench.evaluation.metric import Metric
from regbench.evaluation.metrics import MSE, SSIM
from regbench.evaluation.mode import evaluating
from regbench.evaluation.ssim import ssim_audit
from regbench.model import Model
from regbench.seeding import derive

AUDITED_IMAGES = 32
BATCH = 256


class NotFinite(RegbenchError):
    """A metric is NaN or infinite: the model has diverged, or the metric is not defined for its output."""


ImageSource = Tensor | Batches
"""Images: a uint8 tensor of shape (N, C, H, W) on the model's device, or batches, resident or streamed."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """Metrics of one model on one set of images."""

    per_image: dict[str, NDArray[np.float32]]
    """One array of shape (N,) per metric, in the order of the images."""
    ssim_audit: dict[str, Any] | None
    """``{"images", "largest_difference"}`` against scikit-image; ``None`` where SSIM was not asked for."""

    @property
    def means(self) -> dict[str, float]:
        """The result: each metric's mean over the images, in float64."""
        return {name: float(values.mean(dtype=np.float64)) for name, values in self.per_image.items()}


def batches_of(images: ImageSource, batch_size: int) -> Iterator[Tensor]:
    """All images in order, as float32 batches x_BCHW in [0, 1]; the last one may be smaller."""
    source = Batches(images, images.device, resident=True) if isinstance(images, Tensor) else images
    # No last batch of one image: a method's loss terms may need pairs (an unbiased MMD does).
    while batch_size > 2 and len(source) % batch_size == 1:
        batch_size -= 1
    return source.sequential(batch_size)


def evaluate_reconstruction(
    model: Model,
    images: ImageSource,
    metrics: Sequence[Metric],
    *,
    sampling: bool,
    seed: int,
    batch_size: int = BATCH,
    purpose: tuple[str | int, ...] = (),
) -> Evaluation:
    """Reconstruct ``images`` in float32 and compute ``metrics``; one transfer from the device, at the end.

    ``sampling`` false: at the mean code; true: at one sampled code per image, from the random stream of
    ``(seed, "evaluation", *purpose)``. Where SSIM is among the metrics, 32 random images are audited against
    scikit-image.

    Raises ``NotFinite`` where a value is NaN or infinite, :class:`regbench.evaluation.ssim.SSIMAuditFailed`
    where the audit fails, ``PluginError`` where a metric breaks its contract.
    """
    stream = (*purpose, "sampled" if sampling else "mean")
    ssim = next((row for row, metric in enumerate(metrics) if isinstance(metric, SSIM)), None)
    rng = np.random.default_rng(derive(seed, "evaluation", *stream, "audit"))
    size = AUDITED_IMAGES if ssim is not None else 0
    audited = np.sort(rng.choice(len(images), size=min(size, len(images)), replace=False))
    rows_MB: list[Tensor] = []
    pairs_2CHW: list[Tensor] = []
    with evaluating(model, seed=seed, purpose=stream, sampling=sampling):
        start = 0
        for x_BCHW in batches_of(images, batch_size):
            logits_BCHW = model.decode(model.encode(x_BCHW)).float()
            rows_MB.append(torch.stack([_per_image(metric, x_BCHW, logits_BCHW) for metric in metrics]))
            stop = start + len(x_BCHW)
            for index in (audited[(audited >= start) & (audited < stop)] - start).tolist():
                pairs_2CHW.append(torch.stack([x_BCHW[index], logits_BCHW[index].sigmoid()]))
            start = stop
        values_MN = torch.cat(rows_MB, 1).cpu().numpy()
    _require_finite(metrics, values_MN)
    audit = None
    if ssim is not None:
        x_NCHW, xhat_NCHW = torch.stack(pairs_2CHW, 1).cpu().numpy()
        audit = ssim_audit(x_NCHW, xhat_NCHW, values_MN[ssim, audited], AUDITED_IMAGES, rng)
    return Evaluation({metric.name: values_MN[row] for row, metric in enumerate(metrics)}, audit)


def quick_mse(model: Model, images: ImageSource, *, seed: int = 0, batch_size: int = BATCH) -> float:
    """Mean squared error at the mean code, for learning curves."""
    return evaluate_reconstruction(
        model, images, [MSE()], sampling=False, seed=seed, batch_size=batch_size, purpose=("curve",)
    ).means["mse"]


def reconstruct(
    model: Model, images: ImageSource, *, seed: int = 0, batch_size: int = BATCH
) -> NDArray[np.uint8]:
    """Reconstructions at the mean code as pictures: uint8 of shape (N, C, H, W)."""
    with evaluating(model, seed=seed, purpose=("reconstructions",), sampling=False):
        parts = [to_uint8(model.decode(model.encode(x_BCHW))) for x_BCHW in batches_of(images, batch_size)]
        return torch.cat(parts).cpu().numpy()


def decode_codes(model: Model, z_ND: Tensor, *, batch_size: int = BATCH) -> NDArray[np.uint8]:
    """Decode codes, e.g. prototypes, into pictures: uint8 of shape (N, C, H, W)."""
    with evaluating(model, seed=0, purpose=("decode",), sampling=False) as device:
        parts = [
            to_uint8(model.decode(z_BD)) for z_BD in torch.split(z_ND.detach().float().to(device), batch_size)
        ]
        return torch.cat(parts).cpu().numpy()


def to_uint8(logits_BCHW: Tensor) -> Tensor:
    """Logits -> pixel values 0..255, rounded."""
    return logits_BCHW.float().sigmoid().mul(255).round().to(torch.uint8).contiguous()


def _per_image(metric: Metric, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
    values_B: Any = metric.per_image(x_BCHW, logits_BCHW)  # a plugin may return anything
    if not isinstance(values_B, Tensor) or values_B.shape != x_BCHW.shape[:1]:
        found = f"shape {tuple(values_B.shape)}" if isinstance(values_B, Tensor) else type(values_B).__name__
        raise PluginError(
            f"metric {metric.name!r}: per_image returned {found}; "
            f"expected a tensor of shape ({len(x_BCHW)},), one value per image",
            hint="reduce over channels and pixels only, e.g. error.flatten(1).mean(1)",
        )
    return values_B.float()


def _require_finite(metrics: Sequence[Metric], values_MN: NDArray[np.float32]) -> None:
    for metric, values_N in zip(metrics, values_MN, strict=True):
        bad = int(np.count_nonzero(~np.isfinite(values_N)))
        if bad:
            raise NotFinite(
                f"{metric.label} is NaN or infinite on {bad} of {len(values_N)} images",
                hint="the model has diverged: lower the learning rate or the regularizer's weight",
            )
