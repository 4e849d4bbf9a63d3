"""Figures show the methods and data sets that the suite names, and read each cell's arrays once."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regbench.errors import PluginError
from regbench.report.bundled import regbench_figures
from regbench.report.draw import draw_figures
from regbench.report.figure import SelectionOptions
from regbench.report.figures.choose import arrays_of, shown_seeds
from regbench.report.figures.curves import Curves, CurvesOptions
from regbench.report.figures.mosaic import Mosaic
from regbench.report.style import looks, paper
from regbench.store.records import CellRecord, Run
from tests.report.synthetic import make_run

METHODS = ["AE", "VAE-KL", "ProtoVAE K=2", "ProtoVAE K=10"]
FIGURES = [cls for cls in regbench_figures() if cls.name != "tradeoff"]
"""A trade-off needs families of methods, and shows those."""
PROTOTYPES = ("prototypes", "synthesis", "clusters")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return make_run(
        tmp_path_factory.mktemp("runs") / "r", METHODS, ["one", "two"], seeds=2, test_images=24, shown=12
    )


@pytest.mark.parametrize("cls", FIGURES, ids=lambda cls: cls.name)
def test_every_bundled_figure_shows_only_what_is_asked_for_in_that_order(
    run: Run, cls: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows: list[str] = []
    original = Mosaic.row

    def row(sheet: Mosaic, blocks: Any, name: str = "", **more: Any) -> None:
        rows.append(name)
        original(sheet, blocks, name, **more)

    monkeypatch.setattr(Mosaic, "row", row)
    wanted = ("ProtoVAE K=10", "AE", "ProtoVAE K=2")
    options = cls.Options(methods=wanted, datasets=("two",))
    with paper():
        drawings = list(cls(options).draw(run))
    expected = [name for name in wanted if name != "AE"] if cls.name in PROTOTYPES else list(wanted)
    names = [text.get_text() for d in drawings for legend in d.figure.legends for text in legend.get_texts()]
    titles = [ax.get_title(loc="left") for d in drawings for ax in d.figure.axes]
    shown = list(dict.fromkeys(name for name in [*rows, *names, *titles] if name in METHODS))
    if cls.name == "synthesis":  # a picture per method
        assert [d.name for d in drawings] == ["synthesis-two-protovae-k-10", "synthesis-two-protovae-k-2"]
        assert [name in d.caption for d, name in zip(drawings, expected, strict=True)] == [True, True]
        return
    assert shown == expected
    assert [d.name for d in drawings] == [f"{cls.name}-two"]


def test_a_method_looks_the_same_in_a_selection(run: Run) -> None:
    look_of = looks(run)
    options = CurvesOptions(methods=("ProtoVAE K=2",), datasets=("one",))
    with paper():
        (drawing,) = Curves(options).draw(run)
    assert drawing.figure.axes[0].lines[0].get_color() == look_of["ProtoVAE K=2"].color


def test_data_sets_are_drawn_in_the_order_of_the_option(run: Run) -> None:
    with paper():
        drawings = list(Curves(CurvesOptions(datasets=("two", "one"))).draw(run))
    assert [d.name for d in drawings] == ["curves-two", "curves-one"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"methods": ("AEE",)}, "methods: 'AEE': unknown label of a method; did you mean \"AE\"?"),
        ({"datasets": ("tow",)}, "datasets: 'tow': unknown label of a data set; did you mean \"two\"?"),
    ],
)
def test_a_label_that_the_run_does_not_have(run: Run, options: dict[str, Any], message: str) -> None:
    with pytest.raises(PluginError) as caught:
        list(Curves(CurvesOptions(**options)).draw(run))
    assert str(caught.value) == f"options of figure 'curves': {message}"
    assert caught.value.hint is not None


def test_the_same_kind_twice_gives_two_pictures(tmp_path: Path) -> None:
    figures = [
        {"kind": "synthesis", "options": {"methods": ["ProtoVAE K=2"], "samples": 1}},
        {"kind": "synthesis", "options": {"methods": ["ProtoVAE K=2"], "samples": 2}},
    ]
    run = make_run(tmp_path / "r", METHODS, ["a"], seeds=1, test_images=12, figures=figures)
    (tmp_path / "figures").mkdir()
    pictures, failures = draw_figures(run, tmp_path / "figures")
    assert not failures
    names = ["synthesis-a-protovae-k-2", "synthesis-a-protovae-k-2-2"]
    assert [p.name for p in pictures] == names
    assert len({p.png.read_bytes() for p in pictures}) == 2


def test_options_of_a_selective_figure_have_the_labels() -> None:
    for cls in regbench_figures():
        assert issubclass(cls.Options, SelectionOptions)
        assert cls.selective


def test_arrays_are_read_once_for_all_figures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make_run(tmp_path / "r", METHODS, ["a"], seeds=2, test_images=12)
    read: list[str] = []
    original = CellRecord.arrays

    def arrays(cell: CellRecord) -> Any:
        read.append(f"{cell.method} {cell.seed}")
        return original(cell)

    monkeypatch.setattr(CellRecord, "arrays", arrays)
    for cls in FIGURES:
        with paper():
            assert len(list(cls().draw(run))) == 1
    assert sorted(read) == sorted(f"{method} 0" for method in METHODS)


def test_arrays_are_read_again_where_they_have_changed(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE"], seeds=1, test_images=12)
    first = arrays_of(run.cells[0])
    with pytest.raises(ValueError, match="read-only"):
        first["latents"][0] = 0
    again = make_run(tmp_path / "r2", ["AE"], seeds=[5], test_images=20)
    for name in ("arrays.npz", "manifest.json"):
        content = (again.cells[0].result_dir / name).read_bytes()
        (run.cells[0].result_dir / name).write_bytes(content)
    assert len(arrays_of(run.cells[0])["latents"]) == 20
    np.testing.assert_array_equal(arrays_of(again.cells[0])["samples"], arrays_of(run.cells[0])["samples"])


def test_class_names_of_old_results_are_unknown(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["AE", "VAE-KL"], seeds=1, test_images=12, classes=("cat", "dog"))
    (shown,) = shown_seeds(run)
    assert shown.classes == ("cat", "dog")
    del run.cells[0].result["classes"]
    (shown,) = shown_seeds(run)
    assert shown.classes == ("cat", "dog")  # of the method that was run since
    run.cells[1].result["classes"] = []
    (shown,) = shown_seeds(run)
    assert shown.classes == ()
