"""The benchmark of reports and planning: copies that regbench takes for finished cells, and a table of all it times."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from benchmarks.store import TINY, Bench, suite_file
from benchmarks.synthetic_run import SPREAD, Made, finished_run, stretch, vary
from regbench.cli.app import main
from regbench.report.frame import load_frame


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(tmp_path_factory.mktemp("bench"), TINY)


@pytest.mark.parametrize("link", [False, True])
def test_copies_count_as_finished_and_have_numbers_of_their_own(bench: Bench, link: bool) -> None:
    suite = suite_file(bench.directory, TINY, f"copies-{link:d}", seeds=4, epochs=5, warmup=2)
    run = finished_run(bench.trained, suite, bench.directory / "copies", link=link)
    frame = load_frame(run)  # verifies every checksum
    assert (frame["status"] == "done").all()
    assert len(frame) == len({cell.id for cell in run.cells}) == 8
    for _, rows in frame.groupby("method"):
        assert rows["mse"].nunique() == 4
        assert rows["mse"].std() < 5 * SPREAD * rows["mse"].mean()
    history = run.cells[0].history
    assert [row["epoch"] for row in history] == ([1, 2] if link else [1, 2, 3, 4, 5])
    assert "evaluation" in history[-1]


def test_reports_and_plans_are_timed(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    def here(*arguments: str) -> None:
        """The same command in this process, which has torch already."""
        monkeypatch.setattr("sys.argv", ["regbench", *arguments])
        assert main() == 0

    monkeypatch.setattr("benchmarks.store._regbench", here)
    for table, limits in ((bench.reports(), ["15", "–"]), (bench.planning(), ["2", "–"] * 2)):
        assert [row[2] for row in table.rows] == limits
        assert all(float(row[1]) > 0 for row in table.rows)
    assert (bench.directory / "out" / "report.html").is_file()
    assert not (bench.directory / "empty").exists()


def test_numbers_vary_and_the_rest_stays() -> None:
    value = {"a": 1.0, "b": [3, True, "x", None, 2.0], "c": float("inf")}
    varied = vary(value, np.random.default_rng(0))
    assert varied["a"] != 1.0
    assert varied["b"][:4] == [3, True, "x", None]
    assert varied["c"] == float("inf")
    json.dumps(varied["b"])


def test_a_longer_history_is_made_of_both_phases() -> None:
    rows = [
        {"epoch": 1, "phase": "warmup", "losses": {"warmup": 2.0}},
        {
            "epoch": 2,
            "phase": "regularized",
            "losses": {"reconstruction": 1.0},
            "evaluation": {"test_mse": 0.1},
        },
    ]
    long = stretch(rows, 100, 10, np.random.default_rng(0))
    assert [row["phase"] for row in long] == ["warmup"] * 10 + ["regularized"] * 90
    assert "evaluation" in long[-1]
    assert 30 <= sum("evaluation" in row for row in long) <= 60


def test_made_up_images_are_of_the_size_and_classes_asked_for(tmp_path: Path) -> None:
    with np.load(Made("colour", 3, 16, 5).write(tmp_path, 30, 20)) as arrays:
        assert arrays["train"].shape == (30, 3, 16, 16)
        assert arrays["test"].dtype == np.uint8
        assert set(arrays["train_labels"]) <= set(range(5))
        assert arrays["train"].std() > 10
