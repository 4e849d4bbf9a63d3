"""Every kind of cell of the reference comparison, for one regularized epoch on small files of the three formats.

Narrow nets in the ordinary tests; at full width, which takes minutes, with REGBENCH_FULL_WIDTH=1.
"""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

import regbench
from regbench.data.base import Sizes
from regbench.store.records import CellRecord
from tests.data import small

PAPER = Path(__file__).parents[2] / "suites" / "paper.toml"
FULL_WIDTH = os.environ.get("REGBENCH_FULL_WIDTH") == "1"
NARROW = """
[model]
latent = 8
features = 16
"""
SUITE = """
[suite]
name = "kinds"
extends = {paper}
seeds = 1

[training]
epochs = 1
warmup = 0
batch_size = {batch}
train_subset = 64
"""
DATASET = """
[[datasets]]
name = "{name}"
label = "{label}"
"""
LABELS = {"mnist": "MNIST", "cifar10": "CIFAR-10", "cifar100": "CIFAR-100"}
UPDATES = {
    "AE": {"reconstruction"},
    "AE, 3 steps": {"reconstruction", "reconstruction-2", "reconstruction-3"},
    "VAE-KL": {"loss"},
    "InfoVAE-MMD": {"loss"},
    "InfoVAE-MMD, deterministic": {"loss"},
    **{f"ProtoVAE K={k}": {"prototypes", "mmd", "reconstruction"} for k in (1, 2, 5, 10, 20, 30, 50)},
}
TERMS = {"VAE-KL": {"kl"}, "InfoVAE-MMD": {"mmd"}, "InfoVAE-MMD, deterministic": {"mmd"}}


@pytest.mark.timeout(3600)
def test_every_kind_runs_a_regularized_epoch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(small, "SIZES", Sizes(train=640, test=64) if FULL_WIDTH else Sizes(train=80, test=24))
    text = SUITE.format(paper=json.dumps(str(PAPER)), batch=256 if FULL_WIDTH else 32)
    text += "" if FULL_WIDTH else NARROW
    for name, label in LABELS.items():
        small.LAY_OUT[name](tmp_path / "data", monkeypatch)
        text += DATASET.format(name=name, label=label)
        if not FULL_WIDTH:
            text += f"model = {{ widths = {[2, 4] if name == 'mnist' else [2, 2, 4]} }}\n"
    (tmp_path / "kinds.toml").write_text(text)
    run = regbench.run(
        tmp_path / "kinds.toml", device="cpu", runs_dir=tmp_path / "runs", data_dir=tmp_path / "data"
    )
    assert {(cell.dataset, cell.method) for cell in run.cells} == {
        (d, m) for d in LABELS.values() for m in UPDATES
    }
    for cell in run.cells:
        _check(cell)


def _check(cell: CellRecord) -> None:
    assert cell.status == "done"
    if FULL_WIDTH:
        widths = [128, 256] if cell.dataset == "MNIST" else [64, 128, 256]
        assert (cell.key["model"]["widths"], cell.key["model"]["latent"]) == (widths, 256)
    (row,) = cell.history
    print(cell.dataset, cell.method, row["losses"], row["log_max"], f"{row['seconds']:.1f} s")
    assert row["phase"] == "regularized"
    assert set(row["losses"]) == UPDATES[cell.method]
    assert TERMS.get(cell.method, set()) <= set(row["log"])
    values = [*row["losses"].values(), *row["log"].values(), *row["log_max"].values()]
    assert all(math.isfinite(value) for value in values)
    if cell.method == "ProtoVAE K=1":
        assert row["losses"]["prototypes"] == 0
    if cell.method.startswith("ProtoVAE"):
        assert row["log_max"]["prototype_mass_deviation"] < 0.02
