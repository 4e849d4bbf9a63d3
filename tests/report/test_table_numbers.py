"""Numbers are written with the digits that their interval supports."""

from __future__ import annotations

import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from regbench.report.numbers import NOTHING, plain, signed, with_interval


@pytest.mark.parametrize(
    ("mean", "half", "text"),
    [
        (0.0421, 0.00134, "0.0421 ± 0.0013"),
        (0.00853, 0.00031, "0.00853 ± 0.00031"),
        (0.0085, 0.0108, "0.009 ± 0.011"),
        (29.788, 0.0999, "29.79 ± 0.10"),  # the half-width carries into the next place
        (5.0, 0.0999, "5.00 ± 0.10"),
        (1234.4, 21.3, "1234 ± 21"),
        (123456.0, 1234.0, "123500 ± 1200"),
        (1.2e7, 3e5, "(1.200 ± 0.030)e7"),
        (1e-6, 3e-7, "(1.00 ± 0.30)e−6"),
        (0.00004, 0.00001, "0.000040 ± 0.000010"),
        (-0.0004, 0.001, "−0.0004 ± 0.0010"),
        (-0.00001, 0.001, "0.0000 ± 0.0010"),  # no negative zero
        (0.0, 0.0, "0 ± 0"),
        (0.5, 0.0, "0.5000 ± 0"),
        (720.0, 0.0, "720 ± 0"),
    ],
)
def test_with_interval(mean: float, half: float, text: str) -> None:
    assert with_interval(mean, mean - half, mean + half) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.012345, "0.01235"),
        (0.99996, "1.000"),
        (24522.3, "24522"),
        (-7.8433, "−7.843"),
        (3.0, "3"),
        (0.0000012345, "1.234e−6"),
        (math.inf, "∞"),
        (-math.inf, "−∞"),
        (math.nan, NOTHING),
    ],
)
def test_plain(value: float, text: str) -> None:
    assert plain(value) == text


def test_without_an_interval_a_number_is_plain() -> None:
    assert with_interval(0.012345, None, None) == "0.01235"


def test_differences_show_their_sign() -> None:
    assert signed(0.0421, 0.0408, 0.0434) == "+0.0421 ± 0.0013"
    assert signed(-0.0421, -0.0434, -0.0408) == "−0.0421 ± 0.0013"
    assert signed(1e-6, 0.7e-6, 1.3e-6) == "(+1.00 ± 0.30)e−6"
    assert signed(0.0, 0.0, 0.0) == "0 ± 0"


def parse(text: str) -> tuple[float, float]:
    found = re.fullmatch(r"\(?(\S+) ± ([^)\s]+?)\)?(?:e(\S+))?", text.replace("−", "-"))
    assert found, text
    scale = 10.0 ** int(found[3] or 0)
    return float(found[1]) * scale, float(found[2]) * scale


@given(
    st.floats(-1e9, 1e9).filter(lambda x: x == 0 or abs(x) > 1e-9),
    st.floats(1e-9, 1e9),
)
def test_what_is_written_is_what_was_meant(mean: float, half: float) -> None:
    low, high = mean - half, mean + half
    if (high - low) / 2 <= abs(mean) * 1e-6:
        return  # written as a half-width of zero, or lost in the sum already
    shown_mean, shown_half = parse(with_interval(mean, low, high))
    width = (high - low) / 2
    # Two digits of the half-width: off by 5% at most, and the mean by half of its last place.
    assert shown_half == pytest.approx(width, rel=0.051)
    assert abs(shown_mean - mean) <= 0.051 * width
