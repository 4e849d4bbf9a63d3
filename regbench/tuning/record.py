"""What ``suite.lock.json`` and the plan say of the tuning."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from regbench.suite.space import Space
from regbench.tuning.sampler import import_optuna
from regbench.tuning.study import Study, Trial


def tuning_record(studies: Sequence[Study]) -> dict[str, Any] | None:
    """The budget, the search spaces by method, and all trials that have ended; ``None`` where nothing is tuned."""
    if not studies:
        return None
    tuning = studies[0].tuning
    return {
        "trials": tuning.trials,
        "metric": tuning.metric,
        "better": studies[0].better,
        "seed": tuning.seed,
        "epochs": tuning.epochs,
        "sampler": f"TPE of Optuna {import_optuna()}",
        "space": {study.base.method: _space(study.space) for study in studies},
        "studies": [
            {
                "dataset": study.base.dataset,
                "method": study.base.method,
                "trials": [_trial(study, trial) for trial in study.trials],
            }
            for study in studies
        ],
    }


def _space(space: Space) -> dict[str, Any]:
    return {parameter.key: parameter.search.model_dump(mode="json", exclude_none=True) for parameter in space}


def _trial(study: Study, trial: Trial) -> dict[str, Any]:
    parts: dict[str, dict[str, Any]] = {"training": {}, "options": {}}
    for parameter in study.space:
        parts[parameter.place][parameter.name] = trial.values[parameter.key]
    return {
        "number": trial.number,
        **parts,
        "state": trial.state,
        "value": trial.value,
        "reason": trial.reason,
        "chosen": trial == study.best,
        "cell": trial.slug,
    }
