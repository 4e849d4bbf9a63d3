"""A suite with tuning that is small enough to run in a test, on a data set whose images can be exchanged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import regbench
from regbench.store.records import CellRecord, Run

SUITE = """
[suite]
name = "tuned"
seeds = {seeds}
metrics = ["mse", "psnr"]

[model]
latent = 4
features = 8
widths = [2]

[training]
epochs = 2
warmup = 1
batch_size = 16

[tuning]
trials = 3
metric = "{metric}"
{more}

[tuning.search]
{search}

[[datasets]]
name = "marked"
"""
LR = "lr = { low = 1e-4, high = 0.1 }"
AE = """
[[regularizers]]
name = "ae"
label = "AE"
"""
FRAIL = """
[[regularizers]]
name = "frail"
label = "frail"
search = { weight = { low = 0.1, high = 1 }, falls = { choices = [%s] } }
"""
FIXED = """
[[regularizers]]
name = "vae-kl"
label = "fixed"
training = { lr = 0.001 }
"""

PLUGIN = '''
import json
import os
from pathlib import Path

import numpy as np
import regbench


class Marked(regbench.Dataset):
    """100 training and 20 test images; the environment says which of them are others than usual."""

    name = "marked"

    @property
    def shape(self):
        return regbench.ImageShape(1, 8)

    def sizes(self, root):
        return regbench.Sizes(100, 20)

    def fingerprint(self, root):
        return "sha256:marked"

    def load(self, root):
        rng = np.random.RandomState(0)
        train = (rng.rand(100, 1, 8, 8) * 255).astype(np.uint8)
        test = (rng.rand(20, 1, 8, 8) * 255).astype(np.uint8)
        train[json.loads(os.environ.get("OTHER_TRAIN", "[]"))] = 255
        if os.environ.get("OTHER_TEST"):
            test[:] = 255
        labels = [np.arange(len(images), dtype=np.int64) % 2 for images in (train, test)]
        return regbench.Images(train, labels[0], test, labels[1], ("even", "odd"))


class Frail(regbench.Regularizer):
    """Raises in its first regularized step where it is asked to."""

    name = "frail"

    class Options(regbench.Options):
        weight: float = regbench.Field(0.5, ge=0, description="factor")
        falls: bool = regbench.Field(False, description="raise")

    def forward(self, code_BD, h_BF):
        if self.options.falls:
            raise RuntimeError("I fell")
        return code_BD, {"size": self.options.weight * code_BD.pow(2).sum(1).mean()}


@regbench.hookimpl
def regbench_datasets():
    return [Marked]


@regbench.hookimpl
def regbench_regularizers():
    return [Frail]
'''


def write(
    place: Path, methods: str, search: str = LR, seeds: int = 1, metric: str = "mse", more: str = ""
) -> None:
    text = SUITE.format(search=search, seeds=seeds, metric=metric, more=more) + methods
    (place / "tuned.toml").write_text(text)
    (place / "plugin.py").write_text(PLUGIN)


def arguments(place: Path) -> dict[str, Any]:
    return {"suite": place / "tuned.toml", "device": "cpu", "plugins": [place / "plugin.py"]}


def run(place: Path, methods: str = AE, *, events: list[Any] | None = None, **changes: Any) -> Run:
    wishes = {key: changes.pop(key) for key in ("force", "only") if key in changes}
    write(place, methods, **changes)
    listen = (events if events is not None else []).append
    return regbench.run(**arguments(place), listener=listen, **wishes)


def plan(place: Path, **wishes: Any) -> Any:
    return regbench.plan(**arguments(place), **wishes)


def started(events: Sequence[Any]) -> list[str]:
    return [event.cell for event in events if type(event).__name__ == "CellStarted"]


def study(finished: Run, method: str) -> list[dict[str, Any]]:
    studies = {entry["method"]: entry["trials"] for entry in finished.suite["tuning"]["studies"]}
    return list(studies[method])


def record(finished: Run, trial: dict[str, Any]) -> CellRecord:
    return CellRecord("", "", "", 0, {}, finished.path / "tuning" / "cells" / trial["cell"])
