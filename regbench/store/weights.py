"""Saved weights, compared bit for bit."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from typing import Any


def weights_difference(a: bytes, b: bytes) -> float | None:
    """Largest absolute difference between two ``weights.pt``: ``None`` where they are the same bits.

    Infinity where they have other tensors or shapes, or one holds a number that is not finite.

    The files themselves may differ where the numbers do not: torch's format changes between versions.
    """
    if a == b:
        return None
    import torch  # only here: the store is read without torch

    first, second = (_load(torch, content) for content in (a, b))
    if first.keys() != second.keys():
        return math.inf
    largest: float | None = None
    for name, x in first.items():
        y = second[name]
        if x.shape != y.shape or x.dtype != y.dtype:
            return math.inf
        if x.numpy().tobytes() == y.numpy().tobytes():
            continue
        size = float((x.double() - y.double()).abs().max())
        largest = max(largest or 0.0, size if math.isfinite(size) else math.inf)
    return largest


def _load(torch: Any, content: bytes) -> Mapping[str, Any]:
    state: Mapping[str, Any] = torch.load(io.BytesIO(content), weights_only=True, map_location="cpu")
    return state
