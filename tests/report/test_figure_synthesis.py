"""Samples around one prototype per class: the stored ones, and how they were chosen."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regbench.report.figure import Drawing
from regbench.report.figures.mosaic import LEAST, Block, Mosaic, room
from regbench.report.figures.synthesis import Synthesis, SynthesisOptions
from regbench.report.style import paper
from regbench.store.records import Run
from tests.report.synthetic import make_run

NAMES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def draw(run: Run, **options: Any) -> list[Drawing]:
    with paper():
        return list(Synthesis(SynthesisOptions(**options)).draw(run))


@dataclass
class Row:
    name: str
    note: str
    words: str
    blocks: Sequence[Block]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[Row]:
    found: list[Row] = []
    original = Mosaic.row

    def row(sheet: Mosaic, blocks: Sequence[Block], name: str = "", **more: Any) -> None:
        found.append(Row(name, more.get("note", ""), more.get("words", ""), blocks))
        original(sheet, blocks, name, **more)

    monkeypatch.setattr(Mosaic, "row", row)
    return found


def patched(run: Run, monkeypatch: pytest.MonkeyPatch, **change: np.ndarray) -> None:
    arrays = {cell.method: cell.arrays() | change for cell in run.cells}
    monkeypatch.setattr("regbench.store.records.CellRecord.arrays", lambda cell: arrays[cell.method])


def test_each_row_has_its_prototype_and_the_samples_around_it(
    tmp_path: Path, rows: list[Row], monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make_run(tmp_path / "r", ["AE", "ProtoVAE K=12"], seeds=1, test_images=50, classes=NAMES)
    chosen = np.array([7, 11, -1, 0, 3, -1, 4, 5, 6, 8])
    patched(run, monkeypatch, synthesis_prototypes=chosen)
    (drawing,) = draw(run, samples=3)
    assert [row.name for row in rows] == NAMES
    arrays = run.cells[1].arrays()
    sizes = run.cells[1].result["diagnostics"]["clusters"]["sizes"]
    for c, (k, row) in enumerate(zip(chosen, rows, strict=True)):
        if k < 0:
            assert (row.words, row.note, list(row.blocks)) == ("no prototype of this class", "", [])
            continue
        first, *around = row.blocks
        np.testing.assert_array_equal(first.images_NCHW, arrays["prototype_images"][[k]])
        assert len(around) == 4
        for s, block in enumerate(around):
            np.testing.assert_array_equal(block.images_NCHW, arrays["synthesis"][c, s, :3])
        share = 100 * sizes[k] / sum(sizes)
        text = "0%" if share == 0 else "<1%" if share < 1 else f"{share:.0f}%"
        assert (row.words, row.note) == ("", f"v_{k + 1} · {text}")
    (ax,) = drawing.figure.axes
    written = [text.get_text() for text in ax.texts]
    assert [word for word in written if word in ("0.25", "0.5", "1", "2")] == ["0.25", "0.5", "1", "2"]
    assert written.count("no prototype of this class") == 2
    assert "Samples of ProtoVAE K=12 on digits" in drawing.caption
    assert "among all 12" in drawing.caption
    assert "class that is most frequent among its test images" in drawing.caption
    assert "Where no prototype belongs to a class" in drawing.caption
    assert "the first" not in drawing.caption.replace("the first ones drawn", "")


def test_the_first_ten_of_a_hundred_classes_are_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ["ProtoVAE K=10"], seeds=1, test_images=20)
    run.cells[0].result["classes"] = [f"class {i}" for i in range(100)]
    (drawing,) = draw(run)
    assert "Of the 100 classes, the first 10." in drawing.caption
    assert "says so" not in drawing.caption


@pytest.mark.parametrize(
    ("counts", "shown"), [((1, 10, 20, 50), 20), ((2, 100), 2), ((29, 30, 31), 30), ((20, 40), 20)]
)
def test_the_method_nearest_thirty_prototypes_is_shown(
    tmp_path: Path, counts: tuple[int, ...], shown: int
) -> None:
    run = make_run(tmp_path / "r", ["AE", *(f"ProtoVAE K={k}" for k in counts)], seeds=1, test_images=12)
    (drawing,) = draw(run)
    assert f"Samples of ProtoVAE K={shown} on digits" in drawing.caption


def test_nothing_without_classes_or_without_prototypes(tmp_path: Path) -> None:
    assert draw(make_run(tmp_path / "a", ["ProtoVAE K=4"], seeds=1, test_images=12, classes=())) == []
    run = make_run(tmp_path / "b", ["AE", "VAE-KL"], seeds=1, test_images=12)
    assert draw(run) == []
    assert draw(run, methods=("AE",)) == []


def test_images_are_not_squeezed_to_nothing_and_stay_on_the_sheet(tmp_path: Path, rows: list[Row]) -> None:
    run = make_run(tmp_path / "r", ["ProtoVAE K=10"], seeds=1, test_images=12)
    for width, samples in ((3.0, 1), (4.0, 3), (5.5, 5), (12.0, 6)):  # six are stored
        rows.clear()
        draw(run, samples=8, width=width)
        *_, last = rows[0].blocks
        assert {len(block.images_NCHW) for block in rows[0].blocks[1:]} == {samples}
        assert last.column + samples <= room(width, LEAST)


def test_results_without_cluster_sizes_have_no_share(tmp_path: Path, rows: list[Row]) -> None:
    run = make_run(tmp_path / "r", ["ProtoVAE K=10"], seeds=1, test_images=12)
    run.cells[0].result["diagnostics"]["clusters"] = None
    draw(run)
    assert [row.note for row in rows] == [f"v_{k}" for k in range(1, 11)]
