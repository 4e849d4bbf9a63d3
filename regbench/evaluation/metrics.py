"""The bundled metrics. Their definitions are part of every result; ``docs/metrics.md`` says more.

Only tensor methods are used, so that listing the metrics does not import torch.

Shape suffixes: B batch, C channels, H height, W width.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from regbench.evaluation.metric import Metric

if TYPE_CHECKING:
    from torch import Tensor

PSNR_CAP = 100.0
"""Largest PSNR of an image in dB: at MSE 0 it would be infinite, and with it the mean over images."""

SSIM_WINDOW = 11
"""Side of SSIM's Gaussian window in pixels."""


def _mse(x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
    return (logits_BCHW.sigmoid() - x_BCHW).square().flatten(1).mean(1)


class MSE(Metric):
    """Mean squared error per image, range [0, 1]."""

    name: ClassVar[str] = "mse"
    label: ClassVar[str] = "MSE"
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    definition: ClassVar[str] = (
        "mean squared error over an image's values (channels, height, width) on [0, 1], "
        "then the mean over test images"
    )

    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        return _mse(x_BCHW, logits_BCHW)


class PSNR(Metric):
    """Peak signal-to-noise ratio per image in dB, range [0, 100]."""

    name: ClassVar[str] = "psnr"
    label: ClassVar[str] = "PSNR (dB)"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    definition: ClassVar[str] = (
        f"10 log10(1/MSE) of each image in dB, at most {PSNR_CAP:.0f} dB, then the mean over test images"
    )

    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        smallest = 10.0 ** (-PSNR_CAP / 10)
        return -10.0 * _mse(x_BCHW, logits_BCHW).clamp(min=smallest).log10()


class SSIM(Metric):
    """Structural similarity per image, range [-1, 1] (Wang et al. 2004, doi:10.1109/TIP.2003.819861)."""

    name: ClassVar[str] = "ssim"
    label: ClassVar[str] = "SSIM"
    better: ClassVar[Literal["lower", "higher"]] = "higher"
    definition: ClassVar[str] = (
        "structural similarity (Wang et al. 2004) of each image as scikit-image computes it: Gaussian window "
        "of sigma 1.5 over 11 x 11 pixels, data range 1, population covariance, mean over channels and over "
        "the pixels whose window lies inside the image; then the mean over test images"
    )
    minimum_side: ClassVar[int] = SSIM_WINDOW

    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        from regbench.evaluation.ssim import structural_similarity

        return structural_similarity(x_BCHW, logits_BCHW.sigmoid())


class BCEExcess(Metric):
    """Excess binary cross-entropy per image in nats, range [0, inf).

    The binary cross-entropy of a grey pixel is never below the pixel's own entropy H(x); what exceeds it is
    the Kullback-Leibler divergence from Bernoulli(x) to Bernoulli(reconstruction), summed over the image.
    """

    name: ClassVar[str] = "bce_excess"
    label: ClassVar[str] = "BCE - H(x) (nats)"
    better: ClassVar[Literal["lower", "higher"]] = "lower"
    definition: ClassVar[str] = (
        "binary cross-entropy minus its floor, the pixels' own entropy H(x), in nats summed over an image's "
        "values, then the mean over test images"
    )

    def per_image(self, x_BCHW: Tensor, logits_BCHW: Tensor) -> Tensor:
        # softplus(l) - l x, written without the difference of two large numbers that are nearly equal.
        magnitude = logits_BCHW.abs()
        mistaken = (logits_BCHW > 0).to(x_BCHW.dtype) - x_BCHW
        bce = magnitude * mistaken.abs() + (-magnitude).exp().log1p()
        minus_entropy = x_BCHW.xlogy(x_BCHW) + (1 - x_BCHW).xlogy(1 - x_BCHW)
        # Per pixel before the sum: both sums are large. Rounding may leave a perfect image just below 0.
        return (bce + minus_entropy).flatten(1).sum(1).clamp(min=0)
