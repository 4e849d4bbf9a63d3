"""What a finished cell leaves behind: the parts of its ``result.json``, and its files as bytes."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from regbench.assess import Assessment, CellData
from regbench.evaluation import EVALUATION
from regbench.execution.checkpointing import Story
from regbench.model import Model
from regbench.store.provenance import device_name
from regbench.store.writer import finite
from regbench.training.trainer import Trainer


def assessed(
    assessment: Assessment, data: CellData, metric_sources: Mapping[str, str], warnings: Sequence[str]
) -> dict[str, Any]:
    """What was measured, and with what."""
    classifier = data.classifier
    return {
        "evaluation": EVALUATION,
        "classes": list(data.split.classes),
        "classifier": None
        if classifier is None
        else {"sha256": classifier.sha256, "accuracy": data.accuracy},
        "metrics": assessment.metrics,
        "metric_sources": dict(metric_sources),
        "diagnostics": {**finite(assessment.diagnostics), "warnings": list(warnings)},
        "samples_from": assessment.samples_from,
        "ssim_audit": assessment.ssim_audit,
    }


def trained(trainer: Trainer, story: Story, wall_seconds: float) -> dict[str, Any]:
    """What the training cost, and how strong its regularization was.

    Times are those of the work that the result consists of: what was lost between a checkpoint and a kill is in none.
    """
    weight = trainer.model.regularizer.weight
    scale = trainer.settings.loss_scale
    # Per image the reconstruction loss is a sum over pixels; where it is their mean, the regularizer weighs that
    # many times more.
    factor = trainer.model.pixels if scale == "mean" else 1
    regularized = [row["seconds"] for row in story.rows if row["phase"] == "regularized"]
    return {
        "cost": {
            "optimizer_steps": trainer.optimizer_steps,
            "device_seconds": sum(row["seconds"] for row in story.rows) + trainer.closing_seconds,
            "closing_seconds": trainer.closing_seconds,
            "setup_seconds": sum(row["setup_seconds"] for row in story.rows),
            "images_per_second": trainer.images_per_epoch / median(regularized),
            "peak_memory_bytes": story.peak_memory,
            "wall_seconds": wall_seconds,
            "resumed": story.resumed,
        },
        "beta_effective": None if weight is None else weight * factor,
        "loss_scale": scale,
    }


def environment(trainer: Trainer, engine: str) -> dict[str, Any]:
    settings = trainer.settings
    return {
        "device": trainer.device.type,
        "device_name": device_name(trainer.device),
        "precision": settings.precision,
        "launch": settings.launch.title,
        "compile": settings.launch.compile_why,
        "engine": engine,
    }


def json_bytes(value: Any) -> bytes:
    return (json.dumps(value, indent=1, allow_nan=False) + "\n").encode()


def npz_bytes(arrays: Mapping[str, NDArray[Any]]) -> bytes:
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]  # of an array called allow_pickle
    return buffer.getvalue()


def weights_bytes(model: Model) -> bytes:
    buffer = io.BytesIO()
    torch.save({name: value.cpu() for name, value in model.state_dict().items()}, buffer)
    return buffer.getvalue()
