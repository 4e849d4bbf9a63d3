"""Wasserstein autoencoders: their codes, as a whole, are drawn to N(0, I). One file is one method."""

from __future__ import annotations

import regbench
from regbench_wae.swae import SWAE
from regbench_wae.wae_gan import WAEGAN
from regbench_wae.wae_mmd import WAEMMD

__all__ = ["SWAE", "WAEGAN", "WAEMMD", "regbench_regularizers"]


@regbench.hookimpl
def regbench_regularizers() -> list[type[regbench.Regularizer]]:
    return [WAEMMD, WAEGAN, SWAE]
