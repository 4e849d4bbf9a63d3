"""VQ-VAE as a latent regularizer for regbench."""

from __future__ import annotations

import regbench
from regbench_vq.vq_vae import VQVAE

__all__ = ["VQVAE", "regbench_regularizers"]


@regbench.hookimpl
def regbench_regularizers() -> list[type[regbench.Regularizer]]:
    return [VQVAE]
