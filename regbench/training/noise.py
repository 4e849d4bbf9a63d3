"""The random streams that a training draws its noise from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch


def seed_noise(seed: int) -> None:
    """Start the streams of the CPU and of every accelerator in use."""
    torch.manual_seed(seed)


def noise_state(device: torch.device) -> dict[str, Any]:
    """Where the streams of the CPU and of ``device`` stand; tensors on the CPU."""
    own = None
    if device.type == "cuda":
        own = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        own = torch.mps.get_rng_state()
    return {"device": device.type, "cpu": torch.get_rng_state(), "own": own}


def restore_noise(state: Mapping[str, Any], device: torch.device, otherwise: int) -> None:
    """Go on with the streams of ``state``. On another kind of device they mean nothing: seed ``otherwise`` there."""
    if state["device"] != device.type:
        seed_noise(otherwise)
        return
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(state["own"], device)
    elif device.type == "mps":
        torch.mps.set_rng_state(state["own"])
