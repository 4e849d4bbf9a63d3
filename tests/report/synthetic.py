"""A run directory with made-up numbers, for tests of everything that reads one.

    from tests.report.synthetic import make_run
    run = make_run(tmp_path / "demo", ["AE", "VAE-KL", "ProtoVAE K=10"], ["digits"], seeds=3)

What a method is follows from its label: ``VAE-KL`` and ``InfoVAE-MMD`` are stochastic (unless the label says
"deterministic"), ``ProtoVAE K=10`` has ten prototypes, anything else is a plain autoencoder.
"""

from __future__ import annotations

import hashlib
import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regbench.store.records import LOCK, SCHEMA, Run
from tests.report.synthetic_arrays import (
    CLASS_NAMES,
    Data,
    is_stochastic,
    kind_of,
    make_arrays,
    make_clusters,
    prototypes_of,
    rng_for,
)

Cell = tuple[str, str, int]
"""(method, data set, seed)"""

METRIC_INFO = {
    "mse": {
        "label": "MSE",
        "better": "lower",
        "definition": "squared error, mean over C x H x W on [0, 1] per image, then over images",
    },
    "psnr": {
        "label": "PSNR",
        "better": "higher",
        "definition": "10 log10(1/MSE) per image in dB, then mean over images",
    },
    "ssim": {
        "label": "SSIM",
        "better": "higher",
        "definition": "structural similarity (Wang 2004), Gaussian window, sigma 1.5",
    },
    "bce_excess": {
        "label": "BCE - H(x)",
        "better": "lower",
        "definition": "binary cross-entropy above its floor, summed over pixels, mean over images",
    },
}


def make_run(
    path: Path,
    methods: Sequence[str] = ("AE", "VAE-KL", "InfoVAE-MMD", "ProtoVAE K=10"),
    datasets: Sequence[str] = ("digits",),
    seeds: int | Sequence[int] = 3,
    *,
    metrics: Sequence[str] = ("mse", "psnr", "ssim", "bce_excess"),
    baseline: str | None = None,
    status: Mapping[Cell, str] | None = None,
    values: Mapping[Cell, Mapping[str, float]] | None = None,
    sampled: Mapping[Cell, Mapping[str, float]] | None = None,
    environment: Mapping[Cell, Mapping[str, str]] | None = None,
    collapse: Mapping[Cell, Sequence[str]] | None = None,
    warnings: Mapping[Cell, Sequence[str]] | None = None,
    figures: Sequence[Mapping[str, Any]] = (),
    classes: Sequence[str] = CLASS_NAMES,
    anchors: bool = True,
    epochs: int = 12,
    warmup: int = 4,
    channels: int = 1,
    side: int = 16,
    latent: int = 8,
    test_images: int = 96,
    shown: int = 48,
) -> Run:
    """Write a complete run directory to ``path`` and open it.

    Args:
        seeds: a number of seeds, or the seeds.
        baseline: the suite's baseline; the first method where not given.
        status: cells that did not finish: ``failed``, ``diverged``, ``interrupted`` or ``missing``.
        values: exact metrics at the mean code of some cells (the arrays are scaled to agree).
        sampled: the same at the sampled code.
        environment: what differs from ``{"device": "cpu", "precision": "fp32", "engine": "local", ...}``.
        collapse: warnings that the codes of a cell have collapsed.
        warnings: the method's own warnings.
        classes: names of the ten classes; empty for a data set without any, with no images around prototypes.
        anchors: whether the mean-image and PCA errors have been computed.
    """
    seed_list = list(range(seeds)) if isinstance(seeds, int) else list(seeds)
    sizes = {"channels": channels, "side": side, "latent": latent, "test": test_images, "shown": shown}
    training = {"epochs": epochs, "warmup": warmup, "batch_size": 256, "lr": 1e-3, "loss_scale": "sum"}
    path.mkdir(parents=True, exist_ok=True)
    cells = []
    for dataset in datasets:
        data = Data(dataset, sizes, classes)
        for method in methods:
            for seed in seed_list:
                where = (method, dataset, seed)
                entry = _lock_entry(where, training, sizes)
                cells.append(entry)
                _write_cell(
                    path / "cells" / entry["slug"],
                    entry,
                    data,
                    training,
                    metrics=metrics,
                    status=(status or {}).get(where, "done"),
                    values=dict((values or {}).get(where, {})),
                    sampled=dict((sampled or {}).get(where, {})),
                    environment=dict((environment or {}).get(where, {})),
                    collapse=list((collapse or {}).get(where, [])),
                    warnings=list((warnings or {}).get(where, [])),
                )
        if anchors:
            _write_json(path / "derived" / "anchors" / f"{dataset}.json", {**data.anchors(), "basis": {}})
    lock = {
        "schema": SCHEMA,
        "suite": {
            "name": path.name,
            "description": "made-up numbers for tests",
            "baseline": baseline if baseline is not None else methods[0],
            "metrics": list(metrics),
            "metric_info": {name: METRIC_INFO[name] for name in metrics},
            "figures": [dict(figure) for figure in figures],
            "claims": [],
            "seeds": seed_list,
        },
        "methods": list(methods),
        "datasets": list(datasets),
        "cells": cells,
    }
    _write_json(path / LOCK, lock)
    (path / "suite.toml").write_text(f"[suite]\nname = {json.dumps(path.name)}\n", encoding="utf-8")
    return Run.open(path)


def _lock_entry(where: Cell, training: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    method, dataset, seed = where
    kind = kind_of(method)
    options: dict[str, Any] = {} if kind == "plain" else {"weight": 1.0}
    if kind == "proto-vae":
        options["prototypes"] = prototypes_of(method)
    key = {
        "schema": SCHEMA,
        "regularizer": {
            "name": "ae" if kind == "plain" else kind,
            "label": method,
            "options": options,
            "plugin": {"distribution": "regbench", "version": "0.1.0", "source": "0" * 64},
        },
        "dataset": {"name": dataset, "options": {}, "fingerprint": "1" * 64},
        "model": {"latent": sizes["latent"], "features": 16, "widths": [8, 16]},
        "training": {**training, "precision": "fp32"},
        "seed": seed,
    }
    cell_id = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    name = re.sub(r"[^a-z0-9]+", "-", f"{dataset}-{method}-s{seed}".lower()).strip("-")
    return {
        "id": cell_id,
        "method": method,
        "dataset": dataset,
        "seed": seed,
        "slug": f"{name}-{cell_id[:16]}",
        "key": key,
    }


def _write_cell(
    directory: Path,
    entry: Mapping[str, Any],
    data: Data,
    training: Mapping[str, Any],
    *,
    metrics: Sequence[str],
    status: str,
    values: dict[str, float],
    sampled: dict[str, float],
    environment: dict[str, str],
    collapse: list[str],
    warnings: list[str],
) -> None:
    method, dataset, seed = entry["method"], entry["dataset"], entry["seed"]
    rng = rng_for(method, dataset, seed)
    _write_json(directory / "cell.json", entry["key"])
    if status == "missing":
        return
    per_image, arrays = make_arrays(method, seed, data, rng)
    for name in per_image:
        if name in values:  # the arrays agree with the numbers
            per_image[name] = per_image[name] * (values[name] / per_image[name].mean())
    mean = {name: float(per_image[name].mean()) for name in metrics} | values
    reached = training["epochs"] if status == "done" else max(1, training["epochs"] // 2)
    history = _history(method, training, reached, mean.get("mse", 0.01), rng)
    attempt = directory / "attempts" / "1-00000000000000000000000000000000"
    outcome: dict[str, Any] = {"status": status, "epoch": reached}
    if status == "diverged":
        outcome["reason"] = "the loss of update 'loss' became nan"
    elif status == "failed":
        outcome |= {
            "reason": "RuntimeError: a | in <this> cell_1",
            "traceback": "Traceback ...",
        }
    elif status == "interrupted":
        outcome["reason"] = "stopped by the user"
    _write_json(attempt / "attempt.json", {"engine": "local", "started": "2026-01-01T00:00:00Z"})
    _write_json(attempt / "outcome.json", outcome)
    lines = "".join(json.dumps(row) + "\n" for row in history)
    (attempt / "metrics.jsonl").write_text(lines, encoding="utf-8")
    (attempt / "log.txt").write_text("made up\n", encoding="utf-8")
    if status != "done":
        return
    result = _result(entry, method, mean, sampled, metrics, data, training, environment, rng)
    result["diagnostics"]["collapse"] = collapse
    result["diagnostics"]["warnings"] = warnings
    arrays |= {f"per_image_{name}": per_image[name].astype(np.float32) for name in metrics}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    files = {
        "result.json": json.dumps(result, indent=1).encode(),
        "history.json": json.dumps(history, indent=1).encode(),
        "arrays.npz": buffer.getvalue(),
        "weights.pt": b"no weights in a made-up result",
    }
    (directory / "result").mkdir()
    for name, content in files.items():
        (directory / "result" / name).write_bytes(content)
    hashes = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    _write_json(
        directory / "result" / "manifest.json", {"schema": SCHEMA, "id": entry["id"], "sha256": hashes}
    )


def _history(
    method: str, training: Mapping[str, Any], reached: int, final_mse: float, rng: np.random.Generator
) -> list[dict[str, Any]]:
    epochs, warmup, kind = training["epochs"], training["warmup"], kind_of(method)
    rows = []
    for epoch in range(1, reached + 1):
        warm = epoch <= warmup
        mse = final_mse * (1 + 6 * np.exp(-5 * epoch / epochs)) * float(np.exp(rng.normal(0, 0.02)))
        bce = 100 + 500 * mse
        losses, log, log_max = {"reconstruction" if warm else "loss": bce}, {"bce": bce}, {}
        if not warm and kind == "proto-vae":
            losses = {"prototypes": 2.3, "mmd": 0.4 * float(rng.uniform(0.8, 1.2)), "reconstruction": bce}
            log |= {"separation": 0.1 * epoch, "assignment_agreement": 0.8}
            log_max = {"prototype_mass_deviation": float(rng.uniform(0, 0.02))}
        elif not warm and kind != "plain":
            term = "kl" if kind == "vae-kl" else "mmd"
            log[term] = 20 * float(rng.uniform(0.9, 1.1))
            losses["loss"] = bce + log[term]
        row: dict[str, Any] = {
            "epoch": epoch,
            "phase": "warmup" if warm else "regularized",
            "losses": losses,
            "log": log,
            "log_max": log_max,
            "seconds": 0.5 * float(rng.uniform(0.9, 1.1)),
        }
        if epoch in (1, epochs) or epoch % 2 == 0:
            row["evaluation"] = {
                "test_mse": mse if epoch < epochs else final_mse,
                "train_mse": 0.9 * mse,
                "clusters": None if warm else make_clusters(method, 96, rng),
            }
        rows.append(row)
    return rows


def _result(
    entry: Mapping[str, Any],
    method: str,
    mean: Mapping[str, float],
    sampled: Mapping[str, float],
    metrics: Sequence[str],
    data: Data,
    training: Mapping[str, Any],
    environment: Mapping[str, str],
    rng: np.random.Generator,
) -> dict[str, Any]:
    kind = kind_of(method)
    worse = {"mse": 1.3, "psnr": 0.95, "ssim": 0.96, "bce_excess": 1.3}
    at_sample = {name: mean[name] * worse[name] * float(rng.uniform(0.99, 1.01)) for name in metrics}
    steps = training["epochs"] * 20 * (3 if kind == "proto-vae" else 1)
    prior = {"plain": "a Gaussian fitted to the training codes", "proto-vae": "N(v_k, I), k uniform"}
    diagnostics: dict[str, Any] = {
        "active_units": int(rng.integers(4, data.sizes["latent"] + 1)),
        "alive_features": int(rng.integers(8, 17)),
        "latent_rank": int(rng.integers(4, data.sizes["latent"] + 1)),
        "clusters": make_clusters(method, data.sizes["test"], rng),
    }
    if kind == "vae-kl":
        diagnostics["kl_to_prior"] = float(rng.uniform(10, 30))
    at_sample |= sampled
    return {
        "schema": SCHEMA,
        "id": entry["id"],
        "status": "done",
        "metrics": {
            "mean": dict(mean),
            "sampled": at_sample if is_stochastic(method) else None,
        },
        "diagnostics": diagnostics,
        "cost": {
            "optimizer_steps": steps,
            "device_seconds": steps * 0.01 * float(rng.uniform(0.95, 1.05)),
            "images_per_second": 25600 * float(rng.uniform(0.95, 1.05)),
            "peak_memory_bytes": int(rng.integers(80, 120)) * 2**20,
        },
        "beta_effective": None if kind == "plain" else 1.0,
        "loss_scale": training["loss_scale"],
        "classes": list(data.classes),
        "samples_from": prior.get(kind, "N(0, I)"),
        "ssim_audit": {"images": 32, "largest_difference": 1e-7},
        "environment": {
            "device": "cpu",
            "device_name": "a made-up processor",
            "precision": "fp32",
            "launch": "eager",
            "engine": "local",
            **environment,
        },
    }


def _write_json(path: Path, content: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1), encoding="utf-8")
