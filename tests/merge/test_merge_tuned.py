"""Runs with tuning: each machine tunes other methods, and the merged run has all trials and all cells."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import regbench
from regbench.errors import StoreError
from regbench.merge import merge
from regbench.reproduce import reproduce
from regbench.store.records import Run
from tests.tuning.suites import AE, FRAIL, plan, run, study

METHODS = AE + FRAIL % "false"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``a/tuned`` has tuned and run AE, ``b/tuned`` the other method."""
    place = tmp_path_factory.mktemp("tuned")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        patch.delenv("REGBENCH_RUNS", raising=False)
        for folder, method in (("a", "AE"), ("b", "frail")):
            run(place, METHODS, only=[method])
            (place / "runs").rename(place / folder)
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return tmp_path


def test_trials_and_what_they_selected_come_together(place: Path) -> None:
    done = merge(["a/tuned", "b/tuned"], Path("runs/tuned"))
    assert (done.finished, done.cells) == (2, 2)
    merged = Run.open(Path("runs/tuned"))
    assert study(merged, "AE") == study(Run.open(Path("a/tuned")), "AE")
    assert study(merged, "frail") == study(Run.open(Path("b/tuned")), "frail")
    assert [study.pending for study in plan(place).studies] == [0, 0], "no trial is run again"
    assert [cell.state for cell in plan(place).cells] == ["finished", "finished"]
    assert regbench.load_results("tuned")["mse"].notna().all()


def test_what_was_merged_can_be_made_again(place: Path) -> None:
    merge(["a/tuned", "b/tuned"], Path("c"))
    (trial,) = Path("c/tuning/cells").glob("marked-ae-trial-0-*")
    made = reproduce(trial, device="cpu", plugins=["plugin.py"])
    assert (made.cell, made.verdict) == ("marked AE trial 0", "identical")
    assert reproduce("c", "marked AE seed 0", device="cpu", plugins=["plugin.py"]).verdict == "identical"


def test_budgets_and_trials_that_differ_are_refused(place: Path) -> None:
    shutil.copytree("a", "d")
    lock = Path("d/tuned/suite.lock.json")
    original = json.loads(lock.read_text())
    changed = json.loads(lock.read_text())
    changed["suite"]["tuning"]["trials"] = 4
    lock.write_text(json.dumps(changed))
    with pytest.raises(StoreError, match="the suites are tuned otherwise, trials: 3 and 4"):
        merge(["a/tuned", "d/tuned"], Path("c"))
    changed = json.loads(json.dumps(original))
    changed["suite"]["tuning"]["studies"][0]["trials"][0]["value"] = 0.5
    lock.write_text(json.dumps(changed))
    with pytest.raises(StoreError, match="marked AE has been tuned in both, to other trials"):
        merge(["a/tuned", "d/tuned"], Path("c"))
    original["suite"]["tuning"] = None
    lock.write_text(json.dumps(original))
    with pytest.raises(StoreError, match="only one of the suites is tuned"):
        merge(["a/tuned", "d/tuned"], Path("c"))


def test_an_altered_trial_is_named(place: Path) -> None:
    weights = next(Path("b/tuned/tuning/cells").glob("*/result/weights.pt"))
    weights.write_bytes(b"other")
    with pytest.raises(StoreError, match=r"b/tuned/tuning/cells/.*weights.pt has been altered"):
        merge(["a/tuned", "b/tuned"], Path("c"))
