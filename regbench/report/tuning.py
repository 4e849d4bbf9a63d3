"""How settings were selected: the budget, what was searched, and every trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pandas as pd

from regbench.report.facts import shown
from regbench.report.numbers import NOTHING, plain
from regbench.report.section import Grid, Section
from regbench.report.table import Cell
from regbench.store.records import CellRecord, Run

UNEQUAL = "Nothing of these methods is searched: they have no trials, and the budgets are not equal: "
TRAP = (
    "Options of the methods themselves were searched, and selected by reconstruction alone: that favours whatever "
    "regularizes least. Read the selected values beside the latent space's columns."
)


def tuning_section(run: Run) -> Section | None:
    """``None`` for a run without ``[tuning]``, and for one of a version that had none."""
    tuning = run.suite.get("tuning")
    if not tuning:
        return None
    frame = trials_frame(run)
    label = _label(run, tuning)
    grids = [_summary(tuning, label)]
    grids += [
        _trials(tuning, dataset, frame, label)
        for dataset in run.datasets
        if any(study["trials"] for study in _studies(tuning, dataset))
    ]
    return Section("tuning", "Tuning", _text(tuning, label), tuple(grids), frame=frame, file="trials")


def trials_frame(run: Run) -> pd.DataFrame:
    """One row per trial that has ended, in the order of the suite."""
    tuning = run.suite["tuning"]
    keys = dict.fromkeys(key for space in tuning["space"].values() for key in space)
    rows = []
    for study in tuning["studies"]:
        for trial in study["trials"]:
            tried = _tried(trial)
            rows.append(
                {
                    "dataset": study["dataset"],
                    "method": study["method"],
                    "trial": trial["number"],
                    "chosen": trial["chosen"],
                    "state": trial["state"],
                    tuning["metric"]: trial["value"],
                    "normal_mmd": _distance(run, trial),
                    **{key: tried.get(key) for key in keys},
                    "reason": trial["reason"],
                    "cell": trial["cell"],
                }
            )
    columns = ["dataset", "method", "trial", "chosen", "state", tuning["metric"], "normal_mmd", *keys]
    return pd.DataFrame(rows, columns=[*columns, "reason", "cell"])


def _text(tuning: Mapping[str, Any], label: str) -> str:
    epochs = f", each of {tuning['epochs']} epochs" if tuning["epochs"] is not None else ""
    return (
        f"Before the cells were run, every method had {tuning['trials']} trials on each data set{epochs}, and the one "
        f"with the best {label} ({tuning['better']} is better) at the mean code was selected. A trial is trained on "
        "the training images and measured on the held-out images; the test images have no part in it. All trials share "
        f"one seed, which no cell of the suite has. Sampler: {tuning['sampler']}, seed {tuning['seed']}."
    )


def _summary(tuning: Mapping[str, Any], label: str) -> Grid:
    columns = ("data set", "method", "searched", "trials", "failed", "selected", f"{label}, held-out")
    rows = tuple(_study_row(tuning, study) for study in tuning["studies"])
    notes = []
    idle = [method for method, space in tuning["space"].items() if not space]
    if idle:
        notes.append(f"{UNEQUAL}{', '.join(idle)}.")
    if any(key.startswith("options.") for space in tuning["space"].values() for key in space):
        notes.append(TRAP)
    return Grid("What was searched, and what was selected", columns, rows, tuple(notes))


def _study_row(tuning: Mapping[str, Any], study: Mapping[str, Any]) -> tuple[Cell, ...]:
    space = tuning["space"][study["method"]]
    trials = study["trials"]
    chosen = next((trial for trial in trials if trial["chosen"]), None)
    failed = sum(trial["state"] != "done" for trial in trials)
    budget = tuning["trials"] if space else 0
    return (
        Cell(study["dataset"]),
        Cell(study["method"]),
        Cell("; ".join(_range(key, search) for key, search in space.items()) or "nothing"),
        Cell(f"{len(trials)}/{budget}", float(len(trials))),
        Cell(str(failed), float(failed)),
        Cell(_words(chosen) if chosen else NOTHING),
        Cell(plain(chosen["value"]), chosen["value"]) if chosen else Cell(NOTHING),
    )


def _trials(tuning: Mapping[str, Any], dataset: str, frame: pd.DataFrame, label: str) -> Grid:
    of_dataset = frame[frame["dataset"] == dataset]
    rows_of: list[dict[str, Any]] = [
        {str(k): v for k, v in row.items()} for row in of_dataset.to_dict("records")
    ]
    distances = {(row["method"], row["trial"]): row["normal_mmd"] for row in rows_of}
    measured = bool(of_dataset["normal_mmd"].notna().any())
    columns = ["method", "trial", "tried", f"{label}, held-out", *(["MMD to N(0, I)"] if measured else [])]
    rows = []
    for study in _studies(tuning, dataset):
        for trial in study["trials"]:
            bold = trial["chosen"]
            row = [
                Cell(study["method"], bold=bold),
                Cell(str(trial["number"]), float(trial["number"]), bold=bold),
                Cell(_words(trial), bold=bold),
                _outcome(trial, bold),
            ]
            distance = distances[study["method"], trial["number"]]
            if measured:
                found = not pd.isna(distance)
                row.append(Cell(plain(distance), distance, bold=bold) if found else Cell(NOTHING))
            rows.append(tuple(row))
    return Grid(f"{dataset}: all trials, the selected ones bold", tuple(columns), tuple(rows))


def _outcome(trial: Mapping[str, Any], bold: bool) -> Cell:
    if trial["value"] is None:
        return Cell(trial["state"], note=trial["reason"])
    return Cell(plain(trial["value"]), trial["value"], bold=bold)


def _studies(tuning: Mapping[str, Any], dataset: str) -> Iterator[Mapping[str, Any]]:
    return (study for study in tuning["studies"] if study["dataset"] == dataset)


def _tried(trial: Mapping[str, Any]) -> dict[str, Any]:
    return {
        f"{part}.{name}": value for part in ("training", "options") for name, value in trial[part].items()
    }


def _words(trial: Mapping[str, Any]) -> str:
    """``lr = 0.003, weight = 2``."""
    values = {**trial["training"], **trial["options"]}
    return ", ".join(f"{name} = {_setting(value)}" for name, value in values.items())


def _range(key: str, search: Mapping[str, Any]) -> str:
    name = key.partition(".")[2]
    if "choices" in search:
        return f"{name} of {', '.join(_setting(choice) for choice in search['choices'])}"
    scale = ", logarithmic" if search["log"] else ""
    return f"{name} {_setting(search['low'])} to {_setting(search['high'])}{scale}"


def _setting(value: Any) -> str:
    """As a suite file would have it, with four significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else shown(value)


def _distance(run: Run, trial: Mapping[str, Any]) -> float | None:
    """How far the trial's codes are from N(0, I), where that was measured and the trial's result is still there."""
    folder = run.path / "tuning" / "cells" / trial["cell"]
    record = CellRecord("", "", "", 0, {}, folder)
    if not trial["cell"] or record.status != "done":
        return None
    normal = record.result["diagnostics"].get("normal")
    return None if normal is None else float(normal["mmd"])


def _label(run: Run, tuning: Mapping[str, Any]) -> str:
    info = run.suite["metric_info"].get(tuning["metric"])
    return str(info["label"]) if info else str(tuning["metric"])
