"""The formulas again, as plain loops in float64 that share no code with ``regbench.ops``."""

from __future__ import annotations

import math

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import logsumexp
from torch import Tensor

WAE_SCALES = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)


def gaussian(a_D: Tensor, b_D: Tensor, variance: float) -> Tensor:
    return torch.exp(-((a_D - b_D) ** 2).sum() / (2 * variance))


def multiquadratic(a_D: Tensor, b_D: Tensor) -> Tensor:
    square = ((a_D - b_D) ** 2).sum()
    constants = [2 * len(a_D) * scale for scale in WAE_SCALES]
    return sum((c / (c + square) for c in constants), start=torch.zeros((), dtype=a_D.dtype))


def mmd(x_ND: Tensor, y_MD: Tensor, k, *, biased: bool) -> Tensor:
    """Gretton et al. (2012), eq. 3 (U) or 5 (V), pair by pair."""
    total = torch.zeros((), dtype=x_ND.dtype)
    for sample in (x_ND, y_MD):
        n = len(sample)
        pairs = n * n if biased else n * (n - 1)
        for i in range(n):
            for j in range(n):
                if biased or i != j:
                    total = total + k(sample[i], sample[j]) / pairs
    for x_D in x_ND:
        for y_D in y_MD:
            total = total - 2 * k(x_D, y_D) / (len(x_ND) * len(y_MD))
    return total


def per_prototype_mmd(z_BD: Tensor, v_KD: Tensor, c_B: list[int], e_BD: Tensor, k, *, biased: bool) -> Tensor:
    """Cluster by cluster: the MMD of its codes and as many draws around its prototype."""
    total = torch.zeros((), dtype=z_BD.dtype)
    for prototype in range(len(v_KD)):
        members = [i for i, c in enumerate(c_B) if c == prototype]
        if len(members) >= 2:
            total = total + mmd(z_BD[members], v_KD[prototype] + e_BD[members], k, biased=biased)
    return total


def sinkhorn(scores_BK: NDArray[np.float64], epsilon: float, iterations: int) -> NDArray[np.float64]:
    """Alternating potentials; the codes are exp(scores / epsilon + f + g)."""
    batch, count = scores_BK.shape
    logits = scores_BK.astype(np.float64) / epsilon
    f_B, g_K = np.zeros(batch), np.zeros(count)
    for _ in range(iterations):
        g_K = math.log(batch / count) - logsumexp(logits + f_B[:, None], axis=0)
        f_B = -logsumexp(logits + g_K[None, :], axis=1)
    codes: NDArray[np.float64] = np.exp(logits + f_B[:, None] + g_K[None, :])
    return codes


def equipartition(
    scores_BK: NDArray[np.float64], epsilon: float, iterations: int
) -> tuple[NDArray[np.float64], float]:
    """Falling widths, then rounding onto both marginals; the codes and the share of the batch that was rounded."""
    batch, count = scores_BK.shape
    scores = scores_BK.astype(np.float64)
    span, annealed = max(float(np.ptp(scores)), epsilon), iterations // 2
    g_K = np.zeros(count)
    for iteration in range(iterations):
        width = epsilon * (span / epsilon) ** (1 - iteration / annealed) if iteration < annealed else epsilon
        f_B = -width * logsumexp((scores + g_K) / width, axis=1)
        g_K = width * math.log(batch / count) - width * logsumexp((scores + f_B[:, None]) / width, axis=0)
    logits = (scores + g_K) / epsilon
    codes = np.exp(logits - logsumexp(logits, axis=1, keepdims=True))
    for k in range(count):
        codes[:, k] *= min(1.0, batch / count / codes[:, k].sum()) if codes[:, k].sum() > 0 else 1.0
    short_B, short_K = 1 - codes.sum(axis=1), batch / count - codes.sum(axis=0)
    moved = float(short_B.sum())
    return codes + (np.outer(short_B, short_K) / moved if moved > 0 else 0), moved / batch
