"""Predicted costs: the arithmetic by a clock that only counts, and what is probed how often."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from regbench import estimate as module
from regbench.data.split import SplitSizes
from regbench.errors import PluginError
from regbench.estimate import Estimate, cells, datasets, estimate
from regbench.estimate.cells import Rates
from regbench.estimate.datasets import DatasetProbe
from regbench.estimate.noise import noise_split
from regbench.evaluation.classifier import training_steps
from regbench.nets import Encoder
from regbench.resolve import Plan, plan
from regbench.training.launch import LaunchWishes
from regbench.training.trainer import Trainer
from tests.execution.suites import AE, write_suite

RATES = Rates(
    setup=1.0,
    warmup_batch=0.1,
    regularized_batch=0.2,
    start=3.0,
    epoch_start=0.05,
    curve_point=0.5,
    assessment=7.0,
    memory=10**9,
)
TWICE = """
[[regularizers]]
name = "ae"
label = "AE, 2 steps"
options = { updates_per_batch = 2 }
"""


def resolved(folder: Path, methods: str = AE, **wishes: Any) -> Plan:
    suite = write_suite(folder, methods, seeds="2", epochs=5)
    return plan(suite, device="cpu", runs_dir=folder / "runs", **wishes)


def estimated(ready: Plan, states: Callable[[Any], Any] = lambda cell: cell) -> Estimate:
    planned = [states(cell) for cell in ready.cells]
    return estimate(
        planned,
        ready.registry,
        ready.device,
        ready.data_root,
        metrics=ready.suite.metrics,
        run_dir=ready.run_dir,
    )


def test_a_cell_costs_its_epochs_its_points_and_what_surrounds_them(tmp_path: Path) -> None:
    spec = resolved(tmp_path).cells[0].spec  # 5 epochs of 64 images in batches of 32, the first a warm-up
    cost = RATES.cost(spec, SplitSizes(64, 10, 40))
    assert cost.training == pytest.approx(2 * (1 * 0.1 + 4 * 0.2) + 4 * 0.05)
    assert cost.curves == pytest.approx(5 * 0.5)
    assert cost.seconds == pytest.approx(1 + 3 + 7 + cost.training + cost.curves)
    few = RATES.cost(replace(spec, curve_points=2), SplitSizes(64, 10, 40))
    assert few.curves == pytest.approx(2 * 0.5)  # the first, which is the warm-up's last, and the last
    again = RATES.cost(spec, SplitSizes(64, 10, 40), trains=False)
    assert (again.seconds, again.training, again.curves) == (7, 0, 0)


def test_seeds_share_a_probe_and_finished_cells_need_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    probed: Counter[str] = Counter()

    def measure(self: Any, spec: Any, split: SplitSizes) -> Rates:
        probed[spec.method] += 1
        return RATES

    monkeypatch.setattr(module._Work, "_measure", measure)
    monkeypatch.setattr(module._Work, "_first_time", lambda self, spec: 1.5)
    monkeypatch.setattr(
        DatasetProbe,
        "measure",
        lambda spec, split, device: DatasetProbe(loading=1.0, anchors=2.0, classifier=4.0),
    )
    ready = resolved(tmp_path, AE + TWICE)
    found = estimated(ready)
    assert probed == {"AE": 1, "AE, 2 steps": 1}
    assert len(found.cells) == 4
    assert found.once == 1.5
    assert found.datasets == {"digits": 7.0}
    again = estimated(ready, lambda cell: replace(cell, state="remeasure"))
    assert {cost.seconds for cost in again.cells.values()} == {RATES.assessment}
    nothing = estimated(ready, lambda cell: replace(cell, state="finished"))
    assert (nothing.cells, nothing.datasets, nothing.once) == ({}, {}, 0.0)


def test_compilation_is_paid_once_and_not_by_every_cell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = SimpleNamespace(now=0.0, compiled=False)
    monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def measure(self: Any, spec: Any, split: SplitSizes) -> Rates:
        clock.now += 3 if clock.compiled else 63
        clock.compiled = True
        return replace(RATES, setup=1.0 if clock.now > 63 else 61.0)

    monkeypatch.setattr(module._Work, "_measure", measure)
    monkeypatch.setattr(module._Work, "_first_time", lambda self, spec: 1.5)
    monkeypatch.setattr(module._Work, "dataset_seconds", lambda self, spec: 0.0)
    monkeypatch.setattr(module, "launch_of", lambda *arguments: SimpleNamespace(compile=True))
    found = estimated(resolved(tmp_path))
    assert found.once == 1.5 + 60
    expected = RATES.cost(resolved(tmp_path).cells[0].spec, SplitSizes(64, 143, 40)).seconds
    assert {cost.seconds for cost in found.cells.values()} == {expected}


def test_what_the_store_has_of_a_data_set_is_not_paid_for_again() -> None:
    probe = DatasetProbe(loading=1.0, anchors=2.0, classifier=4.0)
    assert (probe.seconds(judged=False), probe.seconds(judged=True)) == (7, 1)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock that moves by 10 ms per training image in an epoch and 5 ms per image that is evaluated;
    the first epoch of a phase takes 20 s more."""
    clock = SimpleNamespace(now=0.0, begun=set())
    monkeypatch.setattr(cells, "time", SimpleNamespace(perf_counter=lambda: clock.now))
    run_epoch, forward = Trainer.run_epoch, Encoder.forward

    def epoch(self: Trainer, number: int) -> dict[str, Any]:
        row = run_epoch(self, number)
        clock.now += 0.01 * self.images_per_epoch + (0 if row["phase"] in clock.begun else 20)
        clock.begun.add(row["phase"])
        return row

    def encode(self: Encoder, x_BCHW: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            clock.now += 0.005 * len(x_BCHW)
        return forward(self, x_BCHW)

    monkeypatch.setattr(Trainer, "run_epoch", epoch)
    monkeypatch.setattr(Encoder, "forward", encode)
    return clock


def test_what_is_measured_in_small_is_scaled_to_the_cell(
    tmp_path: Path, counting: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cells, "_CPU_RATE", 1.0)  # one batch is enough for an epoch
    ready = resolved(tmp_path)
    spec = replace(
        ready.cells[0].spec, training={**ready.cells[0].spec.training, "train_subset": 500, "epochs": 40}
    )
    split = SplitSizes(640, 64, 320)
    rates = cells.Probe(spec, split, ready.registry, ["mse"], torch.device("cpu"), LaunchWishes()).measure()
    assert rates.regularized_batch == pytest.approx(0.32)
    assert rates.warmup_batch == pytest.approx(0.32)
    assert rates.cost(spec, split).training == pytest.approx(20 * 40 * 0.32)
    # A point: 320 test images and 500 training images; rounding up to whole images is all that may differ.
    assert rates.curve_point == pytest.approx(0.005 * (320 + 500), rel=0.02)
    # At the end: the test images once, and the training images for the Gaussian and for the probe.
    assert rates.assessment == pytest.approx(0.005 * (320 + 2 * 640), rel=0.02)
    # Before: both phases' first epochs, and the rehearsal on 32 images.
    assert rates.setup == pytest.approx(2 * 20 + 0.005 * 3 * 32, rel=0.01)
    assert rates.memory > 1e8


def test_a_method_that_fails_while_it_is_timed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Trainer, number: int) -> dict[str, Any]:
        raise ZeroDivisionError("I fell")

    ready = resolved(tmp_path)
    monkeypatch.setattr(Trainer, "run_epoch", fail)
    with pytest.raises(PluginError, match="timing AE on digits failed: ZeroDivisionError: I fell") as caught:
        estimated(ready)
    assert caught.value.hint is not None
    assert "--no-probe" in caught.value.hint


def test_the_classifier_is_timed_on_some_steps_and_scaled_to_all(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = SimpleNamespace(now=0.0)
    monkeypatch.setattr(datasets, "time", SimpleNamespace(perf_counter=lambda: clock.now))

    def train(split: Any, device: object) -> None:
        epochs, each = training_steps(len(split.train))
        clock.now += 0.5 * epochs * each

    monkeypatch.setattr(datasets, "train_classifier", train)
    split = noise_split(SplitSizes(200, 1, 10), 1, 8)
    assert datasets._training(split, 20_000, torch.device("cpu")) == pytest.approx(0.5 * 12 * 312)


def test_a_method_that_diverges_on_noise_is_timed_all_the_same(tmp_path: Path) -> None:
    loud = '\n[[regularizers]]\nname = "vae-kl"\noptions = { weight = 1e308 }\n'
    ready = resolved(tmp_path, loud)
    (cost,) = {each.seconds for each in estimated(ready).cells.values()}
    assert cost > 0
