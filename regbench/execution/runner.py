"""Running one cell in this process: its data set, its judge, its training. Serial runs and workers do the same."""

from __future__ import annotations

import hashlib
import os
import platform
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import filelock
import torch

from regbench.assess import CellData
from regbench.cell import out_of_memory, outcome_of, run_cell, step_flops
from regbench.data.split import prepare
from regbench.errors import DataError, RegbenchError
from regbench.evaluation.anchors import compute_anchors
from regbench.evaluation.classifier import VERSION, Classifier, shape_of, train_classifier
from regbench.evaluation.references import REFERENCES, reference_numbers
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import Listener
from regbench.execution.interrupt import StopSignal
from regbench.execution.planning import PlannedCell
from regbench.modes import retained_memory, threads
from regbench.plugins import Registry
from regbench.store.files import storage_errors
from regbench.store.records import Outcome, Run, classifier_file
from regbench.store.writer import CellWriter, RunWriter
from regbench.suite.cells import CellSpec, dataset_of
from regbench.training.launch import LaunchWishes
from regbench.training.precision import resolve_precision


@dataclass(frozen=True)
class How:
    """What was asked for besides the suite, for all cells of a run."""

    launch: LaunchWishes = field(default_factory=LaunchWishes)
    checkpoints: CheckpointPolicy | None = None
    engine: str = "local"


@dataclass(frozen=True)
class Task:
    """What is to be done with one cell."""

    spec: CellSpec
    writer: CellWriter
    replace: bool = False
    """A result is there; it is set aside once the new one is complete."""
    remeasure: bool = False
    """Evaluate the weights of that result, and train nothing."""
    fresh: bool = False
    """Start from the beginning, whatever checkpoints there are."""

    @classmethod
    def of(cls, cell: PlannedCell, writer: RunWriter) -> Task:
        """A planned cell, to be tried by this process itself."""
        own = writer.cell(cell.slug)
        return cls(cell.spec, own, cell.replace, cell.state == "remeasure", cell.forced)


class CellRunner:
    """Runs cells of one run directory, and keeps what they share: the data set, its judge."""

    def __init__(
        self,
        writer: RunWriter,
        registry: Registry,
        metrics: Sequence[str],
        device: torch.device,
        data_root: Path,
        how: How,
    ) -> None:
        self.writer = writer
        self.registry = registry
        self.metrics = metrics
        self.device = device
        self.data_root = data_root
        self.how = how
        if how.launch.deterministic:
            # Before the first product of the process, which may be the classifier's: cuBLAS reads it then.
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        self._held: tuple[Any, CellData] | None = None
        self._anchored: set[str] = set()

    def run(self, task: Task, emit: Listener, signal: StopSignal) -> Outcome:
        """Run a cell and return how it ended.

        Raises ``RegbenchError`` where it could not be begun or the disk failed, ``Stop`` where it was asked to.
        """
        resolve_precision(task.spec.training["precision"], self.device)  # planned elsewhere, perhaps
        try:
            data = self._data(task.spec)
        except Exception as error:
            if not out_of_memory(error):
                raise
            self.release()
            return never_begun(task, error, self.how.engine)
        with threads(self.device, step_flops(task.spec)), retained_memory(self.device):
            return run_cell(
                task.spec,
                data,
                self.metrics,
                self.registry,
                self.device,
                task.writer,
                emit,
                replace=task.replace,
                remeasure=task.remeasure,
                wishes=self.how.launch,
                signal=signal,
                checkpoints=self.how.checkpoints,
                fresh=task.fresh,
                engine=self.how.engine,
            )

    def release(self) -> None:
        """Let go of the data set and of the device's memory: for a cell that had too little."""
        self._held = None
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _data(self, spec: CellSpec) -> CellData:
        """The cell's data set on the device; the last one is kept, as a suite's cells come data set by data set."""
        subset = spec.training["train_subset"]
        images = (spec.train_images, spec.test_images, spec.phase)
        wanted = (spec.dataset_name, spec.dataset_options, *images, subset)
        if self._held is None or self._held[0] != wanted:
            self._held = None  # lets go of the old set before the new one comes
            self._held = (wanted, self._load(spec, subset))
        data = self._held[1]
        with self._alone(spec.dataset):
            self._anchors(spec, data)
            if data.classifier is None:
                data = data.judged_by(self._classifier(spec, data))
                self._held = (wanted, data)
        return data

    @contextmanager
    def _alone(self, dataset: str) -> Iterator[None]:
        """Held while a data set's anchors and classifier are looked for and made: once, whoever comes first."""
        file = self.writer.path / "derived" / f".{dataset}.lock"
        lock = filelock.FileLock(file)
        with storage_errors(file):
            file.parent.mkdir(parents=True, exist_ok=True)
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def _load(self, spec: CellSpec, train_subset: int) -> CellData:
        try:
            images = dataset_of(spec, self.registry).load(self.data_root)
            split = prepare(images, spec.train_images, spec.test_images)
            if spec.phase == "trial":
                split = replace(split, test=split.heldout, test_labels=split.heldout_labels)
            return CellData.on(self.device, split, train_subset)
        except RegbenchError:
            raise
        except Exception as error:  # a plugin's code
            if out_of_memory(error):
                raise
            raise DataError(
                f"data set {spec.dataset}: loading it failed: {type(error).__name__}: {error}",
                hint="regbench data check tries it by itself",
            ) from error

    @property
    def _home(self) -> Run:
        return Run(self.writer.path, {}, (), (), ())

    def _anchors(self, spec: CellSpec, data: CellData) -> None:
        """Compute the data set's anchors once, and again where the data set or the latent size has changed."""
        basis = {**spec.key()["dataset"], "latent": spec.model["latent"]}
        known = self._home.anchors(spec.dataset)
        if known is not None and (known["basis"] == basis or spec.dataset in self._anchored):
            return
        anchors = compute_anchors(data.split.train, data.split.test, spec.model["latent"])
        self.writer.write_anchors(spec.dataset, {**anchors.as_dict(), "basis": basis})
        self._anchored.add(spec.dataset)

    def _classifier(self, spec: CellSpec, data: CellData) -> Classifier | None:
        """The data set's classifier: that of the run where its basis is the same, else one trained now.

        ``None`` for data sets without classes, and for the trials of tuning, whose test images are others.
        """
        if not data.split.classes or spec.phase == "trial":
            return None
        basis = {"dataset": spec.key()["dataset"], "version": VERSION}
        known = self._home.classifier(spec.dataset)
        if known is not None and known["basis"] == basis:
            weights = classifier_file(self.writer.path, spec.dataset, "pt")
            content = weights.read_bytes() if weights.is_file() else b""
            if hashlib.sha256(content).hexdigest() == known["sha256"]:
                classifier = Classifier.load(content, shape_of(data.split), self.device)
                if known.get("references") != REFERENCES:
                    self._write_references(spec, data, classifier, basis)
                return classifier
        classifier = train_classifier(data.split, self.device)
        self._write_references(spec, data, classifier, basis)
        return classifier

    def _write_references(
        self, spec: CellSpec, data: CellData, classifier: Classifier, basis: Mapping[str, Any]
    ) -> None:
        facts = {**reference_numbers(classifier, data.split), "basis": basis}
        self.writer.write_classifier(spec.dataset, facts, classifier.weights)


def never_begun(task: Task, error: BaseException, engine: str) -> Outcome:
    """Write down what has kept a cell from beginning as the end of its attempt, and return it."""
    outcome = outcome_of(error)
    facts = {"cell": task.spec.id, "engine": engine, "host": platform.node()}
    attempt = task.writer.begin(task.spec.key(), facts)
    attempt.log("".join(traceback.format_exception(error)))
    attempt.end(outcome.status, outcome.reason)
    return outcome
