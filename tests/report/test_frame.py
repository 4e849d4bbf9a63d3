"""A run as a DataFrame: every planned cell is a row, with what the store holds of it."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from regbench.errors import StoreError
from regbench.report.frame import diagnostic_columns, load_frame
from regbench.store.records import Run
from tests.report.synthetic import make_run

METHODS = ["AE", "VAE-KL", "ProtoVAE K=3"]
STATUS = {
    ("AE", "digits", 1): "failed",
    ("VAE-KL", "digits", 0): "diverged",
    ("VAE-KL", "digits", 2): "missing",
    ("ProtoVAE K=3", "letters", 0): "interrupted",
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    path = tmp_path_factory.mktemp("runs") / "demo"
    return make_run(path, METHODS, ["digits", "letters"], 3, status=STATUS)


def test_every_planned_cell_is_a_row_in_the_suites_order(run: Run) -> None:
    frame = load_frame(run)
    expected = [(d, m, s) for d in ("digits", "letters") for m in METHODS for s in range(3)]
    assert list(zip(frame["dataset"], frame["method"], frame["seed"], strict=True)) == expected
    assert frame["id"].tolist() == [cell.id for cell in run.cells]


def test_unfinished_cells_keep_status_and_reason_and_have_no_numbers(run: Run) -> None:
    frame = load_frame(run)
    unfinished = frame[frame["status"] != "done"].set_index(["method", "dataset", "seed"])
    assert unfinished["status"].to_dict() == STATUS
    assert (unfinished["reason"].str.len() > 0).all()
    assert unfinished["reason"]["VAE-KL", "digits", 2] == "not run yet"
    numbers = unfinished[["mse", "mse_sampled", "active_units", "optimizer_steps", "beta_effective"]]
    assert numbers.isna().all(axis=None)
    assert json.loads(unfinished["options"]["AE", "digits", 1]) == {}


def test_finished_cells_hold_what_the_result_holds(run: Run) -> None:
    frame = load_frame(run).set_index("id")
    for cell in run.cells:
        if cell.status != "done":
            continue
        row, result = frame.loc[cell.id], cell.result
        for metric, value in result["metrics"]["mean"].items():
            assert row[metric] == value
            sampled = result["metrics"]["sampled"]
            assert (
                np.isnan(row[f"{metric}_sampled"])
                if sampled is None
                else row[f"{metric}_sampled"] == sampled[metric]
            )
        for name, value in result["cost"].items():
            assert row[name] == value
        for name in ("device", "device_name", "precision", "engine"):
            assert row[name] == result["environment"][name]
        assert row["active_units"] == result["diagnostics"]["active_units"]
        assert row["regularizer"] == cell.key["regularizer"]["name"]
        assert json.loads(row["options"]) == cell.key["regularizer"]["options"]
        assert row["samples_from"] == result["samples_from"]


def test_cluster_scores_become_columns_of_their_own(run: Run) -> None:
    frame = load_frame(run)
    assert set(diagnostic_columns(run).values()) <= set(frame.columns)
    has_clusters = frame["clusters_purity"].notna()
    assert set(frame.loc[has_clusters, "method"]) == {"ProtoVAE K=3"}
    assert "clusters_sizes" not in frame  # a list is no number


def edit_result(run: Run, section: str, **values: object) -> None:
    """Change a table of the first cell's result.json, and seal the result again."""
    directory = run.cells[0].result_dir
    result = json.loads((directory / "result.json").read_text())
    (result["metrics"]["mean"] if section == "mean" else result[section]).update(values)
    content = json.dumps(result).encode()
    (directory / "result.json").write_bytes(content)
    manifest = json.loads((directory / "manifest.json").read_text())
    manifest["sha256"]["result.json"] = hashlib.sha256(content).hexdigest()
    (directory / "manifest.json").write_text(json.dumps(manifest))


def test_numbers_that_are_not_finite_come_back_from_their_texts(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", ["AE"], seeds=1)
    edit_result(run, "mean", psnr="inf")
    edit_result(run, "diagnostics", x="nan")
    row = load_frame(Run.open(run.path)).iloc[0]
    assert row["psnr"] == np.inf
    assert np.isnan(row["x"])


def test_a_diagnostic_cannot_overwrite_a_column(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", ["AE"], seeds=1)
    edit_result(run, "diagnostics", mse=7, status=8, flag=True, word="x")
    fresh = Run.open(run.path)
    row = load_frame(fresh).iloc[0]
    assert row["mse"] == fresh.cells[0].result["metrics"]["mean"]["mse"]
    assert row["status"] == "done"
    assert (row["diagnostic_mse"], row["diagnostic_status"]) == (7, 8)
    assert "flag" not in row
    assert "word" not in row


def test_an_altered_result_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", ["AE"], seeds=1)
    file = run.cells[0].result_dir / "result.json"
    file.write_text(file.read_text().replace("0.", "1.", 1))
    with pytest.raises(StoreError, match=r"result\.json has been altered"):
        load_frame(Run.open(run.path))


def test_a_run_without_any_result_is_a_frame_of_planned_cells(tmp_path: Path) -> None:
    status = {("AE", "digits", seed): "missing" for seed in range(2)}
    frame = load_frame(make_run(tmp_path / "demo", ["AE"], seeds=2, status=status))
    assert frame["status"].tolist() == ["missing", "missing"]
    assert frame["mse"].dtype == float
