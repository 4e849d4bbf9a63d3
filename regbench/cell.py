"""One cell: data, nets and regularizer -> training -> evaluation -> store.

Whatever happens, the attempt ends with an outcome: ``done``, ``diverged``, ``failed``, ``oom``, ``timeout`` or
``interrupted``.
"""

from __future__ import annotations

import io
import json
import signal as signals
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import psutil
import torch

from regbench.api import Regularizer
from regbench.assess import Assessment, CellData, assess, curve_point
from regbench.errors import Diverged, RegbenchError, StoreError
from regbench.evaluation.evaluate import NotFinite
from regbench.evaluation.metric import Metric
from regbench.evaluation.selection import curve_epochs
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.checkpointing import CellCheckpoints, Story
from regbench.execution.events import CellResumed, EpochFinished, Listener
from regbench.execution.interrupt import Stop, StopSignal, TimeLimit
from regbench.execution.result import assessed, environment, json_bytes, npz_bytes, trained, weights_bytes
from regbench.execution.tail import epoch_finished
from regbench.guard import guarded
from regbench.model import Model, build_model
from regbench.modes import forked
from regbench.nets import NetShape, forward_flops
from regbench.plugins import Registry
from regbench.store.provenance import provenance
from regbench.store.records import SCHEMA, CellRecord, Outcome
from regbench.store.writer import AttemptWriter, CellWriter
from regbench.suite.cells import CellSpec
from regbench.training.launch import Launch, LaunchWishes, resolve_launch
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings


def run_cell(
    spec: CellSpec,
    data: CellData,
    metrics: Sequence[str],
    registry: Registry,
    device: torch.device,
    writer: CellWriter,
    emit: Listener,
    *,
    replace: bool = False,
    remeasure: bool = False,
    wishes: LaunchWishes | None = None,
    signal: StopSignal | None = None,
    checkpoints: CheckpointPolicy | None = None,
    fresh: bool = False,
    engine: str = "local",
) -> Outcome:
    """Train and evaluate one cell and commit its result.

    ``replace``: a result is there; it is set aside once the new one is complete. ``remeasure``: evaluate the
    weights of that result, and keep its history and costs.

    A cell goes on from the newest usable checkpoint of its earlier attempts; ``fresh`` removes them and begins anew.
    ``checkpoints`` says how often one is written (by default every five minutes); one is written besides where
    ``signal`` asks to stop, and where the evaluation fails.

    A failure of the cell ends in its outcome; only ``StoreError`` (disk), ``Stop`` (a signal) and
    ``ListenerFailed`` come through.
    """
    facts = {"cell": spec.id, "engine": engine, "spec": json.loads(spec.to_json()), **provenance(device)}
    attempt = writer.begin(spec.key(), facts)
    kept = CellCheckpoints(spec, attempt, checkpoints or CheckpointPolicy(), device)
    if fresh:
        kept.clear()
    wishes, signal = wishes or LaunchWishes(), signal or StopSignal()
    work = _Work(spec, data, metrics, registry, device, attempt, emit, wishes, signal, kept, engine)
    try:
        with forked(device), guarded(attempt.log):
            return Outcome("done", "", work.measure(replace) if remeasure else work.run(replace))
    except StoreError:
        raise
    except (Stop, ListenerFailed) as stop:
        attempt.end("interrupted", str(stop), epoch=work.epoch)
        raise
    except BaseException as error:  # the cell's own failure, also by sys.exit(); others go on
        if (
            isinstance(error, KeyboardInterrupt)
            and signals.getsignal(signals.SIGINT) is signals.default_int_handler
        ):
            raise  # somebody's Ctrl-C; where it is handled, only a plugin raises this
        return _failed(error, attempt, kept, work.epoch)
    finally:
        del work  # the traceback of a failure must not keep the model alive
        if device.type == "cuda":
            torch.cuda.empty_cache()


def _failed(error: BaseException, attempt: AttemptWriter, kept: CellCheckpoints, epoch: int) -> Outcome:
    """Record how a cell has ended by itself."""
    outcome = outcome_of(error)
    if outcome.status == "diverged":
        attempt.end(outcome.status, outcome.reason, epoch=epoch)
        kept.clear()  # it would diverge again
        return outcome
    trace = "".join(traceback.format_exception(error))
    attempt.end(outcome.status, outcome.reason, epoch=epoch, traceback=trace)
    attempt.log(trace)
    return outcome


def outcome_of(error: BaseException) -> Outcome:
    """How a cell has ended by itself: a plugin's bug, numbers that are not finite, too little memory or time."""
    if isinstance(error, TimeLimit):
        return Outcome("timeout", str(error), {})
    if isinstance(error, Diverged | NotFinite):
        return Outcome("diverged", str(error), {})
    hint = f"; {error.hint}" if isinstance(error, RegbenchError) and error.hint else ""
    status = "oom" if out_of_memory(error) else "failed"
    return Outcome(status, f"{type(error).__name__}: {error}{hint}", {})


def settings_of(spec: CellSpec, launch: Launch | None = None) -> tuple[NetShape, TrainingSettings]:
    """What the nets and the trainer are built from; without ``launch``, the steps are launched one by one."""
    model, training = spec.model, spec.training
    shape = NetShape(
        channels=spec.channels,
        side=spec.side,
        latent=model["latent"],
        features=model["features"],
        widths=tuple(model["widths"]),
        kernel=model["kernel"],
        bottleneck_relu=model["bottleneck_activation"] == "relu",
    )
    adam = AdamSettings(lr=training["lr"], betas=tuple(training["betas"]))
    settings = TrainingSettings(
        epochs=training["epochs"],
        warmup=training["warmup"],
        batch_size=training["batch_size"],
        adam=adam,
        precision=training["precision"],
        loss_scale=training["loss_scale"],
        launch=launch or Launch(),
    )
    return shape, settings


def model_of(
    spec: CellSpec,
    method: type[Regularizer],
    device: torch.device,
    launch: Launch | None = None,
    *,
    images: int | None = None,
) -> tuple[Model, TrainingSettings]:
    """The cell's untrained model, and how it is trained; ``images``: on other than the cell's training images."""
    shape, settings = settings_of(spec, launch)
    scale = settings.loss_scale
    model = build_model(
        shape,
        method,
        spec.options,
        seed=spec.seed,
        loss_scale=scale,
        device=device,
        images=spec.train_images if images is None else images,
    )
    return model, settings


def launch_of(
    spec: CellSpec, method: type[Regularizer], device: torch.device, wishes: LaunchWishes
) -> Launch:
    """How the cell's steps reach the device. Raises ``DeviceError`` for ``compile = "on"`` where it cannot be."""
    training = spec.training
    steps = training["epochs"] * (spec.train_images // training["batch_size"])
    return resolve_launch(
        wishes, spec.compile, device, steps * step_flops(spec), compilable=method.compilable
    )


def step_flops(spec: CellSpec) -> float:
    """Operations of one optimizer step: forward, and about twice that backward."""
    shape, settings = settings_of(spec)
    return 3.0 * forward_flops(shape) * settings.batch_size


def out_of_memory(error: BaseException) -> bool:
    """Whether the device or the host had too little memory; on the host, torch says so in words only."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


class ListenerFailed(BaseException):
    """Who listens to the events raised; no ``Exception``, as it is not the cell that failed."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Work:
    """The state of a running cell."""

    def __init__(
        self,
        spec: CellSpec,
        data: CellData,
        metrics: Sequence[str],
        registry: Registry,
        device: torch.device,
        attempt: AttemptWriter,
        emit: Listener,
        wishes: LaunchWishes,
        signal: StopSignal,
        checkpoints: CellCheckpoints,
        engine: str,
    ) -> None:
        self.spec = spec
        self.data = data
        # Instances of this cell's own: what a metric keeps must not reach the next cell.
        self.metrics: list[Metric] = [registry.metric(name).cls() for name in metrics]
        self.metric_sources = {name: registry.metric(name).source for name in metrics}
        self.regularizer: type[Regularizer] = registry.regularizer(spec.regularizer).cls
        self.device = device
        self.wishes = wishes
        self.attempt = attempt
        self.emit = emit
        self.signal = signal
        self.checkpoints = checkpoints
        self.engine = engine
        self.epoch = 0
        self.story = Story()

    def run(self, replace: bool) -> dict[str, float]:
        """Train, evaluate and commit; returns the metrics at the mean code."""
        trainer = self._trainer()
        self._rehearse(trainer)
        trainer = self._resumed(trainer)
        # The peak is that of the training: what evaluations take, before and after it, does not count.
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with self.signal.finishing("the epoch"):
            self._train(trainer)
        with self._training_kept(trainer):
            trainer.finish()
            assessment = assess(trainer.model, self.data, self.metrics, self.spec.seed)
            self.attempt.commit(self._files(trainer, assessment), replace=replace)
        self.checkpoints.clear()
        return dict(assessment.metrics["mean"])

    def _trainer(self) -> Trainer:
        """An untrained one; the same each time."""
        launch = launch_of(self.spec, self.regularizer, self.device, self.wishes)
        model, settings = model_of(self.spec, self.regularizer, self.device, launch)
        return Trainer(model, self.data.train, settings, self.spec.seed)

    def _rehearse(self, trainer: Trainer) -> None:
        """Evaluate the untrained model on a few images: a metric or method that fails there must fail now.

        After the training it would cost the training. Not every fault shows on untrained weights.
        """
        model = trainer.model
        with forked(self.device):
            assess(model, self.data.glimpse(), self.metrics, self.spec.seed)
            model.regularizer.warnings([])
            _ = model.regularizer.weight

    def _resumed(self, trainer: Trainer) -> Trainer:
        """The training as far as an earlier attempt has brought it."""
        trainer, self.story = self.checkpoints.restore(trainer, self._trainer)
        self.epoch = len(self.story.rows)
        notes = self.checkpoints.notes
        for note in notes:
            self.attempt.log(note)
        if self.epoch or trainer.batch or notes:
            epochs = trainer.settings.epochs
            self._emit(CellResumed(self.spec.title, self.epoch, epochs, trainer.batch, notes))
        return trainer

    def measure(self, replace: bool) -> dict[str, float]:
        """Evaluate the saved weights of the cell's result once more; its history and costs stay as they are."""
        spec = self.spec
        record = CellRecord(spec.id, spec.method, spec.dataset, spec.seed, {}, self.attempt.cell.directory)
        weights, history, earlier = (
            record.verified("weights.pt"),
            record.verified("history.json"),
            record.result,
        )
        model, _ = model_of(spec, self.regularizer, self.device)
        model.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location=self.device))
        with self.signal.finishing("the cell", batches=False):
            assessment = assess(model, self.data, self.metrics, self.spec.seed)
            judged = assessed(assessment, self.data, self.metric_sources, earlier["diagnostics"]["warnings"])
            files = {
                "result.json": json_bytes({**earlier, **judged}),
                "history.json": history,
                "arrays.npz": npz_bytes(assessment.arrays),
                "weights.pt": weights,
            }
            self.attempt.commit(files, replace=replace)
        return dict(assessment.metrics["mean"])

    def _train(self, trainer: Trainer) -> None:
        """Train to the end, saving where it is time to; raises ``Stop``, with all of it saved, where it is asked to."""
        story = self.story
        while True:
            asked = self.signal.level
            stopping = asked == "batch" or (asked == "epoch" and not trainer.batch)
            if stopping or self.checkpoints.due(story):
                self.checkpoints.save(trainer, story)
            if stopping:
                raise self.signal.stop()
            if len(story.rows) == trainer.settings.epochs:
                return
            self._epoch(trainer, len(story.rows) + 1)

    def _pause(self) -> bool:
        return self.signal.level == "batch" or self.checkpoints.due(self.story)

    def _epoch(self, trainer: Trainer, epoch: int) -> None:
        """Train an epoch, or as much of it as there is time for."""
        self.epoch = epoch
        try:
            row = trainer.run_epoch(epoch, self._pause)
        except Diverged as error:
            self.attempt.metrics(error.row or {})
            raise
        self._note_memory()
        if row is None:
            return
        settings = trainer.settings
        self.story.rows.append(row)
        try:
            if epoch in curve_epochs(settings.epochs, settings.warmup, self.spec.curve_points):
                row["evaluation"] = curve_point(trainer.model, self.data)
        finally:
            self.attempt.metrics(row)
        self._emit(epoch_finished(self.spec, self.story.rows))

    @contextmanager
    def _training_kept(self, trainer: Trainer) -> Iterator[None]:
        """What ends the evaluation, a signal or a fault, does not end the training with it: it is saved."""
        try:
            with self.signal.finishing("the cell", batches=False):
                yield
        except (NotFinite, StoreError):
            raise
        except BaseException:
            self.checkpoints.save(trainer, self.story)
            raise

    def _emit(self, event: CellResumed | EpochFinished) -> None:
        try:
            self.emit(event)
        except Exception as error:  # whoever listens is no part of the cell
            raise ListenerFailed(error) from error

    def _note_memory(self) -> None:
        if self.device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(self.device)
        else:
            peak = psutil.Process().memory_info().rss
        self.story.peak_memory = max(self.story.peak_memory, peak)

    def _files(self, trainer: Trainer, assessment: Assessment) -> dict[str, bytes]:
        """The files of the result."""
        rows = self.story.rows
        warnings = trainer.model.regularizer.warnings(rows)
        result = {
            "schema": SCHEMA,
            "id": self.spec.id,
            "attempt": self.attempt.directory.name,
            "status": "done",
            **assessed(assessment, self.data, self.metric_sources, warnings),
            **trained(trainer, self.story, self.checkpoints.seconds(self.story)),
            "environment": environment(trainer, self.engine),
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }
        return {
            "result.json": json_bytes(result),
            "history.json": json_bytes(rows),
            "arrays.npz": npz_bytes(assessment.arrays),
            "weights.pt": weights_bytes(trainer.model),
        }
