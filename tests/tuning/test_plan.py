"""What is known of a tuning before any trial: seeds, faults, what is to come."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from regbench.errors import SuiteError, UsageError
from regbench.execution.planning import PlannedCell
from tests.tuning.suites import AE, FIXED, plan, write


def test_trials_share_a_seed_that_no_cell_has(place: Path) -> None:
    write(place, AE, seeds=5)
    ready = plan(place)
    specs = [ready.studies[0].trial_spec(number, {"training.lr": 0.01}) for number in range(3)]
    seeds = {spec.seed for spec in specs}
    assert len(seeds) == 1
    assert not seeds & set(range(10_000))
    assert specs[0].key()["evaluated_on"] == "held-out images"
    assert "test_images" not in specs[0].key()["dataset"]


def test_batches_larger_than_the_training_images_are_refused(place: Path) -> None:
    write(place, AE, search="batch_size = { low = 8, high = 91 }")
    with pytest.raises(SuiteError, match=r"tuning.search.batch_size = 91: expected at most 90"):
        plan(place)


def test_a_plan_without_optuna_says_what_to_install(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(place, AE)
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(UsageError, match="Optuna") as caught:
        plan(place)
    assert caught.value.hint == "pip install 'regbench[tuning]'"


def test_the_plan_counts_what_is_to_come(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from regbench.cli.run import plan as show

    write(place, AE + FIXED, seeds=2)
    options = {"suite": place / "tuned.toml", "device": "cpu", "plugin": [place / "plugin.py"]}
    show(**options, probe=True)
    printed = capsys.readouterr().out
    assert "3 trials for each method and data set; selected is the best mse on the held-out images" in printed
    assert "the budgets are not equal: fixed" in printed
    assert "2 to run, 0 not; 2 once their settings are selected; about" in printed
    show(**options, as_json=True)
    record = json.loads(capsys.readouterr().out)
    ae, fixed = record["tuning"]["studies"]
    assert (ae["missing"], fixed["missing"], fixed["estimate"]) == (3, 0, None)
    assert ae["estimate"]["seconds"] > 0
    cells: list[PlannedCell] = list(plan(place).cells)
    assert [cell.state for cell in cells] == ["waiting", "waiting", "todo", "todo"]
