"""Diagnostics of an earlier version, or by another classifier, are measured again; nothing is trained."""

from __future__ import annotations

import hashlib
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

import regbench
from regbench import cell as cell_module
from regbench.evaluation import EVALUATION
from regbench.execution import runner
from regbench.store.records import CellRecord, Run
from regbench.training.trainer import Trainer
from tests.execution.suites import AE, write_suite

PROTO = """
[[regularizers]]
name = "proto-vae"
label = "Proto"
options = { prototypes = 3 }
"""
NEW = ("evaluation", "classes", "classifier")
NEW_DIAGNOSTICS = ("prior", "normal", "cluster_prior", "spectrum", "probe", "samples")


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return tmp_path


def run(place: Path, methods: str = AE, **changes: Any) -> Run:
    return regbench.run(write_suite(place, methods), device="cpu", **changes)


def only_cell(place: Path) -> Any:
    (planned,) = regbench.plan(place / "tiny.toml", device="cpu").cells
    return planned


def make_old(cell: CellRecord) -> None:
    """The result as the first version of the evaluation wrote it."""
    file = cell.result_dir / "result.json"
    result = json.loads(file.read_text())
    for name in NEW:
        del result[name]
    for name in NEW_DIAGNOSTICS:
        del result["diagnostics"][name]
    file.write_text(json.dumps(result))
    manifest = cell.result_dir / "manifest.json"
    sums = json.loads(manifest.read_text())
    sums["sha256"]["result.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
    manifest.write_text(json.dumps(sums))


def never(*_: Any, **__: Any) -> Any:
    raise AssertionError("this must not be called")


def test_an_old_result_is_measured_again_from_its_weights(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = run(place, PROTO).cells[0]
    measured, weights = before.result, before.verified("weights.pt")
    make_old(before)
    planned = only_cell(place)
    assert planned.state == "remeasure"
    assert planned.why == (
        "to be measured from its saved weights: diagnostics, which an earlier version measured"
    )
    monkeypatch.setattr(Trainer, "run_epoch", never)
    after = run(place, PROTO).cells[0]
    assert after.verified("weights.pt") == weights
    assert after.result == measured
    assert after.history == before.history
    assert only_cell(place).state == "finished"


def test_ctrl_c_while_a_result_is_measured_again_finishes_the_cell(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = run(place).cells[0].result
    make_old(Run.open(place / "runs" / "tiny").cells[0])
    assess = cell_module.assess

    def interrupted(*arguments: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return assess(*arguments)

    monkeypatch.setattr(cell_module, "assess", interrupted)
    assert run(place).cells[0].result == measured


def test_a_result_holds_its_version_classes_and_classifier(place: Path) -> None:
    finished = run(place, PROTO)
    result, known = finished.cells[0].result, finished.classifier("digits")
    assert known is not None
    assert result["evaluation"] == EVALUATION
    assert result["classes"] == [str(digit) for digit in range(10)]
    assert result["classifier"] == {"sha256": known["sha256"], "accuracy": known["accuracy"]}
    assert known.keys() == {
        *("sha256", "accuracy", "knn_pixels", "linear_pixels", "clusters_pixels", "floors"),
        *("references", "basis"),
    }
    assert finished.classifier("mnist") is None
    arrays = finished.cells[0].arrays()
    assert arrays["synthesis"].shape == (10, 4, 4, 1, 16, 16)
    assert arrays["spectrum"].shape == (4,)
    frame = regbench.load_results("tiny")
    for column in ("prior_mmd", "normal_sw2", "probe_knn", "samples_frechet", "cluster_prior_sw2"):
        assert frame[column].notna().all(), column


def test_the_classifier_is_trained_once_and_kept_with_its_checksum(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(place).classifier("digits")
    assert first is not None
    weights = place / "runs" / "tiny" / "derived" / "classifier" / "digits.pt"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == first["sha256"]
    with monkeypatch.context() as patch:
        patch.setattr(runner, "train_classifier", never)
        again = run(place, AE + PROTO)
    assert again.classifier("digits") == first
    assert again.cells[1].result["classifier"]["sha256"] == first["sha256"]
    weights.write_bytes(b"torn")
    assert run(place, force=["AE"]).classifier("digits") == first, "trained anew, to the same weights"
    assert hashlib.sha256(weights.read_bytes()).hexdigest() == first["sha256"]


def test_references_of_an_earlier_version_are_completed_and_the_classifier_kept(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run(place).classifier("digits")
    assert first is not None
    facts = place / "runs" / "tiny" / "derived" / "classifier" / "digits.json"
    facts.write_text(
        json.dumps({k: v for k, v in first.items() if k not in ("clusters_pixels", "references")})
    )
    monkeypatch.setattr(runner, "train_classifier", never)
    assert run(place, AE + PROTO).classifier("digits") == first


def test_other_images_get_another_classifier(place: Path) -> None:
    first = run(place).classifier("digits")
    suite = place / "tiny.toml"
    suite.write_text(suite.read_text().replace("train_images = 64", "train_images = 96"))
    second = regbench.run(suite, device="cpu").classifier("digits")
    assert first is not None
    assert second is not None
    assert second["basis"]["dataset"]["train_images"] == 96
    assert second["sha256"] != first["sha256"]
    write_suite(place, AE)
    assert only_cell(place).state == "finished", "a classifier of other images says nothing about this cell"


def test_samples_that_another_classifier_judged_are_judged_again(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(place)
    facts = place / "runs" / "tiny" / "derived" / "classifier" / "digits.json"
    known = json.loads(facts.read_text())
    weights = facts.with_suffix(".pt")
    state = torch.load(weights, weights_only=True)
    state["head.bias"] += 1  # what another version of torch might have trained
    torch.save(state, weights)
    known["sha256"] = hashlib.sha256(weights.read_bytes()).hexdigest()
    facts.write_text(json.dumps(known))
    planned = only_cell(place)
    assert planned.state == "remeasure"
    assert "sample quality, as the data set's classifier is another one now" in planned.why
    monkeypatch.setattr(Trainer, "run_epoch", never)
    assert run(place).cells[0].result["classifier"]["sha256"] == known["sha256"]
    assert only_cell(place).state == "finished"


def test_memory_is_noted_before_the_evaluation(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    assess, note = cell_module.assess, cell_module._Work._note_memory

    def assessed(*arguments: Any) -> Any:
        calls.append("assess")
        return assess(*arguments)

    def noted(work: Any) -> None:
        calls.append("memory")
        note(work)

    monkeypatch.setattr(cell_module, "assess", assessed)
    monkeypatch.setattr(cell_module._Work, "_note_memory", noted)
    run(place)
    assert calls == ["assess", "memory", "memory", "assess"], "rehearsal, two epochs, evaluation"
