"""Reconstruction metrics of a model, one number per image.

Shape suffixes: N images, B batch, K kept images, C channels, H height, W width, D latent units, F features,
M metrics.
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
from regbench.nets import forward_flops
from regbench.seeding import derive

AUDITED_IMAGES = 32
BATCH = 256
"""Images at a time. Sampled codes depend on it, for noise is drawn batch by batch."""
_WIDE_BATCH = 64
_WIDE = 1e10
"""Operations of a batch of 256 from which smaller batches are faster on a CPU, whose cache they fit."""


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
    kept_KCHW: NDArray[np.uint8]
    """Reconstructions of the images that were to be kept, as pictures."""

    @property
    def means(self) -> dict[str, float]:
        """The result: each metric's mean over the images, in float64."""
        return {name: float(values.mean(dtype=np.float64)) for name, values in self.per_image.items()}


@dataclass(frozen=True, slots=True)
class Features:
    """What the shared encoder makes of a set of images, in order: all that later passes over them start from."""

    code_ND: Tensor
    h_NF: Tensor

    def __len__(self) -> int:
        return len(self.code_ND)

    def __getitem__(self, chosen: slice | Tensor) -> Features:
        return Features(self.code_ND[chosen], self.h_NF[chosen])


def encode_features(model: Model, images: ImageSource) -> Features:
    """Run the shared encoder over all images, once. No method's own layers are in it, and no noise."""
    with evaluating(model, seed=0, purpose=("features",), sampling=False):
        parts = [model.features(x_BCHW) for x_BCHW in batches_of(images, batch_of(model))]
        return Features(*(torch.cat(columns) for columns in zip(*parts, strict=True)))


def feature_batches(model: Model, source: ImageSource | Features, batch_size: int) -> Iterator[Features]:
    """The features of all images in order, batch by batch, computed now unless they are what is given."""
    if isinstance(source, Features):
        size = _whole(len(source), batch_size)
        for start in range(0, len(source), size):
            yield source[start : start + size]
        return
    for x_BCHW in batches_of(source, batch_size):
        yield Features(*model.features(x_BCHW))


def batch_of(model: Model) -> int:
    """How many images at a time are fastest where no noise depends on it."""
    wide = forward_flops(model.net.shape) * BATCH > _WIDE
    return _WIDE_BATCH if wide and model.progress.device.type == "cpu" else BATCH


def batches_of(images: ImageSource, batch_size: int) -> Iterator[Tensor]:
    """All images in order, as float32 batches x_BCHW in [0, 1]; the last one may be smaller."""
    source = Batches(images, images.device, resident=True) if isinstance(images, Tensor) else images
    return source.sequential(_whole(len(source), batch_size))


def _whole(count: int, batch_size: int) -> int:
    """A batch size near ``batch_size`` that leaves no last batch of one: loss terms may need pairs."""
    while batch_size > 2 and count % batch_size == 1:
        batch_size -= 1
    return batch_size


class _Chosen:
    """Some of the images, given by ascending positions; one copy to the device serves all batches."""

    def __init__(self, index_K: NDArray[np.int64], device: torch.device) -> None:
        self.index_K = index_K
        self._on_device_K = torch.from_numpy(index_K).to(device)

    def of(self, batch_BCHW: Tensor, start: int) -> Tensor:
        """Those of a batch whose first image is at ``start``."""
        first, last = np.searchsorted(self.index_K, (start, start + len(batch_BCHW)))
        return batch_BCHW.index_select(0, self._on_device_K[first:last] - start)


def evaluate_reconstruction(
    model: Model,
    images: ImageSource,
    metrics: Sequence[Metric],
    *,
    sampling: bool,
    seed: int,
    batch_size: int | None = None,
    purpose: tuple[str | int, ...] = (),
    features: Features | None = None,
    keep: NDArray[np.int64] | None = None,
) -> Evaluation:
    """Reconstruct ``images`` in float32 and compute ``metrics``; one transfer from the device, at the end.

    ``sampling`` false: at the mean code; true: at one sampled code per image, from the random stream of
    ``(seed, "evaluation", *purpose)``. ``features`` are those of the same images, where they are known; ``keep`` are
    ascending positions of images whose reconstructions are returned. Where SSIM is among the metrics, 32 random
    images are audited against scikit-image.

    Raises ``NotFinite`` where a value is NaN or infinite, :class:`regbench.evaluation.ssim.SSIMAuditFailed`
    where the audit fails, ``PluginError`` where a metric breaks its contract.
    """
    stream = (*purpose, "sampled" if sampling else "mean")
    ssim = next((row for row, metric in enumerate(metrics) if isinstance(metric, SSIM)), None)
    rng = np.random.default_rng(derive(seed, "evaluation", *stream, "audit"))
    size = AUDITED_IMAGES if ssim is not None else 0
    picked = np.sort(rng.choice(len(images), size=min(size, len(images)), replace=False))
    batch_size = batch_size or (BATCH if sampling else batch_of(model))
    rows_MB, pairs_2KCHW, kept_KCHW = [], [], []
    with evaluating(model, seed=seed, purpose=stream, sampling=sampling) as device:
        audited = _Chosen(picked, device)
        kept = _Chosen(np.empty(0, dtype=np.int64) if keep is None else keep, device)
        start = 0
        for x_BCHW in batches_of(images, batch_size):
            known = None if features is None else features[start : start + len(x_BCHW)]
            logits_BCHW = model.decode(_code(model, x_BCHW, known)).float()
            rows_MB.append(torch.stack([_per_image(metric, x_BCHW, logits_BCHW) for metric in metrics]))
            pairs_2KCHW.append(
                torch.stack([audited.of(x_BCHW, start), audited.of(logits_BCHW, start).sigmoid()])
            )
            kept_KCHW.append(to_uint8(kept.of(logits_BCHW, start)))
            start += len(x_BCHW)
        values_MN = torch.cat(rows_MB, 1).cpu().numpy()
    _require_finite(metrics, values_MN)
    audit = None
    if ssim is not None:
        x_NCHW, xhat_NCHW = torch.cat(pairs_2KCHW, 1).cpu().numpy()
        audit = ssim_audit(x_NCHW, xhat_NCHW, values_MN[ssim, picked], AUDITED_IMAGES, rng)
    per_image = {metric.name: values_MN[row] for row, metric in enumerate(metrics)}
    return Evaluation(per_image, audit, torch.cat(kept_KCHW).cpu().numpy())


def _code(model: Model, x_BCHW: Tensor, known: Features | None) -> Tensor:
    found = Features(*model.features(x_BCHW)) if known is None else known
    z_BD: Tensor = model.regularizer(found.code_ND, found.h_NF)[0]
    return z_BD


def quick_mse(
    model: Model,
    images: ImageSource,
    *,
    seed: int = 0,
    batch_size: int | None = None,
    features: Features | None = None,
) -> float:
    """Mean squared error at the mean code, for learning curves."""
    return evaluate_reconstruction(
        model,
        images,
        [MSE()],
        sampling=False,
        seed=seed,
        batch_size=batch_size,
        purpose=("curve",),
        features=features,
    ).means["mse"]


def decode_codes(model: Model, z_ND: Tensor, *, batch_size: int | None = None) -> NDArray[np.uint8]:
    """Decode codes, e.g. prototypes, into pictures: uint8 of shape (N, C, H, W)."""
    batch_size = batch_size or batch_of(model)
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
