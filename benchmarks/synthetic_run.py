"""A finished run of any size: one seed of a suite is trained, the other seeds are copies with numbers of their own.

Ids, keys, places and checksums are those that the suite's own plan says, so that regbench takes every cell for
finished: nothing here knows how a report reads a run. Arrays (pictures, codes) and weights are the trained cell's.

Shape suffixes: N images, C channels, H height, W width.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import regbench
from regbench.store.records import CellRecord, Run
from regbench.workflow import execute

SPREAD = 0.02
"""Standard deviation of the numbers over seeds, relative to them."""
VARIED = ("metrics", "diagnostics", "cost")
"""Parts of a result whose numbers differ from seed to seed."""
EVALUATIONS = 60
"""Epochs of a learning curve that are evaluated."""


@dataclass(frozen=True, slots=True)
class Made:
    """A data set that is made up: blobs, one place and colour per class, with noise."""

    label: str
    channels: int
    side: int
    classes: int

    def write(self, directory: Path, train: int, test: int) -> Path:
        """Write it as ``<label>.npz`` and return the file."""
        rng = np.random.default_rng(self.classes * self.side)
        splits = {"train": train, "test": test}
        arrays = {}
        for split, count in splits.items():
            labels_N = rng.integers(self.classes, size=count)
            arrays |= {split: self._images(labels_N, rng), f"{split}_labels": labels_N}
        file = directory / f"{self.label}.npz"
        np.savez(file, **arrays)
        return file

    def _images(self, labels_N: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.uint8]:
        """Shape (N, C, H, W)."""
        of_class = np.random.default_rng(self.side)
        middles = of_class.uniform(0.2, 0.8, (self.classes, 2))
        colours = of_class.uniform(0.4, 1.0, (self.classes, self.channels))
        places = (np.arange(self.side) + 0.5) / self.side
        middle = middles[labels_N] + rng.normal(0, 0.05, (len(labels_N), 2))
        width = rng.uniform(0.08, 0.25, (len(labels_N), 1))
        rows_NH = np.exp(-(((places - middle[:, :1]) / width) ** 2))
        columns_NW = np.exp(-(((places - middle[:, 1:]) / width) ** 2))
        blobs_NHW = rows_NH[:, :, None] * columns_NW[:, None, :]
        images_NCHW = colours[labels_N][:, :, None, None] * blobs_NHW[:, None]
        noisy_NCHW = images_NCHW + rng.normal(0, 0.03, images_NCHW.shape)
        return np.clip(255 * noisy_NCHW, 0, 255).astype(np.uint8)


def finished_run(
    trained: Path, suite: Path, runs: Path, *, link: bool = False, by_regularizer: bool = False
) -> Run:
    """Fill the run of ``suite`` below ``runs`` with copies of the cells of ``trained``, and open it.

    Args:
        trained: a finished run with a cell for every method and data set of the suite.
        suite: the same suite with more seeds, and any number of epochs.
        link: only results differ; all else is linked, histories keep the epochs they have. For planning.
        by_regularizer: a cell for every regularizer is enough; it stands for all its settings and data sets.
    """
    finished = Run.open(trained).cells
    templates = {(cell.dataset, cell.method): cell for cell in finished}
    of_regularizer = {cell.key["regularizer"]["name"]: cell for cell in finished}
    planned = regbench.plan(suite, device="cpu", runs_dir=runs)
    for cell in planned.cells:
        spec = cell.spec
        template = (
            of_regularizer[spec.regularizer] if by_regularizer else templates[spec.dataset, spec.method]
        )
        directory = planned.run_dir / "cells" / cell.slug
        _replicate(template, directory, spec.id, spec.key(), spec.training["epochs"], link=link)
    shutil.copytree(trained / "derived", planned.run_dir / "derived", dirs_exist_ok=True)
    ready = regbench.plan(suite, device="cpu", runs_dir=runs)
    if ready.todo:
        cell = ready.todo[0]
        raise RuntimeError(f"{len(ready.todo)} copies count as unfinished; {cell.spec.title}: {cell.why}")
    return execute(ready)  # nothing is left to run, and what a run says of itself is written


def _replicate(
    template: CellRecord, directory: Path, cell_id: str, key: Mapping[str, Any], epochs: int, *, link: bool
) -> None:
    rng = np.random.default_rng(int(cell_id[:16], 16))
    result = template.result
    varied = {part: vary(result[part], rng) for part in VARIED}
    attempt = next((template.directory / "attempts").iterdir())
    files = {"result.json": _json({**result, **varied, "id": cell_id})}
    if not link:
        warmup = key["training"]["warmup"]
        files["history.json"] = _json(stretch(template.history, epochs, warmup, rng))
    target = directory / "result"
    target.mkdir(parents=True)
    for name, content in files.items():
        (target / name).write_bytes(content)
    large = {path.name for path in template.result_dir.iterdir()} - {*files, "manifest.json"}
    for name in sorted(large):
        (os.link if link else shutil.copyfile)(template.result_dir / name, target / name)
    sums = json.loads((template.result_dir / "manifest.json").read_bytes())["sha256"]
    sums |= {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    (target / "manifest.json").write_bytes(_json({"sha256": sums}))
    (directory / "cell.json").write_bytes(_json(key))
    kept = directory / "attempts" / attempt.name
    kept.mkdir(parents=True)
    for name in ("attempt.json", "outcome.json"):
        shutil.copyfile(attempt / name, kept / name)
    (os.link if link else shutil.copyfile)(attempt / "metrics.jsonl", kept / "metrics.jsonl")


def vary(value: Any, rng: np.random.Generator) -> Any:
    """The same structure with every fraction a little larger or smaller; whole numbers and words stay."""
    if isinstance(value, float) and math.isfinite(value):
        return value * math.exp(SPREAD * rng.standard_normal())
    if isinstance(value, Mapping):
        return {name: vary(item, rng) for name, item in value.items()}
    if isinstance(value, list):
        return [vary(item, rng) for item in value]
    return value


def stretch(
    rows: Sequence[Mapping[str, Any]], epochs: int, warmup: int, rng: np.random.Generator
) -> list[dict[str, Any]]:
    """A history of so many epochs, evaluated at some of them, made of the rows of a shorter one."""
    evaluated = {round(epoch) for epoch in np.geomspace(1, epochs, min(epochs, EVALUATIONS))}
    phases = {phase: [row for row in rows if row["phase"] == phase] for phase in ("warmup", "regularized")}
    last = [row["evaluation"] for row in rows if "evaluation" in row][-1]
    stretched = []
    for epoch in range(1, epochs + 1):
        phase = "warmup" if epoch <= warmup else "regularized"
        own = phases[phase][epoch % len(phases[phase])]
        row = {name: value for name, value in own.items() if name not in ("epoch", "evaluation")}
        row = {"epoch": epoch, **vary(row, rng)}
        if epoch in evaluated:
            row["evaluation"] = vary(last, rng)
        stretched.append(row)
    return stretched


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()
