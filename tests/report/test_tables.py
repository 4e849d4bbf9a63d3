"""Tables hold the right numbers, leave no failure out, and say what they show."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from regbench.report.summary import summarise, tidy
from regbench.report.tables import Cell, Row, Table, build_tables
from regbench.store.records import Run, classifier_file
from tests.report.synthetic import Cell as Where
from tests.report.synthetic import make_run

METHODS = ["AE", "VAE-KL", "ProtoVAE K=3"]


def mse_values(rows: dict[str, Sequence[float]], dataset: str = "digits") -> dict[Where, dict[str, float]]:
    return {(m, dataset, seed): {"mse": v} for m, values in rows.items() for seed, v in enumerate(values)}


def row_of(table: Table, method: str, code: str = "mean") -> Row:
    (row,) = (row for row in table.rows if row.method == method and row.code == code)
    return row


def cell_of(table: Table, method: str, column: str, code: str = "mean") -> Cell:
    keys = [column.key for column in table.columns]
    return row_of(table, method, code).cells[keys.index(column)]


def notes_of(table: Table) -> str:
    return "\n".join(f"[{note.mark}] {note.text}" for note in table.notes)


def footnotes_of(table: Table, cell: Cell) -> list[str]:
    return [note.text for note in table.notes if note.mark and note.mark in cell.marks]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """Five seeds, two data sets."""
    return make_run(tmp_path_factory.mktemp("runs") / "five", METHODS, ["digits", "letters"], 5)


def test_one_table_per_data_set_with_every_method(five: Run) -> None:
    tables = build_tables(five)
    assert [table.dataset for table in tables] == ["digits", "letters"]
    for table in tables:
        rows = [(row.method, row.code) for row in table.rows]
        assert rows == [
            ("AE", "mean"),
            ("VAE-KL", "mean"),
            ("VAE-KL", "sampled"),
            ("ProtoVAE K=3", "mean"),
            ("mean image", ""),
            ("PCA-256", ""),
        ]
        assert all(len(row.cells) == len(table.columns) for row in table.rows)
        assert len({column.key for column in table.columns}) == len(table.columns)


def test_metric_cells_are_means_with_t_intervals(five: Run) -> None:
    for table in build_tables(five):
        for method in METHODS:
            for metric in five.suite["metrics"]:
                cells = five.select(dataset=table.dataset, method=method)
                values = [cell.result["metrics"]["mean"][metric] for cell in cells]
                interval = stats.ttest_1samp(values, 0).confidence_interval(0.95)
                cell = cell_of(table, method, metric)
                assert cell.value == pytest.approx(np.mean(values))
                assert (cell.low, cell.high) == (pytest.approx(interval.low), pytest.approx(interval.high))


def test_sampled_rows_are_never_bold(tmp_path: Path) -> None:
    values = mse_values({method: [0.010, 0.011, 0.012] for method in ("VAE-KL", "VAE-KL twin")})
    (table,) = build_tables(make_run(tmp_path / "demo", ["VAE-KL", "VAE-KL twin"], seeds=3, values=values))
    for method in ("VAE-KL", "VAE-KL twin"):
        assert cell_of(table, method, "mse").bold
        assert not any(cell.bold for cell in row_of(table, method, "sampled").cells)


def test_sampled_rows_hold_the_sampled_code(five: Run) -> None:
    table = build_tables(five)[0]
    cells = five.select(dataset="digits", method="VAE-KL")
    values = [cell.result["metrics"]["sampled"]["ssim"] for cell in cells]
    assert cell_of(table, "VAE-KL", "ssim", "sampled").value == pytest.approx(np.mean(values))
    assert cell_of(table, "VAE-KL", "optimizer_steps", "sampled").text == ""
    assert cell_of(table, "VAE-KL", "method", "sampled").text == "VAE-KL, sampled code"
    assert cell_of(table, "AE", "method").text == "AE"


def test_differences_are_paired_with_the_baseline(five: Run) -> None:
    table = build_tables(five)[0]

    def values(method: str, metric: str) -> np.ndarray:
        return np.array(
            [c.result["metrics"]["mean"][metric] for c in five.select(dataset="digits", method=method)]
        )

    for metric, better in (("mse", -1), ("psnr", 1)):
        d = values("ProtoVAE K=3", metric) - values("AE", metric)
        cell = cell_of(table, "ProtoVAE K=3", f"{metric}.difference")
        interval = stats.ttest_1samp(d, 0).confidence_interval(0.95)
        assert cell.value == pytest.approx(d.mean())
        assert (cell.low, cell.high) == (pytest.approx(interval.low), pytest.approx(interval.high))
        assert cell_of(table, "ProtoVAE K=3", f"{metric}.wins").text == f"{np.sum(better * d > 0)}/5"
        r = stats.pearsonr(values("ProtoVAE K=3", metric), values("AE", metric)).statistic
        assert f"correlation of the pairs {r:.2f}" in cell.note
    assert cell_of(table, "AE", "mse.difference").text == "baseline"


def test_the_sign_of_a_difference_is_written(tmp_path: Path) -> None:
    values = mse_values({"AE": [0.02, 0.021, 0.022], "B": [0.01, 0.012, 0.013], "C": [0.03, 0.031, 0.033]})
    (table,) = build_tables(make_run(tmp_path / "demo", ["AE", "B", "C"], seeds=3, values=values))
    assert cell_of(table, "B", "mse.difference").text.startswith("−0.009")
    assert cell_of(table, "C", "mse.difference").text.startswith("+0.010")
    assert cell_of(table, "B", "mse.wins").text == "3/3"


def test_the_whole_tie_group_is_bold(tmp_path: Path) -> None:
    values = mse_values(
        {
            "AE": [0.0100, 0.0110, 0.0120, 0.0130],
            "B": [0.0110, 0.0100, 0.0130, 0.0120],
            "C": [0.0400, 0.0410, 0.0430, 0.0420],
        }
    )
    (table,) = build_tables(make_run(tmp_path / "demo", ["AE", "B", "C"], seeds=4, values=values))
    assert [cell_of(table, method, "mse").bold for method in ("AE", "B", "C")] == [True, True, False]
    assert "tie group" in notes_of(table)


def test_failures_are_rows_and_notes(tmp_path: Path) -> None:
    status = {
        ("AE", "digits", 2): "failed",
        ("VAE-KL", "digits", 0): "diverged",
        ("VAE-KL", "digits", 1): "diverged",
        ("VAE-KL", "digits", 2): "diverged",
        ("ProtoVAE K=3", "digits", 1): "missing",
    }
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=3, status=status))
    n = {method: cell_of(table, method, "n") for method in METHODS}
    assert {method: cell.text for method, cell in n.items()} == {
        "AE": "2/3",
        "VAE-KL": "0/3",
        "ProtoVAE K=3": "2/3",
    }
    assert footnotes_of(table, n["AE"]) == ["AE: seed 2 failed: RuntimeError: a | in <this> cell_1."]
    assert footnotes_of(table, n["VAE-KL"]) == [
        "VAE-KL: seeds 0, 1, 2 diverged: the loss of update 'loss' became nan."
    ]
    assert footnotes_of(table, n["ProtoVAE K=3"]) == ["ProtoVAE K=3: seed 1 not run yet."]
    assert cell_of(table, "VAE-KL", "mse").text == "diverged"
    assert cell_of(table, "VAE-KL", "mse").value is None


def test_a_collapsed_method_is_marked(tmp_path: Path) -> None:
    collapse = {
        ("VAE-KL", "digits", seed): ["no latent unit is active", "the codes lie on a line"] for seed in (0, 2)
    }
    run = make_run(tmp_path / "demo", METHODS, seeds=3, collapse=collapse)
    (table,) = build_tables(run)
    for code in ("mean", "sampled"):
        assert footnotes_of(table, cell_of(table, "VAE-KL", "method", code)) == [
            "VAE-KL: collapsed in seeds 0, 2 (seed 0: no latent unit is active; the codes lie on a line)."
        ]
    assert footnotes_of(table, cell_of(table, "AE", "method")) == []
    assert tidy(summarise(run)).set_index("method").loc["VAE-KL", "seeds_collapsed"].eq(2).all()


def test_a_methods_own_warning_is_a_footnote(tmp_path: Path) -> None:
    warnings = {("VAE-KL", "digits", 1): ["its masses are off"]}
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=3, warnings=warnings))
    assert footnotes_of(table, cell_of(table, "VAE-KL", "method", "mean")) == [
        "VAE-KL: its masses are off (seed 1; warned of in seed 1)."
    ]


def test_a_failed_baseline_leaves_the_table_standing(tmp_path: Path) -> None:
    status = {("AE", "digits", seed): "failed" for seed in range(2)}
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=2, status=status))
    assert cell_of(table, "VAE-KL", "mse.difference").value is None
    assert "no seed of AE to compare with" in notes_of(table)
    assert cell_of(table, "VAE-KL", "mse").value is not None


def test_nothing_is_done_yet(tmp_path: Path) -> None:
    status = {(method, "digits", 0): "missing" for method in METHODS}
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=1, status=status, anchors=False))
    assert [cell_of(table, method, "mse").text for method in METHODS] == ["not run"] * 3
    assert table.groups == ("metric", "difference")


def test_one_seed_has_values_without_intervals_and_nothing_in_bold(tmp_path: Path) -> None:
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=1))
    cell = cell_of(table, "AE", "mse")
    assert (cell.low, cell.high, cell.note) == (None, None, "n = 1, no interval")
    assert "±" not in "".join(cell.text for row in table.rows for cell in row.cells)
    assert not any(cell.bold for row in table.rows for cell in row.cells)
    assert "n = 1, no interval" in notes_of(table)


def test_too_few_seeds_to_test_is_said(five: Run) -> None:
    table = build_tables(five)[0]
    # Three comparisons with AE: VAE-KL at both codes and ProtoVAE.
    assert "n too small to test: 5 seeds, and an exact paired test of 3 comparisons needs 7." in notes_of(
        table
    )
    assert "mse.p" not in [column.key for column in table.columns]


def test_with_enough_seeds_p_values_are_adjusted(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", METHODS, seeds=7)
    (table,) = build_tables(run)
    # Every seed is worse than AE: the smallest p there is, times three comparisons.
    assert cell_of(table, "VAE-KL", "mse.wins").text == "0/7"
    assert cell_of(table, "VAE-KL", "mse.p").value == pytest.approx(3 * 2 / 2**7)
    assert "Holm-adjusted" in notes_of(table)
    assert "too small" not in notes_of(table)


def test_a_method_with_too_few_seeds_is_not_tested_beside_others_that_are(tmp_path: Path) -> None:
    status = {("ProtoVAE K=3", "digits", seed): "failed" for seed in range(3)}
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=7, status=status))
    assert cell_of(table, "ProtoVAE K=3", "mse.p").text == "n too small"
    assert cell_of(table, "VAE-KL", "mse.p").value == pytest.approx(3 * 2 / 2**7)


def test_references_are_marked_as_not_trained(five: Run) -> None:
    table = build_tables(five)[0]
    anchors = five.anchors("digits")
    assert anchors is not None
    assert cell_of(table, "mean image", "mse", "").value == anchors["mean_image_mse"]
    pca = cell_of(table, "PCA-256", "mse", "")
    assert pca.value == anchors["pca_mse"]
    assert not pca.bold
    assert "not trained" in footnotes_of(table, cell_of(table, "PCA-256", "method", ""))[0]
    assert cell_of(table, "PCA-256", "ssim", "").value is None
    assert "after clipping" in notes_of(table)


def test_without_mse_or_anchors_there_are_no_references(tmp_path: Path) -> None:
    (table,) = build_tables(make_run(tmp_path / "a", ["AE"], seeds=1, metrics=["ssim"]))
    assert [row.method for row in table.rows] == ["AE"]
    (table,) = build_tables(make_run(tmp_path / "b", ["AE"], seeds=1, anchors=False))
    assert [row.method for row in table.rows] == ["AE"]


def test_real_images_and_pixels_stand_beside_samples_and_probes(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", METHODS, seeds=2)
    facts = {
        "sha256": "ab" * 32,
        "basis": {},
        "accuracy": 0.95,
        "knn_pixels": 0.9,
        "linear_pixels": 0.8,
        "clusters_pixels": {"purity": 0.75, "nmi": 0.7, "ari": 0.6, "accuracy": 0.72},
        "floors": {"precision": 0.97, "recall": 0.96, "density": 1.01, "coverage": 0.98, "frechet": 1.5},
    }
    file = classifier_file(run.path, "digits")
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(facts))
    for cell in run.cells:
        scores = {"precision": 0.5, "recall": 0.4, "density": 0.3, "coverage": 0.2, "frechet": 100.0}
        cell.result["diagnostics"] |= {"samples": scores, "probe": {"knn": 0.7, "linear": 0.6}}
        cell.result["diagnostics"]["prior"] = {"sw2": 0.3, "sw2_floor": 0.1}
    (table,) = build_tables(run)
    assert table.groups == ("metric", "difference", "cost", "codes", "prior", "samples", "clusters")
    for name, value in facts["floors"].items():  # type: ignore[attr-defined]
        assert cell_of(table, "training images", f"samples_{name}", "").value == value
    assert cell_of(table, "pixels", "probe_knn", "").value == 0.9
    assert cell_of(table, "pixels", "probe_linear", "").value == 0.8
    assert cell_of(table, "pixels", "clusters_accuracy", "").value == 0.72
    # Each reference stands where it has something to say, and nowhere else.
    references = {group: [r.method for r in table.pick(group).rows if not r.code] for group in table.groups}
    assert references["metric"] == ["mean image", "PCA-256"]
    assert references["codes"] == ["pixels"]
    assert references["samples"] == ["training images"]
    assert references["clusters"] == ["pixels"]
    assert "k-means on pixels, with as many clusters as classes" in notes_of(table.pick("clusters"))
    assert "k-means on pixels" not in notes_of(table.pick("codes"))
    assert not references["prior"] + references["cost"] + references["difference"]
    (sources,) = (note for note in table.notes if note.text.startswith("Samples are drawn from: "))
    assert sources.groups == ("samples",)
    assert "Gaussian fitted to the training codes (AE)" in sources.text
    (note,) = (note.text for note in table.notes if "suite's classifier, in whose" in note.text)
    assert "0.95" in note
    assert "abababababab" in note
    frame = tidy(summarise(run)).query("trained == False")
    assert frame.set_index(["method", "quantity"]).loc[("training images", "samples_frechet"), "mean"] == 1.5


def test_rows_that_mix_devices_are_marked(tmp_path: Path) -> None:
    environment = {
        ("AE", "digits", 1): {"device": "cuda"},
        **{("VAE-KL", "digits", seed): {"precision": "bf16"} for seed in range(2)},
    }
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=2, environment=environment))
    assert footnotes_of(table, cell_of(table, "AE", "method")) == ["Seeds of this row mix devices cpu, cuda."]
    assert footnotes_of(table, cell_of(table, "ProtoVAE K=3", "method")) == []
    assert "Rows differ in device (cpu+cuda: AE; cpu: VAE-KL, ProtoVAE K=3)" in notes_of(table)
    assert "Rows differ in precision (fp32: AE, ProtoVAE K=3; bf16: VAE-KL)" in notes_of(table)
    assert "engine" not in notes_of(table)


def test_costs_are_in_the_units_of_their_heads(five: Run) -> None:
    table = build_tables(five)[0]
    cells = five.select(dataset="digits", method="ProtoVAE K=3")
    memory = np.mean([cell.result["cost"]["peak_memory_bytes"] for cell in cells]) / 2**20
    assert cell_of(table, "ProtoVAE K=3", "peak_memory_bytes").value == pytest.approx(memory)
    assert cell_of(table, "ProtoVAE K=3", "optimizer_steps").text == "720"
    assert cell_of(table, "AE", "optimizer_steps").text == "240"


def test_definitions_and_directions_stand_under_the_table(five: Run) -> None:
    text = notes_of(build_tables(five)[0])
    for info in five.suite["metric_info"].values():
        assert f"{info['label']} ({info['better']} is better): {info['definition']}" in text
    assert "t-interval of the mean over seeds" in text
    assert "not how test images do" in text


def test_picking_columns_keeps_rows_and_their_footnotes(tmp_path: Path) -> None:
    status = {("AE", "digits", 0): "failed"}
    (table,) = build_tables(make_run(tmp_path / "demo", METHODS, seeds=2, status=status))
    assert table.groups == ("metric", "difference", "cost", "codes", "clusters")
    cost = table.pick("cost")
    assert {column.group for column in cost.columns} == {"row", "cost"}
    assert [row.method for row in cost.rows] == METHODS
    assert cost.rows[1].cells[0].text == "VAE-KL"
    marks = {note.mark for note in cost.notes if note.mark}
    assert marks == {mark for row in cost.rows for cell in row.cells for mark in cell.marks}
    assert any("failed" in note.text for note in cost.notes)
    assert not any("SSIM" in note.text for note in cost.notes)
    metric = table.pick("metric")
    assert [row.code for row in metric.rows].count("") == 2


def test_a_suite_without_a_baseline_has_no_differences(tmp_path: Path) -> None:
    run = make_run(tmp_path / "demo", METHODS, seeds=2)
    run.suite["baseline"] = None
    (table,) = build_tables(run)
    assert "difference" not in table.groups


# --- the tidy file -----------------------------------------------------------------------------------------


def test_the_csv_holds_every_quantity_at_full_precision(five: Run) -> None:
    frame = tidy(summarise(five))
    rows = list(csv.DictReader(io.StringIO(frame.to_csv(index=False))))
    numbers = [name for name in frame.columns if frame[name].dtype == float]
    assert {"mean", "low", "difference_high", "p_sign_flip"} <= set(numbers)
    for name in numbers:
        assert [float(row[name] or "nan") for row in rows] == pytest.approx(
            list(frame[name]), rel=0, nan_ok=True
        )
    for method in METHODS:
        cells = five.select(dataset="letters", method=method)
        values = [cell.result["metrics"]["mean"]["bce_excess"] for cell in cells]
        wanted = {"dataset": "letters", "method": method, "code": "mean", "quantity": "bce_excess"}
        (row,) = (row for row in rows if wanted.items() <= row.items())
        assert float(row["mean"]) == pytest.approx(np.mean(values), rel=1e-15)
        assert float(row["sd"]) == pytest.approx(np.std(values, ddof=1), rel=1e-14)
        assert (float(row["seeds_done"]), float(row["seeds_planned"]), row["device"]) == (5, 5, "cpu")


def test_the_csv_has_a_row_for_what_failed(tmp_path: Path) -> None:
    status = {("AE", "digits", 0): "diverged"}
    frame = tidy(summarise(make_run(tmp_path / "demo", ["AE"], seeds=1, status=status)))
    row = frame[(frame["method"] == "AE") & (frame["quantity"] == "mse")].iloc[0]
    assert np.isnan(row["mean"])
    assert row["unfinished"].startswith("diverged: ")
    assert row["seeds_done"] == 0


def test_the_summary_and_the_tie_group_agree_with_the_csv(five: Run) -> None:
    frame = tidy(summarise(five))
    for summary in summarise(five):
        for row in summary.rows:
            for quantity in summary.quantities:
                if quantity.group != "metric":
                    continue
                (found,) = frame[
                    (frame["dataset"] == summary.dataset)
                    & (frame["method"] == row.method)
                    & (frame["code"] == row.code)
                    & (frame["quantity"] == quantity.name)
                ]["tie_group"]
                assert found == summary.entry(row, quantity).tie
