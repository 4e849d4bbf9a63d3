"""Whole runs with tuning: equal budgets, held-out images alone, resumed without training anything twice."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import regbench
from regbench.cell import settings_of
from regbench.data.base import Images
from regbench.data.split import prepare
from regbench.errors import CellsFailed, SuiteError, UsageError
from regbench.execution.planning import PlannedCell
from regbench.model import build_model
from regbench.plugins import registry
from regbench.store.records import CellRecord, Run

SUITE = """
[suite]
name = "tuned"
seeds = {seeds}
metrics = ["mse", "psnr"]

[model]
latent = 4
features = 8
widths = [2]

[training]
epochs = 2
warmup = 1
batch_size = 16

[tuning]
trials = 3
metric = "{metric}"
{more}

[tuning.search]
{search}

[[datasets]]
name = "marked"
"""
LR = "lr = { low = 1e-4, high = 0.1 }"
AE = """
[[regularizers]]
name = "ae"
label = "AE"
"""
FRAIL = """
[[regularizers]]
name = "frail"
label = "frail"
search = { weight = { low = 0.1, high = 1 }, falls = { choices = [%s] } }
"""
FIXED = """
[[regularizers]]
name = "vae-kl"
label = "fixed"
training = { lr = 0.001 }
"""

PLUGIN = '''
import json
import os
from pathlib import Path

import numpy as np
import regbench


class Marked(regbench.Dataset):
    """100 training and 20 test images; the environment says which of them are others than usual."""

    name = "marked"

    @property
    def shape(self):
        return regbench.ImageShape(1, 8)

    def sizes(self, root):
        return regbench.Sizes(100, 20)

    def fingerprint(self, root):
        return "sha256:marked"

    def load(self, root):
        rng = np.random.RandomState(0)
        train = (rng.rand(100, 1, 8, 8) * 255).astype(np.uint8)
        test = (rng.rand(20, 1, 8, 8) * 255).astype(np.uint8)
        train[json.loads(os.environ.get("OTHER_TRAIN", "[]"))] = 255
        if os.environ.get("OTHER_TEST"):
            test[:] = 255
        labels = [np.arange(len(images), dtype=np.int64) % 2 for images in (train, test)]
        return regbench.Images(train, labels[0], test, labels[1], ("even", "odd"))


class Frail(regbench.Regularizer):
    """Raises in its first regularized step where it is asked to."""

    name = "frail"

    class Options(regbench.Options):
        weight: float = regbench.Field(0.5, ge=0, description="factor")
        falls: bool = regbench.Field(False, description="raise")

    def forward(self, code_BD, h_BF):
        if self.options.falls:
            raise RuntimeError("I fell")
        return code_BD, {"size": self.options.weight * code_BD.pow(2).sum(1).mean()}


@regbench.hookimpl
def regbench_datasets():
    return [Marked]


@regbench.hookimpl
def regbench_regularizers():
    return [Frail]
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return tmp_path


def write(
    place: Path, methods: str, search: str = LR, seeds: int = 1, metric: str = "mse", more: str = ""
) -> None:
    text = SUITE.format(search=search, seeds=seeds, metric=metric, more=more) + methods
    (place / "tuned.toml").write_text(text)
    (place / "plugin.py").write_text(PLUGIN)


def arguments(place: Path) -> dict[str, Any]:
    return {"suite": place / "tuned.toml", "device": "cpu", "plugins": [place / "plugin.py"]}


def run(place: Path, methods: str = AE, *, events: list[Any] | None = None, **changes: Any) -> Run:
    wishes = {key: changes.pop(key) for key in ("force", "only") if key in changes}
    write(place, methods, **changes)
    listen = (events if events is not None else []).append
    return regbench.run(**arguments(place), listener=listen, **wishes)


def plan(place: Path, **wishes: Any) -> Any:
    return regbench.plan(**arguments(place), **wishes)


def started(events: Sequence[Any]) -> list[str]:
    return [event.cell for event in events if type(event).__name__ == "CellStarted"]


def study(finished: Run, method: str) -> list[dict[str, Any]]:
    studies = {entry["method"]: entry["trials"] for entry in finished.suite["tuning"]["studies"]}
    return list(studies[method])


def record(finished: Run, trial: dict[str, Any]) -> CellRecord:
    return CellRecord("", "", "", 0, {}, finished.path / "tuning" / "cells" / trial["cell"])


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
