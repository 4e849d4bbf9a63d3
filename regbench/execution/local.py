"""Running cells one after another in this process."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from regbench.assess import CellData
from regbench.cell import Outcome, run_cell
from regbench.data.split import prepare
from regbench.evaluation.anchors import compute_anchors
from regbench.evaluation.metric import Metric
from regbench.execution.events import CellFinished, CellStarted, Listener
from regbench.execution.interrupt import Stop
from regbench.execution.planning import PlannedCell
from regbench.plugins import Registry
from regbench.store.records import Run
from regbench.store.writer import RunWriter


class LocalExecutor:
    """Runs the cells of one suite in order. A cell that fails does not stop the others."""

    def __init__(
        self,
        writer: RunWriter,
        registry: Registry,
        metrics: list[Metric],
        device: torch.device,
        data_root: Path,
        emit: Listener,
    ) -> None:
        self.writer = writer
        self.registry = registry
        self.metrics = metrics
        self.device = device
        self.data_root = data_root
        self.emit = emit
        self._held: tuple[Any, CellData] | None = None
        self._anchored: set[str] = set()

    def run(self, cells: Sequence[PlannedCell], run: Run) -> list[Outcome]:
        """Run ``cells``, which are all to do; ``run`` is their suite's directory as it stands."""
        outcomes = []
        for number, cell in enumerate(cells, 1):
            title = cell.spec.title
            self.emit(CellStarted(title, number, cell.spec.training["epochs"]))
            started = time.monotonic()
            outcome = Outcome("interrupted", "stopped by a signal", {})
            try:
                outcome = self._run_one(cell, run)
            except Stop:
                raise
            finally:
                elapsed = time.monotonic() - started
                self.emit(
                    CellFinished(title, number, outcome.status, outcome.reason, elapsed, outcome.metrics)
                )
            outcomes.append(outcome)
        return outcomes

    def _run_one(self, cell: PlannedCell, run: Run) -> Outcome:
        data = self._data(cell, run)
        return run_cell(
            cell.spec,
            data,
            self.metrics,
            self.registry,
            self.device,
            self.writer.cell(cell.slug),
            self.emit,
            replace=cell.replace,
            remeasure=cell.state == "remeasure",
        )

    def _data(self, cell: PlannedCell, run: Run) -> CellData:
        """The cell's data set on the device; the last one is kept, as a suite's cells come data set by data set."""
        spec = cell.spec
        subset = spec.training["train_subset"]
        wanted = (spec.dataset_name, spec.dataset_options, spec.train_images, spec.test_images, subset)
        if self._held is None or self._held[0] != wanted:
            self._held = None  # lets go of the old set before the new one comes
            dataset = _dataset(spec, self.registry)
            split = prepare(dataset.load(self.data_root), spec.train_images, spec.test_images)
            self._held = (wanted, CellData.on(self.device, split, subset))
        data = self._held[1]
        self._anchors(cell, run, data)
        return data

    def _anchors(self, cell: PlannedCell, run: Run, data: CellData) -> None:
        """Compute the data set's anchors once, and again where the data set or the latent size has changed."""
        spec = cell.spec
        basis = {**spec.key()["dataset"], "latent": spec.model["latent"]}
        known = run.anchors(spec.dataset)
        if known is not None and (known["basis"] == basis or spec.dataset in self._anchored):
            return
        anchors = compute_anchors(data.split.train, data.split.test, spec.model["latent"])
        self.writer.write_anchors(spec.dataset, {**anchors.as_dict(), "basis": basis})
        self._anchored.add(spec.dataset)


def _dataset(spec: Any, registry: Registry) -> Any:
    cls = registry.dataset(spec.dataset_name).cls
    return cls(cls.Options(**spec.dataset_options))
