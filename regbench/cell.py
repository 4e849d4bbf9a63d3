"""One cell: data, nets and regularizer -> training -> evaluation -> store.

Whatever happens, the attempt ends with an outcome: ``done``, ``diverged``, ``failed`` or ``interrupted``.
"""

from __future__ import annotations

import io
import json
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import psutil
import torch
from numpy.typing import NDArray

from regbench.api import Regularizer
from regbench.assess import Assessment, CellData, assess, curve_point
from regbench.errors import Diverged, RegbenchError, StoreError
from regbench.evaluation import EVALUATION
from regbench.evaluation.evaluate import NotFinite
from regbench.evaluation.metric import Metric
from regbench.evaluation.selection import curve_epochs
from regbench.execution.checkpoint_policy import CheckpointPolicy
from regbench.execution.events import EpochFinished, Listener
from regbench.execution.interrupt import Stop, StopSignal, TimeLimit
from regbench.model import Model, build_model
from regbench.modes import forked
from regbench.nets import NetShape, forward_flops
from regbench.plugins import Registry
from regbench.store.provenance import device_name, provenance
from regbench.store.records import SCHEMA, CellRecord, Outcome
from regbench.store.writer import AttemptWriter, CellWriter, finite
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

    A failure of the cell ends in its outcome; only ``StoreError`` (disk), ``Stop`` (a signal) and
    ``ListenerFailed`` come through.
    """
    facts = {"cell": spec.id, "engine": engine, "spec": json.loads(spec.to_json()), **provenance(device)}
    attempt = writer.begin(spec.key(), facts)
    signal = signal or StopSignal()
    work = _Work(
        spec, data, metrics, registry, device, attempt, emit, wishes or LaunchWishes(), signal, engine
    )
    try:
        with forked(device):
            files, measured = work.measure(writer.directory) if remeasure else work.run()
        attempt.commit(files, replace=replace)
    except StoreError:
        raise
    except (Stop, ListenerFailed) as stop:
        attempt.end("interrupted", str(stop), epoch=work.epoch)
        raise
    except TimeLimit as limit:
        attempt.end("timeout", str(limit), epoch=work.epoch, traceback=traceback.format_exc())
        attempt.log(traceback.format_exc())
        return Outcome("timeout", str(limit), {})
    except (Diverged, NotFinite) as error:
        attempt.end("diverged", str(error), epoch=work.epoch)
        return Outcome("diverged", str(error), {})
    except Exception as error:  # the cell's own failure: a plugin's bug, out of memory; others go on
        hint = f"; {error.hint}" if isinstance(error, RegbenchError) and error.hint else ""
        reason = f"{type(error).__name__}: {error}{hint}"
        status = "oom" if out_of_memory(error) else "failed"
        attempt.end(status, reason, epoch=work.epoch, traceback=traceback.format_exc())
        attempt.log(traceback.format_exc())
        return Outcome(status, reason, {})
    finally:
        del work  # the traceback of a failure must not keep the model alive
        if device.type == "cuda":
            torch.cuda.empty_cache()
    return Outcome("done", "", measured)


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
    spec: CellSpec, method: type[Regularizer], device: torch.device, launch: Launch | None = None
) -> tuple[Model, TrainingSettings]:
    """The cell's untrained model, and how it is trained."""
    shape, settings = settings_of(spec, launch)
    scale = settings.loss_scale
    model = build_model(shape, method, spec.options, seed=spec.seed, loss_scale=scale, device=device)
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
        self.engine = engine
        self.epoch = 0
        self.rows: list[dict[str, Any]] = []
        self.peak_memory = 0

    def run(self) -> tuple[dict[str, bytes], dict[str, float]]:
        """Train, evaluate, and return the files of the result with the metrics at the mean code."""
        spec = self.spec
        started = time.perf_counter()
        launch = launch_of(spec, self.regularizer, self.device, self.wishes)
        model, settings = model_of(spec, self.regularizer, self.device, launch)
        trainer = Trainer(model, self.data.train, settings, spec.seed)
        self._rehearse(trainer)
        # The peak is that of the training: what evaluations take, before and after it, does not count.
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        with self.signal.finishing("the epoch"):
            self._train(trainer)
        assessment = assess(model, self.data, self.metrics, spec.seed)
        files = {
            "history.json": _json(self.rows),
            "arrays.npz": _npz(assessment.arrays),
            "weights.pt": _weights(model),
        }
        result = self._result(trainer, assessment)
        result["cost"]["wall_seconds"] = time.perf_counter() - started
        return {"result.json": _json(result), **files}, dict(assessment.metrics["mean"])

    def _rehearse(self, trainer: Trainer) -> None:
        """Evaluate the untrained model on a few images: a metric or method that fails there must fail now.

        After the training it would cost the training. Not every fault shows on untrained weights.
        """
        model = trainer.model
        with forked(self.device):
            assess(model, self.data.glimpse(), self.metrics, self.spec.seed)
            model.regularizer.warnings([])
            _ = model.regularizer.weight

    def measure(self, cell: Path) -> tuple[dict[str, bytes], dict[str, float]]:
        """Evaluate the saved weights of the cell's result once more; its history and costs stay as they are."""
        spec = self.spec
        record = CellRecord(spec.id, spec.method, spec.dataset, spec.seed, {}, cell)
        weights, history, earlier = (
            record.verified("weights.pt"),
            record.verified("history.json"),
            record.result,
        )
        model, _ = model_of(spec, self.regularizer, self.device)
        model.load_state_dict(torch.load(io.BytesIO(weights), weights_only=True, map_location=self.device))
        assessment = assess(model, self.data, self.metrics, self.spec.seed)
        files = {
            "result.json": _json(
                {**earlier, **self._assessed(assessment, earlier["diagnostics"]["warnings"])}
            ),
            "history.json": history,
            "arrays.npz": _npz(assessment.arrays),
            "weights.pt": weights,
        }
        return files, dict(assessment.metrics["mean"])

    def _train(self, trainer: Trainer) -> None:
        settings = trainer.settings
        chosen = curve_epochs(settings.epochs, settings.warmup, self.spec.curve_points)
        for epoch in range(1, settings.epochs + 1):
            self.epoch = epoch
            try:
                row = trainer.run_epoch(epoch)
            except Diverged as error:
                self.attempt.metrics(error.row or {})
                raise
            self.rows.append(row)
            try:
                if epoch in chosen:
                    row["evaluation"] = curve_point(trainer.model, self.data)
            finally:
                self.attempt.metrics(row)
            self._note_memory()
            self._tell(trainer, row)
            self.signal.check()

    def _tell(self, trainer: Trainer, row: dict[str, Any]) -> None:
        recent = median(r["seconds"] for r in self.rows[-5:] if r["phase"] == row["phase"])
        left = trainer.settings.epochs - row["epoch"]
        self._emit(
            EpochFinished(
                cell=self.spec.title,
                epoch=row["epoch"],
                epochs=trainer.settings.epochs,
                phase=row["phase"],
                losses=row["losses"],
                images_per_second=trainer.images_per_epoch / recent,
                seconds_left=left * recent,
                evaluation=row.get("evaluation", {}),
            )
        )

    def _emit(self, event: EpochFinished) -> None:
        try:
            self.emit(event)
        except Exception as error:  # whoever listens is no part of the cell
            raise ListenerFailed(error) from error

    def _note_memory(self) -> None:
        if self.device.type == "cuda":
            self.peak_memory = torch.cuda.max_memory_allocated(self.device)
        else:
            self.peak_memory = max(self.peak_memory, psutil.Process().memory_info().rss)

    def _assessed(self, assessment: Assessment, warnings: list[str]) -> dict[str, Any]:
        classifier = self.data.classifier
        return {
            "evaluation": EVALUATION,
            "classes": list(self.data.split.classes),
            "classifier": None
            if classifier is None
            else {"sha256": classifier.sha256, "accuracy": self.data.accuracy},
            "metrics": assessment.metrics,
            "metric_sources": self.metric_sources,
            "diagnostics": {**finite(assessment.diagnostics), "warnings": warnings},
            "samples_from": assessment.samples_from,
            "ssim_audit": assessment.ssim_audit,
        }

    def _result(self, trainer: Trainer, assessment: Assessment) -> dict[str, Any]:
        spec, settings = self.spec, trainer.settings
        weight = trainer.model.regularizer.weight
        # Per image the reconstruction loss is a sum over pixels; where it is their mean, the regularizer weighs
        # that many times more.
        factor = trainer.model.pixels if settings.loss_scale == "mean" else 1
        regularized = [row["seconds"] for row in self.rows if row["phase"] == "regularized"]
        return {
            "schema": SCHEMA,
            "id": spec.id,
            "attempt": self.attempt.directory.name,
            "status": "done",
            **self._assessed(assessment, trainer.model.regularizer.warnings(self.rows)),
            "cost": {
                "optimizer_steps": trainer.optimizer_steps,
                "device_seconds": sum(row["seconds"] for row in self.rows),
                "setup_seconds": sum(row["setup_seconds"] for row in self.rows),
                "images_per_second": trainer.images_per_epoch / median(regularized),
                "peak_memory_bytes": self.peak_memory,
            },
            "beta_effective": None if weight is None else weight * factor,
            "loss_scale": settings.loss_scale,
            "environment": {
                "device": self.device.type,
                "device_name": device_name(self.device),
                "precision": settings.precision,
                "launch": settings.launch.title,
                "compile": settings.launch.compile_why,
                "engine": self.engine,
            },
            "finished": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        }


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def _npz(arrays: dict[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # of an array called allow_pickle
    return buffer.getvalue()


def _weights(model: Model) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()
