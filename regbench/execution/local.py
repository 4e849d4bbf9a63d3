"""Running cells one after another in this process."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from regbench.assess import CellData
from regbench.cell import run_cell, step_flops
from regbench.data.split import prepare
from regbench.errors import DataError, RegbenchError
from regbench.evaluation.anchors import compute_anchors
from regbench.evaluation.classifier import VERSION, Classifier, shape_of, train_classifier
from regbench.evaluation.references import reference_numbers
from regbench.execution.events import CellFinished, CellStarted, Listener
from regbench.execution.interrupt import Stop, StopSignal
from regbench.execution.planning import PlannedCell
from regbench.modes import retained_memory, threads
from regbench.plugins import Registry
from regbench.store.records import Outcome, Run, classifier_file
from regbench.store.writer import RunWriter
from regbench.suite.cells import CellSpec, dataset_of
from regbench.training.launch import LaunchWishes


class LocalExecutor:
    """Runs the cells of one suite in order. A cell that fails does not stop the others."""

    def __init__(
        self,
        writer: RunWriter,
        registry: Registry,
        metrics: Sequence[str],
        device: torch.device,
        data_root: Path,
        emit: Listener,
        wishes: LaunchWishes | None = None,
    ) -> None:
        self.writer = writer
        self.registry = registry
        self.metrics = metrics
        self.device = device
        self.data_root = data_root
        self.emit = emit
        self.wishes = wishes or LaunchWishes()
        self.signal = StopSignal()
        if self.wishes.deterministic:
            # Before the first product of the process, which may be the classifier's: cuBLAS reads it then.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._held: tuple[Any, CellData] | None = None
        self._anchored: set[str] = set()

    def run(self, cells: Sequence[PlannedCell], run: Run, first: int = 1) -> dict[str, Outcome]:
        """Run ``cells``, which are all to do, and return their outcomes by id.

        ``run`` is their suite's directory as it stands; ``first`` is the first cell's number. Raises ``DataError`` or
        ``StoreError`` where nothing more can be done, ``Stop`` on a signal.
        """
        outcomes = {}
        for number, cell in enumerate(cells, first):
            self.signal.check()
            title = cell.spec.title
            self.emit(CellStarted(title, number, cell.spec.training["epochs"]))
            started = time.monotonic()
            try:
                outcome = self._run_one(cell, run)
            except Stop as stop:
                self._finished(cell, number, started, Outcome("interrupted", str(stop), {}))
                raise
            except RegbenchError as error:
                self._finished(cell, number, started, Outcome("failed", str(error), {}))
                raise
            self._finished(cell, number, started, outcome)
            outcomes[cell.id] = outcome
        return outcomes

    def _finished(self, cell: PlannedCell, number: int, started: float, outcome: Outcome) -> None:
        seconds = time.monotonic() - started
        title = cell.spec.title
        self.emit(CellFinished(title, number, outcome.status, outcome.reason, seconds, outcome.metrics))

    def _run_one(self, cell: PlannedCell, run: Run) -> Outcome:
        data = self._data(cell, run)
        with threads(self.device, step_flops(cell.spec)), retained_memory(self.device):
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
                wishes=self.wishes,
                signal=self.signal,
            )

    def _data(self, cell: PlannedCell, run: Run) -> CellData:
        """The cell's data set on the device; the last one is kept, as a suite's cells come data set by data set."""
        spec = cell.spec
        subset = spec.training["train_subset"]
        images = (spec.train_images, spec.test_images, spec.phase)
        wanted = (spec.dataset_name, spec.dataset_options, *images, subset)
        if self._held is None or self._held[0] != wanted:
            self._held = None  # lets go of the old set before the new one comes
            self._held = (wanted, self._load(spec, subset))
        self._anchors(cell, run, self._held[1])
        if self._held[1].classifier is None:
            self._held = (wanted, self._held[1].judged_by(self._classifier(cell, run, self._held[1])))
        return self._held[1]

    def _load(self, spec: CellSpec, train_subset: int) -> CellData:
        try:
            images = dataset_of(spec, self.registry).load(self.data_root)
            split = prepare(images, spec.train_images, spec.test_images)
            if spec.phase == "trial":
                split = replace(split, test=split.heldout, test_labels=split.heldout_labels)
            return CellData.on(self.device, split, train_subset)
        except RegbenchError:
            raise
        except Exception as error:  # a plugin's code, or no memory for the images
            raise DataError(
                f"data set {spec.dataset}: loading it failed: {type(error).__name__}: {error}",
                hint="regbench data check tries it by itself",
            ) from error

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

    def _classifier(self, cell: PlannedCell, run: Run, data: CellData) -> Classifier | None:
        """The data set's classifier: that of the run where its basis is the same, else one trained now.

        ``None`` for data sets without classes, and for the trials of tuning, whose test images are others.
        """
        spec = cell.spec
        if not data.split.classes or spec.phase == "trial":
            return None
        basis = {"dataset": spec.key()["dataset"], "version": VERSION}
        known = run.classifier(spec.dataset)
        if known is not None and known["basis"] == basis:
            weights = classifier_file(run.path, spec.dataset, "pt")
            content = weights.read_bytes() if weights.is_file() else b""
            if hashlib.sha256(content).hexdigest() == known["sha256"]:
                return Classifier.load(content, shape_of(data.split), self.device)
        classifier = train_classifier(data.split, self.device)
        facts = {**reference_numbers(classifier, data.split), "basis": basis}
        self.writer.write_classifier(spec.dataset, facts, classifier.weights)
        return classifier
