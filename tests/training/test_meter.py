"""The meter against plain Python."""

from __future__ import annotations

import math

import pytest
import torch

from regbench.errors import PluginError
from regbench.training.meter import Meter


def batch(meter: Meter, value: float) -> None:
    meter.add("losses", {"a": torch.tensor(value)})
    meter.add("log", {"a": torch.tensor(2 * value, dtype=torch.bfloat16)})
    meter.maximum("log_max", {"b": torch.tensor(-value)})
    meter.end_batch()


def test_means_and_maxima_of_an_epoch_and_of_the_next() -> None:
    meter = Meter()
    assert meter.read() == {}
    for value in (1.0, 4.0, 2.5):
        batch(meter, value)
    assert meter.read() == {"losses": {"a": 2.5}, "log": {"a": 5.0}, "log_max": {"b": -1.0}}
    meter.reset()
    assert meter.read() == {}
    batch(meter, 3.0)
    assert meter.read() == {"losses": {"a": 3.0}, "log": {"a": 6.0}, "log_max": {"b": -3.0}}


def test_what_is_not_finite_stays_so() -> None:
    meter = Meter()
    for value in (1.0, math.nan, 2.0):
        batch(meter, value)
    read = meter.read()
    assert math.isnan(read["losses"]["a"])
    assert math.isnan(read["log_max"]["b"])


def test_means_alone() -> None:
    meter = Meter()
    meter.add("losses", {"a": torch.tensor(1.0)})
    meter.end_batch()
    assert meter.read() == {"losses": {"a": 1.0}}


def test_every_batch_records_the_same_names() -> None:
    meter = Meter()
    batch(meter, 1.0)
    meter.add("losses", {"a": torch.tensor(1.0)})
    with pytest.raises(PluginError, match=r"other names than in the first batch: a, b"):
        meter.end_batch()
