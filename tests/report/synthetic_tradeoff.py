"""A made-up run with families of methods, and with the distances that a trade-off is drawn from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from regbench.store.records import CellRecord, Run
from tests.report.synthetic import make_run
from tests.report.synthetic_arrays import rng_for

WEIGHTS = (0.1, 1.0, 10.0, 100.0)
FAMILIES = {
    **{f"VAE-KL weight={weight:g}": "VAE-KL" for weight in WEIGHTS},
    **{f"InfoVAE-MMD weight={weight:g}": "InfoVAE-MMD" for weight in WEIGHTS},
    **{f"ProtoVAE K=10 weight={weight:g}": "ProtoVAE" for weight in WEIGHTS[:3]},
}
METHODS = ("AE", "AE, 3 steps", *FAMILIES)


def make_tradeoff(
    path: Path,
    datasets: Sequence[str] = ("digits",),
    seeds: int = 3,
    *,
    methods: Sequence[str] = METHODS,
    families: Mapping[str, str] = FAMILIES,
    status: Mapping[tuple[str, str, int], str] | None = None,
    **more: Any,
) -> Run:
    """A run in which more weight means smaller distances and larger errors; the numbers differ by seed."""
    values = {
        (method, dataset, seed): {
            "mse": 0.004 * _factor(method, 0.4) * _noise("error", method, dataset, seed)
        }
        for method in methods
        for dataset in datasets
        for seed in range(seeds)
    }
    more = {"test_images": 24, "shown": 12, "epochs": 4, "warmup": 1, **more}
    run = make_run(path, methods, datasets, seeds, values=values, status=status, **more)
    run.suite["families"] = {method: families[method] for method in methods if method in families}
    for cell in run.cells:
        if "weight=" in cell.method:
            cell.key["regularizer"]["options"]["weight"] = weight_of(cell.method)
        if cell.status == "done":
            cell.result["diagnostics"] |= distances(cell)
    return run


def weight_of(method: str) -> float:
    return float(method.rpartition("weight=")[2])


def distances(cell: CellRecord) -> dict[str, Any]:
    """Distances as a result holds them; in the strongest setting the squared MMD is an estimate around 0."""
    noise = _noise("distance", cell.method, cell.dataset, cell.seed)
    floors = {"mmd_floor": 0.0004 * (noise - 1), "sw2_floor": 0.02, "kl_floor": 0.5}
    normal = {"mmd": 3 * noise, "sw2": 2 * noise, "kl": 90 * noise}
    if "weight=" not in cell.method:
        return {"prior": None, "normal": normal | floors}
    mmd = 0.8 * _factor(cell.method, -0.9) * noise if weight_of(cell.method) < 100 else 0.01 * (noise - 1)
    own = {"mmd": mmd, "sw2": 0.02 + abs(mmd), "kl": None if weight_of(cell.method) == 10 else 30 * abs(mmd)}
    return {"prior": own | floors, "normal": normal | floors}


def _factor(method: str, power: float) -> float:
    """What the weight does, and how good the kind of method is."""
    if "weight=" not in method:
        return 1.0
    kinds = {"VAE-KL": 1.6, "InfoVAE-MMD": 1.2, "ProtoVAE K=10": 1.1}
    kind = kinds.get(method.partition(" weight")[0], 1.0)
    return float(kind * (10 * weight_of(method)) ** power)


def _noise(*purpose: object) -> float:
    return float(np.exp(rng_for(*purpose).normal(0, 0.05)))
