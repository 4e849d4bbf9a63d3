"""Running suites: what is finished stays, what fails is seen, nothing stops the others."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

import regbench
from regbench.cell import settings_of
from regbench.data.digits import Digits
from regbench.data.split import prepare
from regbench.errors import CellsFailed, DataError, PluginError, StoreError, SuiteError, UsageError
from regbench.evaluation import metrics as bundled_metrics
from regbench.model import build_model
from regbench.plugins import registry
from regbench.store.records import Run
from regbench.workflow import SHOWN
from tests.execution.suites import AE, FALLING, PLUGIN, write_plugin, write_suite

METHODS = AE + FALLING.format(label="good", options="weight = 0.5")


def states(plan: Any) -> list[str]:
    return [cell.state for cell in plan.cells]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return tmp_path


def run(place: Path, methods: str = METHODS, **changes: Any) -> Run:
    suite_changes = {key: changes.pop(key) for key in ("seeds", "epochs", "metrics") if key in changes}
    events = changes.pop("events", [])
    suite = write_suite(place, methods, **suite_changes)
    plugin = write_plugin(place, changes.pop("plugin", PLUGIN))
    return regbench.run(suite, device="cpu", plugins=[plugin], listener=events.append, **changes)


def plan(place: Path, **changes: Any) -> Any:
    return regbench.plan(place / "tiny.toml", device="cpu", plugins=[place / "falling.py"], **changes)


def test_a_suite_runs_once_and_then_only_what_is_missing(place: Path) -> None:
    first: list[Any] = []
    finished = run(place, events=first)
    assert [cell.status for cell in finished.cells] == ["done", "done"]
    assert [type(event).__name__ for event in first] == [
        "SuiteStarted",
        *["CellStarted", "EpochFinished", "EpochFinished", "CellFinished"] * 2,
        "SuiteFinished",
    ]
    again: list[Any] = []
    run(place, events=again)
    assert [type(event).__name__ for event in again] == ["SuiteStarted", "SuiteFinished"]
    third: list[Any] = []
    run(place, seeds="2", events=third)
    assert sum(type(event).__name__ == "CellStarted" for event in third) == 2


def test_results_are_what_the_saved_weights_give(place: Path) -> None:
    """Load the weights, reconstruct, and measure with numpy and scikit-image instead."""
    cell = run(place, AE).cells[0]
    spec = plan(place).cells[0].spec
    shape, settings = settings_of(spec)
    model = build_model(shape, registry().regularizers["ae"].cls, spec.options, seed=0)
    model.load_state_dict(torch.load(cell.result_dir / "weights.pt", weights_only=True))
    test = prepare(Digits().load(place), 64, 40).test
    with torch.no_grad():
        y = model.decode(model.encode(torch.from_numpy(test).float() / 255)).sigmoid().double().numpy()
    x = test.astype(np.float64) / 255
    mse = ((x - y) ** 2).mean((1, 2, 3))
    ssim = [
        structural_similarity(
            a[0], b[0], data_range=1.0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(x, y, strict=True)
    ]
    assert cell.result["metrics"]["mean"]["mse"] == pytest.approx(mse.mean(), abs=1e-6)
    assert cell.result["metrics"]["mean"]["ssim"] == pytest.approx(np.mean(ssim), abs=1e-5)
    arrays = cell.arrays()
    np.testing.assert_allclose(arrays["per_image_mse"], mse, atol=1e-6)
    shown = np.round(y[arrays["shown_index"]] * 255).astype(int)
    assert np.abs(arrays["reconstructions"].astype(int) - shown).max() <= 1
    assert cell.result["ssim_audit"]["largest_difference"] < 1e-4
    cost = cell.result["cost"]
    assert cost["optimizer_steps"] == settings.epochs * (64 // 32)
    assert cost["wall_seconds"] > cost["device_seconds"] > 0
    assert [row["phase"] for row in cell.history] == ["warmup", "regularized"]


def test_a_failing_and_a_diverging_cell_stop_nobody(place: Path) -> None:
    methods = (
        FALLING.format(label="falls", options="fall = true")
        + FALLING.format(label="explodes", options="explode = true")
        + AE
    )
    with pytest.raises(CellsFailed, match="2 of 3 cells failed"):
        run(place, methods)
    falls, explodes, ae = Run.open(place / "runs" / "tiny").cells
    assert (falls.status, explodes.status, ae.status) == ("failed", "diverged", "done")
    assert "I fell" in falls.outcome["reason"]
    assert "RuntimeError" in falls.outcome["traceback"]
    assert explodes.history[-1]["epoch"] == 2, "the history of a diverged cell is kept"
    assert explodes.history[-1]["losses"]["loss"] in ("nan", "inf", "-inf")
    frame = regbench.load_results("tiny")
    assert list(frame["status"]) == ["failed", "diverged", "done"], "failed cells stay visible as rows"
    again: list[Any] = []
    with pytest.raises(CellsFailed, match="digits explodes seed 0: diverged"):
        run(place, methods, events=again)
    started = [event.cell for event in again if type(event).__name__ == "CellStarted"]
    assert started == ["digits falls seed 0"], "a failed cell is tried again, a diverged one is not"


def test_force_runs_again_and_sets_the_old_result_aside(place: Path) -> None:
    first = run(place)
    old = first.cells[0].result["finished"], first.cells[0].directory
    time.sleep(1.1)
    second = run(place, force=["AE"])
    assert second.cells[0].result["finished"] != old[0]
    assert len(list((old[1] / "superseded").iterdir())) == 1
    assert second.cells[1].result == first.cells[1].result
    with pytest.raises(UsageError, match="the pattern 'VAE' fits no cell"):
        run(place, force=["VAE"])


def test_a_forced_rerun_that_fails_is_said_and_keeps_the_earlier_result(place: Path) -> None:
    before = run(place).cells[1]
    spare = PLUGIN.replace("class Falling", "import os\n\n\nclass Falling").replace(
        "if self.options.fall:", 'if os.environ.get("FALL"):'
    )
    run(place, plugin=spare)
    os.environ["FALL"] = "1"
    events: list[Any] = []
    try:
        with pytest.raises(
            CellsFailed, match=r"good seed 0: failed: RuntimeError: I fell; its earlier result stays"
        ):
            run(place, plugin=spare, force=["good"], events=events)
    finally:
        del os.environ["FALL"]
    assert (events[-1].done, events[-1].failed) == (1, 1)
    cells = Run.open(place / "runs" / "tiny").cells
    assert cells[1].result["metrics"] == before.result["metrics"]


def test_only_leaves_the_others_out(place: Path) -> None:
    finished = run(place, only=["good"])
    assert [cell.status for cell in finished.cells] == ["missing", "done"]


def test_changed_code_makes_results_stale(place: Path) -> None:
    run(place)
    write_plugin(place, PLUGIN + "# changed\n")
    stale = plan(place)
    assert states(stale) == ["finished", "todo"]
    assert stale.cells[1].why == "stale: code changed; --accept-stale keeps the old result"
    assert states(plan(place, accept_stale=True)) == ["finished", "accepted"]
    kept = run(place, plugin=PLUGIN + "# changed\n", accept_stale=True)
    assert [cell.status for cell in kept.cells] == ["done", "done"]
    assert kept.cells[1].result["id"] == kept.cells[1].id


def test_cells_that_an_edited_suite_no_longer_names_are_kept(place: Path) -> None:
    before = run(place)
    after = run(place, AE)
    assert [cell.method for cell in after.cells] == ["AE"]
    assert before.cells[1].result_dir.is_dir()
    assert plan(place).unnamed == 1
    assert states(plan(place)) == ["finished"]
    run(place, METHODS)
    assert plan(place).unnamed == 0


def test_a_new_label_finds_the_old_result(place: Path) -> None:
    run(place, AE)
    renamed = run(place, AE.replace('label = "AE"', 'label = "plain"'))
    assert [(cell.method, cell.status) for cell in renamed.cells] == [("plain", "done")]


def test_families_are_recorded_and_alter_no_result(place: Path) -> None:
    before = run(place)
    assert before.suite["families"] == {}
    swept = METHODS.replace('label = "good"', 'label = "good"\nfamily = "Falling"')
    write_suite(place, swept)
    assert states(plan(place)) == ["finished", "finished"]
    assert run(place, swept).suite["families"] == {"good": "Falling"}


def test_a_new_metric_is_measured_from_the_saved_weights(place: Path) -> None:
    before = run(place, AE, metrics='["mse"]').cells[0]
    weights = (before.result_dir / "weights.pt").read_bytes()
    write_suite(place, AE, metrics='["mse", "psnr"]')
    assert states(plan(place)) == ["remeasure"]
    after = run(place, AE, metrics='["mse", "psnr"]').cells[0]
    assert (after.result_dir / "weights.pt").read_bytes() == weights
    assert after.result["metrics"]["mean"]["mse"] == before.result["metrics"]["mean"]["mse"]
    assert "psnr" in after.result["metrics"]["mean"]
    assert after.result["cost"] == before.result["cost"]
    assert after.history == before.history


METRIC = '''
import regbench


class Scaled(regbench.Metric):
    """A multiple of the squared error."""

    name, label, better, definition = "scaled", "scaled", "lower", "made up"

    def per_image(self, x_BCHW, logits_BCHW):
        return FACTOR * (x_BCHW - logits_BCHW.sigmoid()).pow(2).flatten(1).mean(1)


@regbench.hookimpl
def regbench_metrics():
    return [Scaled]
'''


def test_a_metric_whose_code_has_changed_is_measured_again(place: Path) -> None:
    suite = write_suite(place, AE, metrics='["mse", "scaled"]')
    plugin = write_plugin(place, METRIC.replace("FACTOR", "2"))
    result = regbench.run(suite, device="cpu", plugins=[plugin]).cells[0].result["metrics"]["mean"]
    assert result["scaled"] == pytest.approx(2 * result["mse"], rel=1e-5)
    write_plugin(place, METRIC.replace("FACTOR", "3"))
    again = regbench.run(suite, device="cpu", plugins=[plugin]).cells[0].result["metrics"]["mean"]
    assert again["scaled"] == pytest.approx(3 * result["mse"], rel=1e-5)


def test_a_metric_that_fails_does_so_before_the_training(place: Path) -> None:
    suite = write_suite(place, AE, metrics='["mse", "scaled"]')
    plugin = write_plugin(place, METRIC.replace("return FACTOR *", "raise RuntimeError('no')  #"))
    with pytest.raises(CellsFailed, match="RuntimeError: no"):
        regbench.run(suite, device="cpu", plugins=[plugin])
    assert Run.open(place / "runs" / "tiny").cells[0].history == [], "not one epoch was trained"


def test_altered_weights_are_not_measured_again(place: Path) -> None:
    cell = run(place, AE, metrics='["mse"]').cells[0]
    file = cell.result_dir / "weights.pt"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"weights.pt has been altered"):
        run(place, AE, metrics='["mse", "psnr"]')


def test_a_listener_that_raises_is_not_the_cells_fault(place: Path) -> None:
    def listener(event: Any) -> None:
        if type(event).__name__ == "EpochFinished":
            raise ValueError("listener")

    with pytest.raises(ValueError, match="listener"):
        regbench.run(write_suite(place, AE), device="cpu", listener=listener)
    assert Run.open(place / "runs" / "tiny").cells[0].status == "interrupted"


def test_strange_files_in_the_store_disturb_nobody(place: Path) -> None:
    cell = run(place, AE).cells[0]
    for folder in (place / "runs" / "tiny" / "cells", cell.directory / "attempts"):
        (folder / ".DS_Store").write_text("x")
        (folder / "a folder").mkdir()
    assert run(place, AE, force=["AE"]).cells[0].status == "done"


def test_a_suite_that_names_a_broken_plugin_stops_before_any_training(place: Path) -> None:
    with pytest.raises((PluginError, SuiteError), match="I am broken"):
        run(place, plugin=PLUGIN + "raise ValueError('I am broken')")
    assert not (place / "runs").exists()
    finished = run(place, AE, plugin="raise ValueError('I am broken')")
    assert finished.cells[0].status == "done", "a suite that does not name it runs"


def test_missing_data_stop_a_suite_before_any_training(place: Path) -> None:
    suite = write_suite(place, AE)
    suite.write_text(suite.read_text().replace('name = "digits"', 'name = "mnist"').replace("40", "4000"))
    with pytest.raises(DataError, match="mnist"):
        regbench.run(suite, device="cpu", data_dir=place / "nothing")
    assert not (place / "runs").exists()


def test_anchors_and_provenance_are_recorded(place: Path) -> None:
    finished = run(place, AE)
    anchors = finished.anchors("digits")
    assert anchors is not None
    assert anchors["pca_components"] == 4
    assert anchors["pca_mse"] < anchors["mean_image_mse"]
    (attempt,) = finished.cells[0].directory.glob("attempts/*/attempt.json")
    record = json.loads(attempt.read_text())
    assert torch.__version__.startswith(record["libraries"]["torch"])
    assert record["torch"]["threads"] >= 1
    assert record["cell"] == finished.cells[0].id


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_what_is_finished_and_says_how_to_go_on(place: Path, number: int, code: int) -> None:
    write_suite(place, AE, seeds="2", epochs=4000)
    command = [sys.executable, "-m", "regbench", "run", "tiny.toml", "--device", "cpu", "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["event"] == "EpochFinished":
                process.send_signal(number)
                break
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert "0 of 2 cells are finished and kept" in stderr
    assert "to go on: regbench run tiny.toml --device cpu --json" in stderr
    assert "Traceback" not in stderr
    stopped = Run.open(place / "runs" / "tiny")
    assert [cell.status for cell in stopped.cells] == ["interrupted", "missing"]
    assert stopped.cells[0].history, "the history of the interrupted attempt is kept"


def test_metrics_of_a_stochastic_method_are_given_at_both_codes(place: Path) -> None:
    methods = '[[regularizers]]\nname = "vae-kl"\nlabel = "VAE"\n'
    result = run(place, methods).cells[0].result["metrics"]
    assert set(result["mean"]) == set(result["sampled"]) == {"mse", "ssim"}
    assert result["mean"] != result["sampled"]
    assert bundled_metrics.MSE.better == "lower"


def test_one_reason_of_many_cells_is_said_a_few_times(place: Path) -> None:
    with pytest.raises(CellsFailed) as caught:
        run(place, FALLING.format(label="falls", options="fall = true"), seeds="7")
    text = str(caught.value)
    assert text.startswith("7 of 7 cells failed")
    assert text.count("RuntimeError: I fell") == SHOWN
    assert "and 2 more for the same reason" in text
