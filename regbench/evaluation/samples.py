"""Images decoded from a method's prior, or from a Gaussian fitted to its codes where it has none.

Shape suffixes: N samples, C channels, H height, W width, D latent units.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.errors import PluginError
from regbench.evaluation.evaluate import ImageSource, decode_codes
from regbench.evaluation.latents import encode_images
from regbench.evaluation.mode import evaluating
from regbench.model import Model
from regbench.seeding import derive

FITTED = "Gaussian fitted to the training codes"
SAMPLES = 64


@dataclass(frozen=True, slots=True)
class Samples:
    """Decoded samples and where their codes came from."""

    images_NCHW: NDArray[np.uint8]
    source: str
    """In words, for the method's row: the prior, or the density fitted to the codes that stands in for it."""


def draw_samples(
    model: Model, training_images: ImageSource, *, n: int = SAMPLES, seed: int, batch_size: int | None = None
) -> Samples:
    """Decode ``n`` codes from ``regularizer.sample``.

    A method that has nothing to sample from (``sample`` returns ``None``) gets a Gaussian with the mean and the full
    covariance of the mean codes of ``training_images``, and ``source`` says so.
    """
    with evaluating(model, seed=seed, purpose=("samples",), sampling=True):
        z_ND = model.regularizer.sample(n)
    if z_ND is not None:
        check_codes(model, z_ND, n)
        source = model.regularizer.prior or model.regularizer.ex_post or "the method's own prior"
        return Samples(decode_codes(model, z_ND, batch_size=batch_size), source)
    codes = encode_images(model, training_images, seed=seed, batch_size=batch_size)
    rng = np.random.default_rng(derive(seed, "evaluation", "fitted gaussian"))
    drawn = torch.from_numpy(sample_fitted_gaussian(codes.z_ND, n, rng))
    return Samples(decode_codes(model, drawn, batch_size=batch_size), FITTED)


def sample_fitted_gaussian(
    z_ND: NDArray[np.float32], n: int, rng: np.random.Generator
) -> NDArray[np.float32]:
    """``n`` draws from the Gaussian with the mean and full covariance of ``z_ND``, which may be singular."""
    z_ND = np.asarray(z_ND, dtype=np.float64)
    mean_D = z_ND.mean(0)
    eigenvalues_D, vectors_DD = np.linalg.eigh(np.cov(z_ND, rowvar=False).reshape(z_ND.shape[1], -1))
    scales_D = np.sqrt(np.clip(eigenvalues_D, 0, None))
    noise_ND = rng.standard_normal((n, z_ND.shape[1]))
    drawn_ND: NDArray[np.float32] = (mean_D + (noise_ND * scales_D) @ vectors_DD.T).astype(np.float32)
    return drawn_ND


def check_codes(model: Model, z_ND: Tensor | None, n: int, call: str = "sample({n})") -> Tensor:
    """Codes that a plugin drew, as float32; raises ``PluginError`` unless they are of shape (n, D)."""
    expected = (n, model.regularizer.dims.latent)
    if z_ND is None or tuple(z_ND.shape) != expected:
        found = "None" if z_ND is None else f"shape {tuple(z_ND.shape)}"
        raise PluginError(
            f"regularizer {model.regularizer.name!r}: {call.format(n=n)} returned {found}, expected {expected}",
            hint="return one code of D latent units per sample, or None where the method has no prior",
        )
    return z_ND.float()
