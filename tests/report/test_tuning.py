"""The report of a tuning: budgets, spaces, every trial, the selected ones marked."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest

from regbench.report.build import write_report
from regbench.report.facts import Facts
from regbench.report.numbers import NOTHING
from regbench.report.section import Section
from regbench.report.tuning import trials_frame, tuning_section
from regbench.store.records import LOCK, Run
from tests.report.synthetic import make_run

METHODS = ("AE", "VAE-KL", "fixed")
LR = {"low": 1e-4, "high": 1e-2, "log": True}


def trial(
    number: int, value: float | None, *, lr: float, chosen: bool = False, **more: Any
) -> dict[str, Any]:
    state = "done" if value is not None else "diverged"
    reason = "" if value is not None else "loss is NaN"
    defaults = {"options": {}, "state": state, "reason": reason, "chosen": chosen, "cell": ""}
    return {"number": number, "training": {"lr": lr}, "value": value, **defaults, **more}


TUNING: dict[str, Any] = {
    "trials": 2,
    "metric": "mse",
    "better": "lower",
    "seed": 4,
    "epochs": 3,
    "sampler": "TPE of Optuna 5.0.0",
    "space": {
        "AE": {"training.lr": LR},
        "VAE-KL": {"training.lr": LR, "options.kernel": {"choices": ["a", "b"], "log": True}},
        "fixed": {},
    },
    "studies": [
        {
            "dataset": "digits",
            "method": "AE",
            "trials": [trial(0, 0.25, lr=0.001), trial(1, 0.125, lr=0.00345678, chosen=True)],
        },
        {
            "dataset": "digits",
            "method": "VAE-KL",
            "trials": [
                trial(0, 0.5, lr=0.002, options={"kernel": "b"}, chosen=True),
                trial(1, None, lr=0.01, options={"kernel": "a"}),
            ],
        },
        {"dataset": "digits", "method": "fixed", "trials": []},
    ],
}


def tuned(path: Path, tuning: Any = TUNING) -> Run:
    make_run(path, METHODS, ["digits"], seeds=1, test_images=16, shown=8, epochs=3, warmup=1)
    lock = json.loads((path / LOCK).read_text())
    lock["suite"]["tuning"] = tuning
    (path / LOCK).write_text(json.dumps(lock))
    return Run.open(path)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return tuned(tmp_path_factory.mktemp("runs") / "tuned")


@pytest.fixture(scope="module")
def section(run: Run) -> Section:
    found = tuning_section(run)
    assert found is not None
    return found


def texts(section: Section, grid: int) -> list[list[str]]:
    return [[cell.text for cell in row] for row in section.grids[grid].rows]


def test_a_run_without_tuning_has_none(tmp_path: Path) -> None:
    assert tuning_section(tuned(tmp_path / "null", None)) is None
    plain = make_run(tmp_path / "older", METHODS, ["digits"], seeds=1, test_images=16, shown=8)
    assert "tuning" not in plain.suite
    assert tuning_section(plain) is None


def test_the_summary_says_what_was_searched_and_selected(section: Section) -> None:
    lr = "lr 0.0001 to 0.01, logarithmic"
    assert texts(section, 0) == [
        ["digits", "AE", lr, "2/2", "0", "lr = 0.003457", "0.1250"],
        ["digits", "VAE-KL", f'{lr}; kernel of "a", "b"', "2/2", "1", 'lr = 0.002, kernel = "b"', "0.5000"],
        ["digits", "fixed", "nothing", "0/0", "0", NOTHING, NOTHING],
    ]


def test_unequal_budgets_and_the_trap_of_reconstruction_are_said(section: Section, tmp_path: Path) -> None:
    unequal, trap = section.grids[0].notes
    assert unequal.endswith("the budgets are not equal: fixed.")
    assert "favours whatever regularizes least" in trap
    plain = {**TUNING, "space": {name: {"training.lr": LR} for name in METHODS}}
    found = tuning_section(tuned(tmp_path / "plain", plain))
    assert found is not None
    assert found.grids[0].notes == ()


def test_every_trial_is_listed_and_the_selected_ones_are_bold(section: Section) -> None:
    assert texts(section, 1) == [
        ["AE", "0", "lr = 0.001", "0.2500"],
        ["AE", "1", "lr = 0.003457", "0.1250"],
        ["VAE-KL", "0", 'lr = 0.002, kernel = "b"', "0.5000"],
        ["VAE-KL", "1", 'lr = 0.01, kernel = "a"', "diverged"],
    ]
    bold = [[cell.bold for cell in row] for row in section.grids[1].rows]
    assert bold == [[False] * 4, [True] * 4, [True] * 4, [False] * 4]
    assert section.grids[1].rows[3][3].note == "loss is NaN"


def test_the_text_says_on_which_images_and_with_what_budget(section: Section) -> None:
    assert "2 trials on each data set, each of 3 epochs" in section.text
    assert "best MSE (lower is better)" in section.text
    assert "measured on the held-out images" in section.text


def test_the_frame_has_full_precision(run: Run) -> None:
    frame = trials_frame(run)
    assert list(frame["training.lr"]) == [0.001, 0.00345678, 0.002, 0.01]
    assert list(frame["mse"].dropna()) == [0.25, 0.125, 0.5]
    assert list(frame["chosen"]) == [False, True, True, False]
    assert list(frame["options.kernel"].dropna()) == ["b", "a"]
    assert frame["normal_mmd"].isna().all()


def test_the_distance_of_a_trials_codes_is_shown_where_it_was_measured(tmp_path: Path) -> None:
    run = tuned(tmp_path / "measured")
    source = run.cells[0].directory
    (run.path / "tuning" / "cells").mkdir(parents=True)
    source.rename(run.path / "tuning" / "cells" / "a-trial")
    result = run.path / "tuning" / "cells" / "a-trial" / "result"
    content = json.loads((result / "result.json").read_text())
    content["diagnostics"]["normal"] = {"mmd": 0.75}
    (result / "result.json").write_text(json.dumps(content))
    manifest = json.loads((result / "manifest.json").read_text())
    manifest["sha256"]["result.json"] = hashlib.sha256((result / "result.json").read_bytes()).hexdigest()
    (result / "manifest.json").write_text(json.dumps(manifest))
    run.suite["tuning"] = json.loads(json.dumps(TUNING))
    run.suite["tuning"]["studies"][0]["trials"][1]["cell"] = "a-trial"
    section = tuning_section(run)
    assert section is not None
    assert section.grids[1].columns[-1] == "MMD to N(0, I)"
    assert [row[-1].text for row in section.grids[1].rows] == [NOTHING, "0.7500", NOTHING, NOTHING]


def test_a_method_lists_what_was_selected_for_it_on_each_data_set(tmp_path: Path) -> None:
    path = tmp_path / "two"
    make_run(path, ["VAE-KL"], ["digits", "letters"], seeds=2, test_images=16, shown=8, epochs=3, warmup=1)
    lock = json.loads((path / LOCK).read_text())
    for cell in lock["cells"]:
        cell["key"]["regularizer"]["options"] = {"weight": {"digits": 0.5, "letters": 2.0}[cell["dataset"]]}
    (path / LOCK).write_text(json.dumps(lock))
    (method,) = Facts(Run.open(path)).methods
    assert method.options == (("weight", "0.5, 2.0"),)


def test_it_is_part_of_the_report(run: Run, tmp_path: Path) -> None:
    write_report(run, tmp_path / "report")
    assert (tmp_path / "report" / "trials.csv").read_text().count("\n") == 5
    page = (tmp_path / "report" / "report.html").read_text()
    assert "What was searched, and what was selected" in page
