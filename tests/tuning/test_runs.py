"""Whole runs with tuning: equal budgets, held-out images alone, resumed without training anything twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regbench
from regbench.cell import settings_of
from regbench.data.base import Images
from regbench.data.split import prepare
from regbench.errors import CellsFailed, UsageError
from regbench.model import build_model
from regbench.plugins import registry
from regbench.store.records import Run
from tests.tuning.suites import AE, FIXED, FRAIL, arguments, plan, record, run, started, study, write


def test_budgets_are_equal_and_the_best_trial_becomes_the_methods_settings(place: Path) -> None:
    events: list[Any] = []
    finished = run(place, AE + FRAIL % "false", seeds=2, events=events)
    for method in ("AE", "frail"):
        trials = study(finished, method)
        assert [trial["number"] for trial in trials] == [0, 1, 2]
        assert {trial["state"] for trial in trials} == {"done"}
        (chosen,) = (trial for trial in trials if trial["chosen"])
        assert chosen["value"] == min(trial["value"] for trial in trials)
        for cell in finished.select(method=method):
            assert cell.status == "done"
            assert cell.key["training"]["lr"] == chosen["training"]["lr"]
            assert chosen["options"].items() <= cell.key["regularizer"]["options"].items()
            assert "evaluated_on" not in cell.key
    assert len({trial["training"]["lr"] for trial in study(finished, "AE")}) == 3
    assert [type(event).__name__ for event in events if "Epoch" not in type(event).__name__] == [
        "TuningStarted",
        *["CellStarted", "CellFinished"] * 3,
        "StudyFinished",
        *["CellStarted", "CellFinished"] * 3,
        "StudyFinished",
        "SuiteStarted",
        *["CellStarted", "CellFinished"] * 4,
        "SuiteFinished",
    ]
    numbers = [event.number for event in events if type(event).__name__ == "CellStarted"]
    assert numbers == [1, 2, 3, 4, 5, 6, 1, 2, 3, 4]
    again: list[Any] = []
    assert run(place, AE + FRAIL % "false", seeds=2, events=again).suite["tuning"] == finished.suite["tuning"]
    assert [type(event).__name__ for event in again] == ["SuiteStarted", "SuiteFinished"], (
        "nothing is trained twice"
    )


def split_as_trials_see_it(place: Path) -> Any:
    return prepare(registry([place / "plugin.py"]).dataset("marked").cls(regbench.Options()).load(place))


def test_a_trials_value_is_what_its_weights_give_on_the_held_out_images(place: Path) -> None:
    """Reconstruct them with the saved weights and numpy."""
    finished = run(place)
    ready = plan(place)
    heldout = split_as_trials_see_it(place).heldout
    assert len(heldout) == 10
    for trial in study(finished, "AE"):
        spec = ready.studies[0].trial_spec(trial["number"], {"training.lr": trial["training"]["lr"]})
        shape, settings = settings_of(spec)
        model = build_model(shape, registry().regularizers["ae"].cls, spec.options, seed=0)
        weights = record(finished, trial).result_dir / "weights.pt"
        model.load_state_dict(torch.load(weights, weights_only=True))
        with torch.no_grad():
            y = model.decode(model.encode(torch.from_numpy(heldout).float() / 255)).sigmoid().double().numpy()
        assert trial["value"] == pytest.approx(((heldout / 255 - y) ** 2).mean(), abs=1e-6)
        assert settings.adam.lr == trial["training"]["lr"]


def heldout_indices() -> list[int]:
    """Of images that are told apart by their first two pixels."""
    train = np.zeros((100, 1, 8, 8), dtype=np.uint8)
    train[:, 0, 0, 0] = np.arange(100)
    labels = np.zeros(100, dtype=np.int64)
    split = prepare(Images(train, labels, train[:20], labels[:20], ("x",)))
    return [int(index) for index in split.heldout[:, 0, 0, 0]]


def test_test_images_have_no_part_in_it_and_held_out_images_are_not_trained_on(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def trials(home: str) -> tuple[list[Any], list[Any], float]:
        (place / home).mkdir()
        monkeypatch.chdir(place / home)
        finished = run(place / home)
        entries = study(finished, "AE")
        weights = [
            torch.load(record(finished, trial).result_dir / "weights.pt", weights_only=True)
            for trial in entries
        ]
        return entries, weights, finished.cells[0].result["metrics"]["mean"]["mse"]

    def same(first: list[Any], second: list[Any]) -> bool:
        return all(torch.equal(a[name], b[name]) for a, b in zip(first, second, strict=True) for name in a)

    usual, weights, mse = trials("usual")
    monkeypatch.setenv("OTHER_TEST", "1")
    entries, _, other_mse = trials("other-test")
    assert other_mse != mse, "the test images did change"
    assert entries == usual, "the trials do not see it"
    monkeypatch.delenv("OTHER_TEST")
    monkeypatch.setenv("OTHER_TRAIN", json.dumps(heldout_indices()))
    entries, others, _ = trials("other-heldout")
    # The first trial asks for the same settings, whatever is answered.
    assert entries[0]["training"] == usual[0]["training"]
    assert entries[0]["value"] != usual[0]["value"], "the held-out images did change"
    assert same(weights[:1], others[:1]), "no weight has felt it"
    training = [index for index in range(100) if index not in heldout_indices()]
    monkeypatch.setenv("OTHER_TRAIN", json.dumps(training[:5]))
    _, others, _ = trials("other-training")
    assert not same(weights[:1], others[:1]), "this comparison can fail"


def test_an_interrupted_tuning_goes_on_where_it_stopped(place: Path) -> None:
    write(place, AE)
    seen: list[Any] = []

    def stop(event: Any) -> None:
        seen.append(event)
        if type(event).__name__ == "EpochFinished" and len(started(seen)) == 2:
            raise KeyError("stop here")

    with pytest.raises(KeyError, match="stop here"):
        regbench.run(**arguments(place), listener=stop)
    half = Run.open(place / "runs" / "tuned")
    assert [cell.status for cell in half.cells] == ["missing"]
    ready = plan(place)
    assert (len(ready.studies[0].trials), ready.studies[0].pending) == (1, 2)
    assert [cell.state for cell in ready.cells] == ["waiting"]
    assert ready.cells[0].why == "tuning comes first: 2 of 3 trials are missing"
    events: list[Any] = []
    resumed = run(place, events=events)
    assert started(events) == ["marked AE trial 1", "marked AE trial 2", "marked AE seed 0"]
    (place / "fresh").mkdir()
    os.chdir(place / "fresh")
    assert run(place / "fresh").suite["tuning"] == resumed.suite["tuning"]


def test_a_failed_trial_counts_and_is_not_tried_again_unless_it_is_forced(place: Path) -> None:
    finished = run(place, FRAIL % "false, true")
    trials = study(finished, "frail")
    failed = [trial for trial in trials if trial["state"] == "failed"]
    assert len(trials) == 3
    assert failed, "the seed of this test must draw one"
    for trial in failed:
        assert trial["value"] is None
        assert "I fell" in trial["reason"]
        assert not trial["chosen"]
    events: list[Any] = []
    run(place, FRAIL % "false, true", events=events)
    assert started(events) == []
    name = f"frail trial {failed[0]['number']}"
    run(place, FRAIL % "false, true", events=events, force=[name])
    assert started(events) == [f"marked {name}"]


def test_where_all_trials_fail_the_method_is_not_run_and_the_others_are(place: Path) -> None:
    with pytest.raises(CellsFailed, match=r"marked frail: all 3 trials failed.*I fell"):
        run(place, FRAIL % "true" + AE)
    finished = Run.open(place / "runs" / "tuned")
    assert {cell.method: cell.status for cell in finished.cells} == {"frail": "missing", "AE": "done"}
    assert {trial["state"] for trial in study(finished, "frail")} == {"failed"}
    assert plan(place).cells[0].why == "all 3 trials of its tuning failed"


def test_a_method_without_a_space_has_no_trials_and_keeps_its_settings(place: Path) -> None:
    finished = run(place, FIXED + AE)
    assert study(finished, "fixed") == []
    assert finished.suite["tuning"]["space"]["fixed"] == {}
    (cell,) = finished.select(method="fixed")
    assert (cell.status, cell.key["training"]["lr"]) == ("done", 0.001)


def test_only_tunes_no_method_that_is_left_out(place: Path) -> None:
    events: list[Any] = []
    finished = run(place, AE + FRAIL % "false", only=["frail"], events=events)
    assert all("frail" in name for name in started(events))
    assert {cell.method: cell.status for cell in finished.cells} == {"AE": "missing", "frail": "done"}
    assert study(finished, "AE") == []
    with pytest.raises(UsageError, match="fits no cell"):
        plan(place, only=["AE trial 1"])


def test_methods_that_come_to_the_same_settings_share_one_result(place: Path) -> None:
    twice = AE + AE.replace('label = "AE"', 'label = "also AE"\ntraining = { lr = 0.01 }')
    events: list[Any] = []
    finished = run(place, twice, search="lr = { choices = [0.01] }", events=events)
    assert started(events) == ["marked AE trial 0", "marked AE seed 0"], "one trial, asked for three times"
    assert len(study(finished, "AE")) == 3
    assert [cell.status for cell in finished.cells] == ["done", "done"]
    assert finished.cells[0].directory == finished.cells[1].directory


def test_the_higher_value_is_selected_where_higher_is_better(place: Path) -> None:
    finished = run(place, metric="psnr", more="epochs = 3\nseed = 7")
    trials = study(finished, "AE")
    (chosen,) = (trial for trial in trials if trial["chosen"])
    assert (
        chosen["value"] == max(trial["value"] for trial in trials) != min(trial["value"] for trial in trials)
    )
    assert [len(record(finished, trial).history) for trial in trials] == [3, 3, 3]
    assert len(finished.cells[0].history) == 2
