"""How far a simulated probability may be from the true one."""

from __future__ import annotations

import math

TRIALS = 2500


def margin_of_error(probability: float, trials: int) -> float:
    """Four standard errors of an estimated probability."""
    return 4 * math.sqrt(probability * (1 - probability) / trials)
