"""torch's global state, set aside and put back: random streams and float32 arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def forked(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Random numbers drawn inside the block, on the CPU or ``device``, leave no trace outside it.

    With ``seed`` the block's own streams start there.
    """
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        try:
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 (CUDA; cuDNN's default) and no bfloat16 (oneDNN) inside float32 products and convolutions."""
    backends: Any = torch.backends  # the types of some of these are missing
    places = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision
