"""The figures of the trade-off and of the codes' spectrum show the numbers that are in the store."""

from __future__ import annotations

import hashlib
import io
import json
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure as Canvas
from scipy import stats

from regbench.errors import PluginError
from regbench.report.figure import Drawing, Figure
from regbench.report.figures.labels import Label, place_labels
from regbench.report.figures.spectrum import Spectrum, SpectrumOptions
from regbench.report.figures.tradeoff import Tradeoff, TradeoffOptions, swept_options
from regbench.report.style import looks, paper
from regbench.store.records import CellRecord, Run
from tests.report.synthetic import make_run
from tests.report.synthetic_tradeoff import FAMILIES, METHODS, WEIGHTS, make_tradeoff

PROTO = [method for method in METHODS if method.startswith("ProtoVAE")]


def draw(figure: Figure, run: Run) -> list[Drawing]:
    with paper():
        return list(figure.draw(run))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    status = {(PROTO[2], "digits", seed): "diverged" for seed in range(3)}
    made = make_tradeoff(tmp_path_factory.mktemp("runs") / "r", status=status)
    for cell in made.select(method="VAE-KL weight=1"):
        cell.result["metrics"]["mean"]["mse"] = 1.0  # worse than at ten times the weight: off the frontier
    return made


def mean_point(run: Run, method: str, key: str = "mmd") -> tuple[float, float]:
    cells = [cell for cell in run.select(method=method) if cell.status == "done"]
    distances = [(c.result["diagnostics"]["prior"] or c.result["diagnostics"]["normal"])[key] for c in cells]
    return float(np.mean(distances)), float(np.mean([c.result["metrics"]["mean"]["mse"] for c in cells]))


def markers(drawing: Drawing) -> dict[tuple[float, float], Any]:
    (ax,) = drawing.figure.axes
    return {
        (float(line.get_xdata()[0]), float(line.get_ydata()[0])): line
        for line in ax.lines
        if line.get_marker() not in ("", "None") and len(line.get_xdata()) == 1
    }


def test_every_setting_is_a_point_at_its_means(run: Run) -> None:
    (drawing,) = draw(Tradeoff(), run)
    found = markers(drawing)
    shown = [method for method in METHODS if method != PROTO[2]]
    assert len(found) == len(shown)
    for method in shown:
        x, y = mean_point(run, method)
        (line,) = (line for at, line in found.items() if at == pytest.approx((x, y)))
        hollow = line.get_markerfacecolor() == "white"
        assert hollow == (method == "VAE-KL weight=1"), method
    assert PROTO[2] in drawing.caption.partition("Without a point:")[2]
    assert "Crosses: AE, AE, 3 steps, at the distance to N(0, I)" in drawing.caption


def test_frontiers_are_steps_through_what_is_not_dominated(run: Run) -> None:
    (drawing,) = draw(Tradeoff(), run)
    (ax,) = drawing.figure.axes
    steps = [line for line in ax.lines if line.get_drawstyle() == "steps-post"]
    assert len(steps) == 3
    for line, family in zip(steps, ("VAE-KL", "InfoVAE-MMD", "ProtoVAE"), strict=True):
        members = [m for m, name in FAMILIES.items() if name == family and m != PROTO[2]]
        points = sorted(mean_point(run, method) for method in members if method != "VAE-KL weight=1")
        np.testing.assert_allclose(np.stack(line.get_data(), 1), points)
        middle = [m for m, name in FAMILIES.items() if name == family]
        assert line.get_color() == looks(run)[middle[len(middle) // 2]].color
    legend = [text.get_text() for text in drawing.figure.legends[0].get_texts()]
    assert legend == ["VAE-KL (weight)", "InfoVAE-MMD (weight)", "ProtoVAE (weight)"]


def test_bars_are_t_intervals_over_seeds(run: Run) -> None:
    (drawing,) = draw(Tradeoff(TradeoffOptions(quantity="sw2")), run)
    (ax,) = drawing.figure.axes
    cells = run.select(method="AE")
    distances = [cell.result["diagnostics"]["normal"]["sw2"] for cell in cells]
    errors = [cell.result["metrics"]["mean"]["mse"] for cell in cells]
    x, y = np.mean(distances), np.mean(errors)
    bars = [line.get_data() for line in ax.lines if line.get_linewidth() == 0.6]
    for values, point in ((distances, [y, y]), (errors, [x, x])):
        ends = stats.t.interval(0.95, 2, loc=np.mean(values), scale=stats.sem(values))
        wanted = (ends, point) if values is distances else (point, ends)
        assert any(np.allclose(bar, wanted) for bar in bars)
    assert ax.get_xlabel() == "sliced Wasserstein distance to the prior"


def test_the_floor_and_the_settings_are_named(run: Run) -> None:
    (drawing,) = draw(Tradeoff(), run)
    (ax,) = drawing.figure.axes
    floor = max(
        abs((c.result["diagnostics"]["prior"] or c.result["diagnostics"]["normal"])["mmd_floor"])
        for c in run.cells
        if c.status == "done"
    )
    verticals = [line.get_xdata()[0] for line in ax.lines if line.get_transform() == ax.get_xaxis_transform()]
    assert verticals == pytest.approx([floor])
    written = [text.get_text() for text in ax.texts]
    assert "floor" in written
    expected = sorted([*(["0.1", "1", "10", "100"] * 2), "0.1", "1", "AE", "AE, 3 steps"])
    assert sorted(text for text in written if text not in ("floor", "mean image")) == expected
    assert "nothing to tell apart" in drawing.caption


def test_higher_may_be_better(run: Run) -> None:
    (drawing,) = draw(Tradeoff(TradeoffOptions(metric="ssim", methods=METHODS[2:6])), run)
    (ax,) = drawing.figure.axes
    assert ax.get_yscale() == "linear"
    (line,) = (line for line in ax.lines if line.get_drawstyle() == "steps-post")
    assert (np.diff(line.get_ydata()) > 0).all()
    points = sorted(
        (mean_point(run, m)[0], np.mean([c.result["metrics"]["mean"]["ssim"] for c in run.select(method=m)]))
        for m in METHODS[2:6]
    )
    best = [p for p in points if all(p[1] > other[1] for other in points if other[0] < p[0])]
    np.testing.assert_allclose(np.stack(line.get_data(), 1), best)


def test_what_there_is_nothing_of_is_not_drawn(tmp_path: Path, run: Run) -> None:
    without = make_run(tmp_path / "old", ["AE", "VAE-KL"], seeds=1, test_images=16, shown=8)
    assert draw(Tradeoff(), without) == []
    without.suite["families"] = {"VAE-KL": "VAE-KL"}
    for cell in without.cells:
        cell.result["diagnostics"] = {"active_units": 3, "clusters": None}
    assert draw(Tradeoff(), without) == []
    only_ssim = make_tradeoff(tmp_path / "ssim", seeds=1, methods=METHODS[:3], metrics=["ssim"])
    assert draw(Tradeoff(), only_ssim) == []
    with pytest.raises(PluginError, match="does not measure 'psnr'"):
        draw(Tradeoff(TradeoffOptions(metric="psnr")), only_ssim)


def test_without_floors_and_with_one_seed(tmp_path: Path) -> None:
    run = make_tradeoff(tmp_path / "r", seeds=1, methods=METHODS[:5], anchors=False)
    for cell in run.cells:
        for distances in ("prior", "normal"):
            found = cell.result["diagnostics"][distances] or {}
            for name in [name for name in found if name.endswith("_floor")]:
                del found[name]
    (drawing,) = draw(Tradeoff(), run)
    assert "floor" not in [text.get_text() for text in drawing.figure.axes[0].texts]
    assert "interval" not in drawing.caption
    assert "Shaded" not in drawing.caption


def test_names_cannot_break_it(tmp_path: Path) -> None:
    methods = ["AE $x_1", "_VAE $K$ weight=1"]
    run = make_tradeoff(tmp_path / "r", seeds=1, methods=methods, families={methods[1]: "$\\frac"})
    for drawing in draw(Tradeoff(), run):
        with paper():
            drawing.figure.draw_without_rendering()


def test_options_that_a_family_differs_in(run: Run) -> None:
    methods = METHODS[2:6]
    found = swept_options(run, methods)
    assert found.options == ("weight",)
    assert found.values == {method: f"{weight:g}" for method, weight in zip(methods, WEIGHTS, strict=True)}
    mixed = swept_options(run, ["VAE-KL weight=1", "ProtoVAE K=10 weight=10"])
    assert mixed.options == ("weight", "prototypes")
    assert mixed.values["ProtoVAE K=10 weight=10"] == "10, 10"
    assert swept_options(run, ["AE"]).values == {"AE": "AE"}


def overlaps(canvas: Canvas) -> int:
    boxes = [text.get_window_extent() for text in canvas.axes[0].texts]
    return sum(a.overlaps(b) for a, b in combinations(boxes, 2))


def test_labels_do_not_cover_each_other() -> None:
    random = np.random.default_rng(1)
    canvas = Canvas(figsize=(4, 3), layout="constrained")
    ax = canvas.subplots()
    points = random.uniform(0, 1, (25, 2))
    points[1::2] = points[:-1:2] + 0.01  # in close pairs
    labels = [Label(f"setting {i}", float(x), float(y), "black") for i, (x, y) in enumerate(points)]
    for label in labels:
        ax.annotate(label.text, (label.x, label.y), fontsize=5)
    canvas.draw_without_rendering()
    assert overlaps(canvas) > 10
    for text in [*ax.texts]:
        text.remove()
    place_labels(canvas, ax, labels)
    assert [text.get_text() for text in ax.texts] == [label.text for label in labels]
    assert overlaps(canvas) == 0
    frame = ax.get_window_extent()
    for text in ax.texts:
        box = text.get_window_extent()
        assert frame.x0 <= box.x0
        assert box.x1 <= frame.x1


def test_a_picture_per_data_set_of_the_selection(tmp_path: Path) -> None:
    run = make_tradeoff(tmp_path / "r", ["one", "two"], seeds=1, methods=METHODS[:4])
    assert [d.name for d in draw(Tradeoff(), run)] == ["tradeoff-one", "tradeoff-two"]
    (drawing,) = draw(Tradeoff(TradeoffOptions(methods=METHODS[2:3], datasets=("two",))), run)
    assert drawing.name == "tradeoff-two"
    assert "on two against" in drawing.caption
    assert len(markers(drawing)) == 1
    assert "Crosses" not in drawing.caption


def store(cell: CellRecord, arrays: dict[str, np.ndarray]) -> None:
    """Put other arrays into a finished cell, with the manifest that goes with them."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    (cell.result_dir / "arrays.npz").write_bytes(buffer.getvalue())
    manifest = json.loads((cell.result_dir / "manifest.json").read_text())
    manifest["sha256"]["arrays.npz"] = hashlib.sha256(buffer.getvalue()).hexdigest()
    (cell.result_dir / "manifest.json").write_text(json.dumps(manifest))


def test_spectra_are_means_of_the_stored_ones(tmp_path: Path) -> None:
    status = {("VAE-KL", "digits", 2): "failed"}
    run = make_run(tmp_path / "r", ["AE", "VAE-KL", "old"], seeds=3, status=status, test_images=16, shown=8)
    random = np.random.default_rng(0)
    spectra = {}
    for cell in run.cells:
        if cell.status == "done":
            arrays = cell.arrays()
            spectrum = np.sort(random.lognormal(0, 2, 8))[::-1]
            spectrum[7:] = 0.0  # a direction that is not used at all
            if (cell.method, cell.seed) == ("VAE-KL", 1):
                spectrum[:] = 0.0  # a collapse: all codes are the same
            spectra[cell.method, cell.seed] = spectrum
            del arrays["spectrum"]
            store(cell, arrays if cell.method == "old" else arrays | {"spectrum": spectrum})
    (drawing,) = draw(Spectrum(), run)
    (ax,) = drawing.figure.axes
    for method, seeds in (("AE", (0, 1, 2)), ("VAE-KL", (0, 1))):
        (line,) = (line for line in ax.lines if line.get_color() == looks(run)[method].color)
        np.testing.assert_array_equal(line.get_xdata(), np.arange(1, 9))
        logs = np.log([np.maximum(spectra[method, s], 1e-9 * max(1.0, spectra[method, s][0])) for s in seeds])
        np.testing.assert_allclose(line.get_ydata(), stats.gmean(np.exp(logs), axis=0))
        low, high = stats.t.interval(0.95, len(seeds) - 1, loc=logs.mean(0), scale=stats.sem(logs))
        (band,) = (b for b in ax.collections if to_hex(b.get_facecolor()[0]) == line.get_color())
        corners = band.get_paths()[0].vertices
        assert (np.min(corners[:, 1]), np.max(corners[:, 1])) == pytest.approx(
            (np.exp(low).min(), np.exp(high).max())
        )
    assert ax.get_yscale() == "log"
    assert len(ax.collections) == 2  # bands
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["AE", "VAE-KL"]
    assert "geometric mean over 2 to 3 seeds" in drawing.caption
    (narrow,) = draw(Spectrum(SpectrumOptions(width=3.25, methods=("VAE-KL",))), run)
    assert narrow.figure.get_figwidth() == 3.25
    assert draw(Spectrum(SpectrumOptions(methods=("old",))), run) == []
