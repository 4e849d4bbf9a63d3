"""Which image sides the shared net can take, and how many blocks it then has."""

from __future__ import annotations

from regbench.nets import SMALLEST_MAP

DEFAULT_WIDTHS = (64, 128, 256)
"""For three blocks; fewer blocks take the last of them."""


def halvings(side: int) -> int:
    """How often a side can be halved: while it is even and above 4.

    >>> halvings(28), halvings(32), halvings(27)
    (2, 3, 0)
    """
    count = 0
    while side % 2 == 0 and side > SMALLEST_MAP:
        side //= 2
        count += 1
    return count


def resolve_widths(side: int, widths: tuple[int, ...] | None) -> tuple[int, ...]:
    """The net's widths for images of this side. Raises ``ValueError``, naming the nearest sides that work."""
    possible = halvings(side)
    blocks = max(1, min(possible, len(DEFAULT_WIDTHS))) if widths is None else len(widths)
    if possible < blocks:
        times = "once" if blocks == 1 else f"{blocks} times, once for each of the widths"
        fewer = f", or give at most {possible} widths" if widths is not None and possible > 0 else ""
        sides = " and ".join(str(near) for near in nearest_sides(side, blocks))
        raise ValueError(
            f"images of {side} x {side} pixels cannot be halved {times} (a side is halved while it is even "
            f"and above {SMALLEST_MAP}); the nearest sides that can: {sides}{fewer}"
        )
    return DEFAULT_WIDTHS[-blocks:] if widths is None else widths


def nearest_sides(side: int, blocks: int) -> list[int]:
    """The nearest sides, below and above, that can be halved so often.

    >>> nearest_sides(27, 2), nearest_sides(3, 1)
    ([24, 28], [6])
    """
    unit = 2**blocks
    smallest = unit * (SMALLEST_MAP // 2 + 1)
    below = side // unit * unit
    return [near for near in (below, below + unit) if near >= smallest] or [smallest]
