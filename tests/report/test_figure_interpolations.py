"""Paths between the same test images through every method: the stored ones, below their ends."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from regbench.errors import StoreError
from regbench.report.figure import Drawing
from regbench.report.figures.interpolations import Interpolations, InterpolationsOptions
from regbench.report.figures.mosaic import Block, Mosaic
from regbench.report.style import paper
from regbench.store.records import Run
from tests.report.synthetic import make_run

METHODS = ["AE", "VAE-KL", "ProtoVAE K=2"]


def draw(run: Run, **options: Any) -> list[Drawing]:
    with paper():
        return list(Interpolations(InterpolationsOptions(**options)).draw(run))


def of(run: Run, method: str) -> dict[str, np.ndarray]:
    (cell,) = run.select(method=method)
    return cell.arrays()


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> dict[str, Sequence[Block]]:
    found: dict[str, Sequence[Block]] = {}
    original = Mosaic.row

    def row(sheet: Mosaic, blocks: Sequence[Block], name: str = "", **more: Any) -> None:
        found[name] = blocks
        original(sheet, blocks, name, **more)

    monkeypatch.setattr(Mosaic, "row", row)
    return found


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return make_run(tmp_path / "r", METHODS, seeds=1, test_images=30, shown=20)


def test_each_method_goes_between_the_same_images(run: Run, rows: dict[str, Sequence[Block]]) -> None:
    (drawing,) = draw(run)
    assert list(rows) == ["Test images", *METHODS]
    arrays = of(run, "AE")
    place = {int(index): r for r, index in enumerate(arrays["shown_index"])}
    expected = [arrays["shown_images"][place[int(i)]] for i in arrays["interpolation_pairs"].flat]
    np.testing.assert_array_equal(np.concatenate([b.images_NCHW for b in rows["Test images"]]), expected)
    ends = [block.column for block in rows["Test images"]]
    for method in METHODS:
        blocks = rows[method]
        for p, block in enumerate(blocks):
            np.testing.assert_array_equal(block.images_NCHW, of(run, method)["interpolations"][p])
        assert [x for b in blocks for x in (b.column, b.column + 7)] == ends
    assert "for 2 pairs, the same for every method" in drawing.caption
    assert drawing.caption.endswith("Seed 0.")


@pytest.mark.parametrize(("options", "pairs"), [({"pairs": 1}, 1), ({"width": 3}, 1), ({"pairs": 9}, 2)])
def test_as_many_pairs_as_asked_for_stored_and_legible(
    run: Run, rows: dict[str, Sequence[Block]], options: dict[str, Any], pairs: int
) -> None:
    draw(run, **options)
    assert len(rows["AE"]) == pairs


def test_who_has_none_is_said(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    arrays = {method: of(run, method) for method in METHODS}
    del arrays["VAE-KL"]["interpolations"], arrays["VAE-KL"]["interpolation_pairs"]
    monkeypatch.setattr("regbench.store.records.CellRecord.arrays", lambda cell: arrays[cell.method])
    (drawing,) = draw(run)
    assert drawing.caption.endswith("No interpolations stored: VAE-KL.")
    for each in arrays.values():
        each.pop("interpolations", None)
    again = make_run(run.path.parent / "again", METHODS, seeds=1, test_images=30, shown=20)
    assert draw(again) == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"VAE-KL": 1}, "interpolation_pairs of VAE-KL differs from AE's"),
        (dict.fromkeys(METHODS, 1000), "names test images that are not stored"),
    ],
)
def test_other_images_are_refused(
    run: Run, monkeypatch: pytest.MonkeyPatch, change: dict[str, int], message: str
) -> None:
    arrays = {method: of(run, method) for method in METHODS}
    for method, shift in change.items():
        arrays[method]["interpolation_pairs"] = arrays[method]["interpolation_pairs"] + shift
    monkeypatch.setattr("regbench.store.records.CellRecord.arrays", lambda cell: arrays[cell.method])
    with pytest.raises(StoreError, match=message):
        draw(run)
