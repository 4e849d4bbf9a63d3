"""Each bundled figure shows the numbers and the images that are in the store.

Shape suffixes: R stored images, L latents, K prototypes, D latent units, C channels, H height, W width.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import sklearn.manifold
from matplotlib.figure import Figure as Canvas
from PIL import Image

from regbench.report.bundled import regbench_figures
from regbench.report.figure import Drawing, Figure
from regbench.report.figures.clusters import Clusters
from regbench.report.figures.curves import Curves
from regbench.report.figures.mosaic import DPI, Block, Mosaic
from regbench.report.figures.prototypes import Prototypes, PrototypesOptions
from regbench.report.figures.reconstructions import Reconstructions, ReconstructionsOptions
from regbench.report.figures.samples import Samples, SamplesOptions
from regbench.report.figures.tsne import CACHE, TSNE, TSNEOptions
from regbench.report.style import looks, paper
from regbench.store.records import Run
from tests.report.synthetic import make_run


def draw(figure: Figure, run: Run) -> list[Drawing]:
    with paper():
        return list(figure.draw(run))


def texts(canvas: Canvas) -> list[str]:
    """What is written on a mosaic, row by row."""
    (ax,) = canvas.axes
    return [
        text.get_text()
        for text in sorted(ax.texts, key=lambda t: (round(t.get_position()[1], 3), t.get_position()[0]))
    ]


def only(cells: Sequence[Any], method: str, seed: int) -> Any:
    (cell,) = (cell for cell in cells if cell.method == method and cell.seed == seed)
    return cell


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """No prototypes."""
    return make_run(tmp_path_factory.mktemp("runs") / "plain", ["AE", "VAE-KL"], ["digits"], seeds=1)


def test_kinds_and_titles() -> None:
    kinds = regbench_figures()
    names = [
        "reconstructions",
        "curves",
        "prototypes",
        "synthesis",
        "samples",
        "interpolations",
        "tsne",
        "clusters",
        "spectrum",
        "tradeoff",
    ]
    assert [cls.name for cls in kinds] == names
    assert all(cls.selective for cls in kinds)
    assert all(cls.title and cls.__doc__ for cls in kinds)
    for cls in kinds:
        assert all(field.description for field in cls.Options.model_fields.values())


def test_one_drawing_per_data_set_with_a_caption_that_names_it(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE", "ProtoVAE K=3"], ["digits", "more digits"], seeds=2, test_images=20)
    for cls in regbench_figures():
        if cls.name == "tradeoff":  # needs families of methods: tests/report/test_figure_tradeoff.py
            continue
        drawings = draw(cls(), run)
        assert [d.name for d in drawings] == [f"{cls.name}-digits", f"{cls.name}-more-digits"]
        for drawing, dataset in zip(drawings, run.datasets, strict=True):
            assert dataset in drawing.caption
            assert drawing.caption.endswith(".")


def test_what_does_not_apply_yields_nothing(plain_run: Run) -> None:
    assert draw(Prototypes(), plain_run) == []
    assert draw(Clusters(), plain_run) == []


def test_clusters_need_two_prototypes(tmp_path: Path) -> None:
    assert draw(Clusters(), make_run(tmp_path / "r", ["AE", "ProtoVAE K=1"], seeds=1)) == []


def test_a_mosaic_shows_the_pixels_it_was_given() -> None:
    random = np.random.default_rng(0)
    grey_NCHW = random.integers(0, 256, (3, 1, 8, 8), dtype=np.uint8)
    colour_NCHW = random.integers(0, 256, (2, 3, 8, 8), dtype=np.uint8)
    sheet = Mosaic(4.0, 6)
    at = []
    for column, images_NCHW in ((0, grey_NCHW), (3.5, colour_NCHW)):
        sheet.space(0.01)
        at.append((sheet._x(column), sheet.y, images_NCHW))
        sheet.row([Block(column, images_NCHW)])
    canvas = sheet.finish()
    (picture,) = canvas.axes[0].images
    pixels = np.asarray(picture.get_array())
    for left, top, images_NCHW in at:
        for i, image_CHW in enumerate(images_NCHW):
            x, y = round((left + i * sheet.pitch) * DPI), round(top * DPI)
            side = round(sheet.side * DPI)
            shown = Image.fromarray(pixels[y : y + side, x : x + side, :3]).resize(
                (8, 8), Image.Resampling.NEAREST
            )
            np.testing.assert_array_equal(
                np.asarray(shown).transpose(2, 0, 1), np.broadcast_to(image_CHW, (3, 8, 8))
            )
    assert canvas.get_size_inches()[1] == pytest.approx(sheet.y + 0.02)


def test_reconstructions_show_best_median_and_worst_of_the_shown_seed(troubled: Run) -> None:
    (drawing,) = draw(Reconstructions(ReconstructionsOptions(images=3)), troubled)
    seed, methods = 0, troubled.methods
    arrays = {method: only(troubled.cells, method, seed).arrays() for method in methods}
    errors = {m: a["per_image_mse"][a["shown_index"]].astype(np.float64) for m, a in arrays.items()}
    order = np.argsort(sum(errors.values()), kind="stable")
    middle = (len(order) - 3) // 2
    chosen = [*order[:3], *order[middle : middle + 3], *order[-3:]]
    written = texts(drawing.figure)
    for method in methods:
        numbers = [f"{1000 * errors[method][i]:#.3g}".rstrip(".") for i in chosen]
        assert any(written[i : i + 9] == numbers for i in range(len(written))), method
        assert method in written
        assert f"mean {1000 * errors[method].mean():#.3g}".rstrip(".") in written
    assert [word for word in written if word in ("Best", "Median", "Worst")] == ["Best", "Median", "Worst"]
    assert "3 with the lowest, the middle and the highest" in drawing.caption
    assert "Seed 0." in drawing.caption


Shown = list[tuple[str, np.ndarray]]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> Shown:
    """What is laid out on mosaics: each row's label and all its images, in order."""
    found: Shown = []
    original = Mosaic.row

    def row(sheet: Mosaic, blocks: Sequence[Block], name: str = "", **more: Any) -> None:
        found.append((name, np.concatenate([block.images_NCHW for block in blocks])))
        original(sheet, blocks, name, **more)

    monkeypatch.setattr(Mosaic, "row", row)
    return found


def test_reconstructions_stand_below_their_originals(troubled: Run, rows: Shown) -> None:
    draw(Reconstructions(), troubled)
    (first, originals), *others = rows
    assert first == "Original"
    assert [name for name, _ in others] == list(troubled.methods)
    stored = only(troubled.cells, "AE", 0).arrays()["shown_images"]
    places = [int(np.flatnonzero((stored == image).all((1, 2, 3)))[0]) for image in originals]
    for method, images in others:
        expected = only(troubled.cells, method, 0).arrays()["reconstructions"][places]
        np.testing.assert_array_equal(images, expected)


def test_samples_and_prototypes_are_the_stored_ones(troubled: Run, rows: Shown) -> None:
    draw(Samples(SamplesOptions(columns=5, rows=2)), troubled)
    labels = [name for name, _ in rows]
    assert labels == ["Test images", *(x for method in troubled.methods for x in (method, ""))]
    for place, method in enumerate(troubled.methods):
        samples = only(troubled.cells, method, 0).arrays()["samples"]
        shown = np.concatenate([images for _, images in rows[1 + 2 * place : 3 + 2 * place]])
        np.testing.assert_array_equal(shown, samples[:10])
    rows.clear()
    draw(Prototypes(PrototypesOptions(columns=4)), troubled)
    assert [name for name, _ in rows] == ["ProtoVAE K=1", "ProtoVAE K=10", "", ""]
    expected = only(troubled.cells, "ProtoVAE K=10", 0).arrays()["prototype_images"]
    np.testing.assert_array_equal(np.concatenate([images for _, images in rows[1:]]), expected)


def test_errors_of_the_stored_pictures_where_the_suite_has_no_mse(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE"], seeds=1, metrics=["ssim"])
    (drawing,) = draw(Reconstructions(), run)
    arrays = run.cells[0].arrays()
    difference = (arrays["reconstructions"].astype(float) - arrays["shown_images"].astype(float)) / 255
    assert f"mean {1000 * (difference**2).mean():#.3g}".rstrip(".") in texts(drawing.figure)


def test_curves_show_means_over_finished_seeds_and_what_broke_down(troubled: Run) -> None:
    (drawing,) = draw(Curves(), troubled)
    look_of = looks(troubled)
    for ax, key in zip(drawing.figure.axes, ("test_mse", "train_mse"), strict=True):
        assert ax.get_yscale() == "log"
        for method in troubled.methods:
            cells = [c for c in troubled.select(method=method) if c.status == "done"]
            rows = [[r for r in cell.history if "evaluation" in r] for cell in cells]
            mean = np.mean([[r["evaluation"][key] for r in row] for row in rows], axis=0)
            lines = [line for line in ax.lines if line.get_color() == look_of[method].color]
            (line,) = (x for x in lines if x.get_linewidth() > 1 and x.get_marker() in ("", "None"))
            np.testing.assert_array_equal(line.get_xdata(), [r["epoch"] for r in rows[0]])
            np.testing.assert_allclose(line.get_ydata(), mean)
        crosses = [line for line in ax.lines if line.get_marker() == "x"]
        assert sorted(line.get_color() for line in crosses) == sorted(
            look_of[method].color for method in ("VAE-KL", "ProtoVAE K=10")
        )
        (shade,) = ax.patches
        assert (shade.get_x(), shade.get_x() + shade.get_width()) == (1, 4)
    assert "mean over 2 to 3 finished seeds" in drawing.caption
    assert "cross marks" in drawing.caption


def test_curves_of_a_run_in_which_nothing_has_finished(tmp_path: Path) -> None:
    status = {("AE", "digits", 0): "diverged", ("AE", "digits", 1): "missing"}
    (drawing,) = draw(Curves(), make_run(tmp_path / "r", ["AE"], seeds=2, status=status))
    assert "did not finish" in drawing.caption
    assert "t-interval" not in drawing.caption


def test_prototypes_show_all_of_them_with_their_share(troubled: Run) -> None:
    (drawing,) = draw(Prototypes(PrototypesOptions(columns=4)), troubled)
    written = texts(drawing.figure)
    assert "ProtoVAE K=1" in written
    assert "AE" not in written
    sizes = only(troubled.cells, "ProtoVAE K=10", 0).result["diagnostics"]["clusters"]["sizes"]
    shares = [100 * size / sum(sizes) for size in sizes]
    expected = ["0%" if s == 0 else "<1%" if s < 1 else f"{s:.0f}%" for s in shares]
    assert [word for word in written if word.endswith("%")] == ["100%", *expected]


def test_a_dead_prototype_is_not_called_small(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["ProtoVAE K=3"], seeds=1)
    run.cells[0].result["diagnostics"]["clusters"]["sizes"] = [995, 5, 0]
    (drawing,) = draw(Prototypes(), run)
    assert [word for word in texts(drawing.figure) if "%" in word] == ["100%", "<1%", "0%"]


def test_samples_say_where_they_come_from(troubled: Run) -> None:
    (drawing,) = draw(Samples(SamplesOptions(columns=5, rows=3)), troubled)
    written = " ".join(texts(drawing.figure))
    for cell in troubled.cells:
        if cell.status == "done":
            words = cell.result["samples_from"].split()
            assert words[0] in written
    assert "Test images" in written
    height, width = drawing.figure.get_size_inches()[::-1]
    assert width == 5.5
    assert height > 4 * 3 * 0.4  # four methods, three rows of half-inch images each


def embedding_inputs(run: Run, method: str, images: int) -> np.ndarray:
    arrays = only(run.cells, method, 0).arrays()
    parts = [arrays["latents"][:images]]
    if "prototypes" in arrays:
        parts.append(arrays["prototypes"])
    return np.concatenate(parts)


def test_tsne_embeds_codes_and_prototypes_together_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "r", ["AE", "VAE-KL", "ProtoVAE K=10"], seeds=1, test_images=40)
    options = TSNEOptions(images=30, perplexity=5, seed=3)
    (drawing,) = draw(TSNE(options), run)
    for ax, method in zip(drawing.figure.axes, run.methods, strict=False):
        codes = embedding_inputs(run, method, 30)
        direct = sklearn.manifold.TSNE(
            perplexity=5, random_state=3, init="pca", learning_rate="auto"
        ).fit_transform(codes)
        dots, *_ = ax.collections
        np.testing.assert_allclose(dots.get_offsets(), direct[:30], rtol=1e-4, atol=1e-4)
        (stars,) = ax.lines
        np.testing.assert_allclose(np.stack(stars.get_data(), 1), direct[30:], rtol=1e-4, atol=1e-4)
    files = sorted((run.path / CACHE).iterdir())
    assert len(files) == 3
    assert all(file.suffix == ".npy" for file in files)

    def never(**_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(sklearn.manifold, "TSNE", never)
    draw(TSNE(options), run)
    with pytest.raises(AssertionError, match="computed again"):
        draw(TSNE(TSNEOptions(images=30, perplexity=5, seed=4)), run)
    with pytest.raises(AssertionError, match="computed again"):
        draw(TSNE(TSNEOptions(images=29, perplexity=5, seed=3)), run)
    monkeypatch.undo()
    files[0].write_bytes(files[0].read_bytes()[:50])
    draw(TSNE(options), run)
    assert len(np.load(files[0])) in (30, 40)


def test_tsne_without_a_place_for_its_cache(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE"], seeds=1, test_images=12)
    (run.path / CACHE).write_text("a file where the directory should be")
    with pytest.warns(UserWarning, match="t-SNE is not cached"):
        assert len(draw(TSNE(), run)) == 1


def test_tsne_of_a_collapsed_code_and_of_images_without_classes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "r", ["AE", "VAE-KL"], seeds=1, test_images=12)
    arrays = {cell.method: cell.arrays() for cell in run.cells}
    arrays["VAE-KL"]["latents"][:] = 0.25
    for each in arrays.values():
        each["latent_labels"][:] = -1
    monkeypatch.setattr("regbench.store.records.CellRecord.arrays", lambda cell: arrays[cell.method])
    (drawing,) = draw(TSNE(), run)
    alive, collapsed, *_ = drawing.figure.axes
    assert [t.get_text() for t in collapsed.texts] == ["all codes are the same"]
    assert len(alive.collections) == 1
    assert not alive.texts
    assert not drawing.figure.legends
    assert "class" not in drawing.caption


def test_tsne_of_a_hundred_classes_has_no_legend(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "r", ["AE"], seeds=1, test_images=60)
    arrays = run.cells[0].arrays()
    arrays["latent_labels"] = np.arange(60) % 20
    monkeypatch.setattr("regbench.store.records.CellRecord.arrays", lambda cell: arrays)
    (drawing,) = draw(TSNE(), run)
    assert "20 classes" in drawing.caption
    assert not drawing.figure.legends


def test_clusters_show_what_the_history_says(troubled: Run) -> None:
    (drawing,) = draw(Clusters(), troubled)
    titles = [ax.get_title(loc="left") for ax in drawing.figure.axes]
    assert titles == [
        "Separation",
        "Agreement",
        "Purity",
        "Largest, smallest",
        "Sizes at the end",
        "Off equal masses",
    ]
    axes = dict(zip(titles, drawing.figure.axes, strict=True))
    cells = [c for c in troubled.select(method="ProtoVAE K=10") if c.status == "done"]
    rows = [[r for r in c.history if (r.get("evaluation") or {}).get("clusters")] for c in cells]
    purity = np.mean([[r["evaluation"]["clusters"]["purity"] for r in row] for row in rows], axis=0)
    np.testing.assert_allclose(axes["Purity"].lines[0].get_ydata(), purity)
    sizes = np.array([[r["evaluation"]["clusters"]["sizes"] for r in row] for row in rows], dtype=float)
    relative = sizes / sizes.mean(-1, keepdims=True)
    largest, smallest = axes["Largest, smallest"].lines[:2]
    np.testing.assert_allclose(largest.get_ydata(), relative.max(-1).mean(0))
    np.testing.assert_allclose(smallest.get_ydata(), relative.min(-1).mean(0))
    (steps,) = axes["Sizes at the end"].patches
    expected = -np.sort(-relative[:, -1], axis=-1)
    np.testing.assert_allclose(steps.get_data().values, expected.mean(0))
    worst = np.mean(
        [
            [100 * r["log_max"]["prototype_mass_deviation"] for r in c.history if r["phase"] != "warmup"]
            for c in cells
        ],
        axis=0,
    )
    np.testing.assert_allclose(axes["Off equal masses"].lines[0].get_ydata(), worst)
    assert [text.get_text() for text in drawing.figure.legends[0].get_texts()] == ["ProtoVAE K=10"]


def test_panels_without_data_are_left_out(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["ProtoVAE K=4"], seeds=1)
    for row in run.cells[0].history:
        row["log"], row["log_max"] = {}, {}
    (drawing,) = draw(Clusters(), run)
    titles = [ax.get_title(loc="left") for ax in drawing.figure.axes]
    assert titles == ["Separation", "Purity", "Largest, smallest", "Sizes at the end"]
    assert "Sinkhorn" not in drawing.caption


def test_names_cannot_break_a_figure(tmp_path: Path) -> None:
    names = ["AE $x_1", "_ProtoVAE $K=3$", "very " * 12 + "long"]
    run = make_run(tmp_path / "r", names, seeds=1, test_images=20, baseline=names[0])
    for cls in regbench_figures():
        for drawing in draw(cls(), run):
            with paper():
                drawing.figure.draw_without_rendering()
