"""The one source of seeds: each purpose has a stream of its own, a pure function of the run's seed."""

from __future__ import annotations

import hashlib
import json


def derive(seed: int, *purpose: str | int) -> int:
    """A seed in [0, 2^63) for ``purpose``; different purposes, or seeds, give unrelated streams."""
    text = json.dumps([seed, *purpose], separators=(",", ":"))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1
