"""A cell that is stopped and continued gives the numbers of one that never was."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from regbench.execution.events import CellResumed
from regbench.execution.interrupt import Stop, StopSignal, stoppable
from regbench.store.records import read_metrics
from tests.execution.resuming import BATCHES, METHODS, SUITE, Numbers, Place, collector, stop


@pytest.mark.parametrize("method", METHODS)
def test_stopped_in_every_phase_and_continued(place: Place, method: str, whole: dict[str, Numbers]) -> None:
    stop(place, method, 4)  # after three batches of the warm-up
    stop(place, method, 2, "epoch")  # at an epoch's end
    stop(place, method, BATCHES + 2)  # in the epoch that begins the regularization
    stop(place, method, 4)  # in a later one
    events, emit = collector()
    assert place.run(method, emit=emit).status == "done"
    assert place.numbers(method) == whole[method]
    resumed = place.record(method).result["cost"]["resumed"]
    assert [(entry["epoch"], entry["batch"]) for entry in resumed] == [(0, 3), (1, 0), (2, 1), (2, 4)]
    assert [entry["attempt"][0] for entry in resumed] == ["1", "2", "3", "4"]
    assert not any("note" in entry for entry in resumed)
    assert [(e.epoch, e.batch, e.notes) for e in events if isinstance(e, CellResumed)] == [(2, 4, ())]
    assert place.checkpoints(method) == [], "what is finished needs none"


def test_bf16_is_continued_bit_for_bit(tmp_path: Path, undisturbed: Place) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    whole, place = (Place(tmp_path / name, epochs=3, precision="bf16") for name in ("a", "b"))
    whole.judged_as(undisturbed)
    place.judged_as(undisturbed)
    whole.run("ProtoVAE")
    stop(place, "ProtoVAE", 13)
    place.run("ProtoVAE")
    assert place.numbers("ProtoVAE") == whole.numbers("ProtoVAE")


def test_an_attempts_end_and_history_tell_of_the_stop(place: Place) -> None:
    stop(place, "AE", 8)
    (outcome,) = place.directory("AE").glob("attempts/*/outcome.json")
    assert json.loads(outcome.read_text())["status"] == "interrupted"
    stop(place, "AE", 7)
    second = next(place.directory("AE").glob("attempts/2-*"))
    assert [row["epoch"] for row in read_metrics(second / "metrics.jsonl")] == [1, 2], (
        "the first one's come first"
    )
    assert [row["epoch"] for row in place.record("AE").history] == [1, 2]


def test_an_interval_writes_checkpoints_and_the_last_two_stay(
    tmp_path: Path, undisturbed: Place, whole: dict[str, Numbers]
) -> None:
    place = Place(tmp_path, every="1 epochs")
    place.judged_as(undisturbed)
    seen: list[list[str]] = []

    def look(event: Any) -> None:
        seen.append([path.name for path in place.checkpoints("VAE-KL")])

    place.run("VAE-KL", emit=look)
    # The event of an epoch comes before its checkpoint.
    assert seen == [
        [],
        ["000001-000000.ckpt"],
        ["000001-000000.ckpt", "000002-000000.ckpt"],
        ["000002-000000.ckpt", "000003-000000.ckpt"],
    ]
    assert place.numbers("VAE-KL") == whole["VAE-KL"]


def test_a_time_that_passes_within_an_epoch_writes_one_there(
    tmp_path: Path, undisturbed: Place, whole: dict[str, Numbers]
) -> None:
    place = Place(tmp_path, every="0.000001s")
    place.judged_as(undisturbed)
    names: set[str] = set()
    place.run(
        "ProtoVAE", emit=lambda event: names.update(path.name for path in place.checkpoints("ProtoVAE"))
    )
    assert "000000-000004.ckpt" in names, "before the last batch of the first epoch"
    assert place.numbers("ProtoVAE") == whole["ProtoVAE"]


def test_no_interval_and_no_stop_write_nothing(place: Place) -> None:
    found: list[Path] = []
    place.run("AE", emit=lambda event: found.extend(place.checkpoints("AE")))
    assert found == []


def test_fresh_begins_anew(place: Place, whole: dict[str, Numbers]) -> None:
    stop(place, "AE", 8)
    events, emit = collector()
    place.run("AE", emit=emit, fresh=True)
    assert not any(isinstance(event, CellResumed) for event in events)
    assert place.record("AE").result["cost"]["resumed"] == []
    assert place.numbers("AE") == whole["AE"]


def test_a_stop_before_the_first_batch_loses_nothing_and_writes_nothing(place: Place) -> None:
    stop(place, "AE", 1)
    assert place.checkpoints("AE") == []


METRIC = '''
import os
import regbench

TRAINED = []


class Disturbing(regbench.Metric):
    """The squared error; does ``DISTURB`` when it is asked about all test images."""

    name, label, better, definition = "disturbing", "disturbing", "lower", "made up"

    def per_image(self, x_BCHW, logits_BCHW):
        if len(x_BCHW) == 40 and os.environ.get("DISTURB"):
            exec(os.environ["DISTURB"])
        return (x_BCHW - logits_BCHW.sigmoid()).pow(2).flatten(1).mean(1)


@regbench.hookimpl
def regbench_metrics():
    return [Disturbing]
'''


@pytest.fixture
def disturbed(tmp_path: Path, undisturbed: Place) -> Place:
    (tmp_path / "disturbing.py").write_text(METRIC)
    text = SUITE.format(epochs=3, precision="fp32").replace('"ssim"', '"ssim", "disturbing"')
    place = Place(tmp_path, text)
    place.judged_as(undisturbed)
    return place


@pytest.mark.parametrize(
    ("disturbance", "ends"),
    [
        ("os.kill(os.getpid(), 15)", Stop),
        ("os.kill(os.getpid(), 2); os.kill(os.getpid(), 2)", Stop),
        ("raise RuntimeError('no')", "failed"),
    ],
)
def test_what_ends_the_evaluation_does_not_cost_the_training(
    disturbed: Place, monkeypatch: pytest.MonkeyPatch, disturbance: str, ends: Any
) -> None:
    place = disturbed
    monkeypatch.setenv("DISTURB", disturbance)
    if ends is Stop:
        with pytest.raises(Stop) as stopped, stoppable() as asked:
            place.run("AE", asked)
        assert stopped.value.exit_code == (143 if "15" in disturbance else 130)
    else:
        assert place.run("AE").status == ends
    assert [path.name for path in place.checkpoints("AE")] == ["000003-000000.ckpt"]
    monkeypatch.delenv("DISTURB")
    monkeypatch.setattr("regbench.training.trainer.Trainer.run_epoch", None)  # nothing is trained any more
    assert place.run("AE").status == "done"
    assert place.checkpoints("AE") == []


def test_ctrl_c_in_the_evaluation_finishes_the_cell(
    disturbed: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = disturbed
    monkeypatch.setenv("DISTURB", "os.kill(os.getpid(), 2); os.environ.pop('DISTURB')")
    said: list[str] = []
    with stoppable(announce=said.append) as asked:
        assert place.run("AE", asked).status == "done"
        assert asked.level == "epoch"
        with pytest.raises(Stop) as stopped:
            asked.check()
    assert stopped.value.exit_code == 130
    assert said[0].startswith("finishing the cell, then stopping")


def test_a_signal_asked_from_outside_reaches_the_training(place: Place) -> None:
    before = signal.getsignal(signal.SIGINT)  # ignored, where a shell has put the tests into the background
    with pytest.raises(Stop):
        place.run("AE", StopSignal(also=lambda: "batch"))
    assert signal.getsignal(signal.SIGINT) is before
