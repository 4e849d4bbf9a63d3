"""How a number is written: as many digits as its interval supports."""

from __future__ import annotations

import math

NOTHING = "—"
"""Stands where there is no number."""


def with_interval(mean: float, low: float | None, high: float | None) -> str:
    """``0.0421 ± 0.0013``: two significant digits of the half-width, and the mean to the same place.

    Without an interval, or with one of width zero, four significant digits.
    """
    if low is None or high is None or not math.isfinite(high - low):
        return plain(mean)
    half = (high - low) / 2
    if half <= abs(mean) * 1e-9:
        return f"{plain(mean)} ± 0"
    exponent = _exponent(max(abs(mean), half))
    shift = exponent if exponent < -5 or exponent > 5 else 0
    # Rounding may carry (0.0999 -> 0.10), so the place is taken from the rounded half-width.
    place = _exponent(float(f"{half / 10**shift:.1e}")) - 1
    decimals = max(0, -place)
    body = f"{_minus(mean / 10**shift, decimals, place)} ± {_minus(half / 10**shift, decimals, place)}"
    return f"({body})e{shift}".replace("e-", "e−") if shift else body


def signed(mean: float, low: float | None, high: float | None) -> str:
    """The same for a difference: with its sign, also where that is a plus."""
    text = with_interval(mean, low, high)
    if mean <= 0:
        return text
    return f"(+{text[1:]}" if text.startswith("(") else f"+{text}"


def plain(value: float, digits: int = 4) -> str:
    """``value`` with so many significant digits; whole numbers as they are."""
    if not math.isfinite(value):
        return {math.inf: "∞", -math.inf: "−∞"}.get(value, NOTHING)
    if value == int(value) and abs(value) < 1e9:
        return f"{int(value)}".replace("-", "−")
    exponent = _exponent(float(f"{value:.{digits - 1}e}"))
    if exponent < -5 or exponent > 8:
        mantissa, _, power = f"{value:.{digits - 1}e}".partition("e")
        return f"{mantissa}e{int(power)}".replace("-", "−")
    return f"{value:.{max(0, digits - 1 - exponent)}f}".replace("-", "−")


def _minus(value: float, decimals: int, place: int) -> str:
    """Fixed notation with a true minus sign, rounded to 10**place, and no negative zero."""
    rounded = round(value, -place)
    return f"{rounded + 0.0:.{decimals}f}".replace("-", "−")


def _exponent(value: float) -> int:
    return math.floor(math.log10(abs(value))) if value else 0
