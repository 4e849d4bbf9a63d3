"""torch's global state, set aside and put back: random streams and float32 arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

WORTH_SHARING = 5e9
"""Operations of a training step from which on several CPU threads help."""


@contextmanager
def forked(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Random numbers drawn inside the block, on the CPU or any accelerator in use, leave no trace outside it.

    With ``seed`` the block's own streams start there. ``device`` is the one that the block works on.
    """
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    # All of them: torch.manual_seed reseeds every device that is in use, not only this one.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    if device.type == "cuda" and not devices:
        devices = [device.index or 0]
    with torch.random.fork_rng(devices=devices):
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


@contextmanager
def deterministic_convolutions() -> Iterator[None]:
    """cuDNN takes the same, deterministic kernel each time inside the block; elsewhere they are so anyway."""
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextmanager
def threads(device: torch.device, flops: float) -> Iterator[None]:
    """One CPU thread inside the block where a training step's ``flops`` are too few to be shared.

    Several threads then wait for each other longer than they work, ten times longer where another process is
    busy. It also makes the numbers of small nets independent of the number of cores.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and flops < WORTH_SHARING:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done all it was given; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
