"""Which figures are drawn, and that one that fails stops nobody else."""

from __future__ import annotations

from concurrent.futures import Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from regbench.report.draw import _batches, draw_figures
from regbench.report.processes import processes_for
from regbench.store.records import CellRecord, Run
from tests.report.synthetic import make_run

PLUGIN = """
import regbench
from matplotlib.figure import Figure as Canvas


class Mine(regbench.Figure):
    name = "mine"

    class Options(regbench.FigureOptions):
        trouble: str = ""

    def draw(self, run):
        yield regbench.Drawing("mine", Canvas(figsize=(1, 1)), f"Of {run.suite['name']}.")
        trouble = self.options.trouble
        if trouble == "raise":
            raise ZeroDivisionError("by zero")
        if trouble == "exit":
            raise SystemExit(7)
        if trouble == "name":
            yield regbench.Drawing("../mine", Canvas(), "")
        if trouble == "type":
            yield "a picture"


@regbench.hookimpl
def regbench_figures():
    return [Mine]
"""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    return file


def run_with(tmp_path: Path, *figures: dict[str, Any]) -> Run:
    return make_run(tmp_path / "run", ["AE"], seeds=1, test_images=12, figures=figures)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "figures").mkdir()
    return tmp_path / "figures"


def test_all_bundled_figures_where_the_suite_names_none(tmp_path: Path, out: Path) -> None:
    told: list[str] = []
    pictures, failures = draw_figures(run_with(tmp_path), out, progress=told.append)
    assert not failures
    assert [p.name for p in pictures] == [
        f"{kind}-digits"
        for kind in ("reconstructions", "curves", "samples", "interpolations", "tsne", "spectrum")
    ]
    assert told[0] == "drawing reconstructions"
    for picture in pictures:
        for file in (picture.png, picture.pdf, picture.svg):
            assert file.parent == out
            assert file.stat().st_size > 500


def test_only_what_the_suite_names_in_its_order_with_its_options(tmp_path: Path, out: Path) -> None:
    wanted = [{"kind": "samples", "options": {"width": 3}}, {"kind": "curves", "options": {}}]
    wanted += [{"kind": "samples", "options": {"width": 4}}]
    pictures, failures = draw_figures(run_with(tmp_path, *wanted), out)
    assert not failures
    assert [p.name for p in pictures] == ["samples-digits", "curves-digits", "samples-digits-2"]
    widths = [int.from_bytes(p.png.read_bytes()[16:20], "big") for p in pictures]
    assert widths == [600, 1100, 800]


def test_a_figure_of_a_plugin(tmp_path: Path, out: Path, plugin: Path) -> None:
    pictures, failures = draw_figures(run_with(tmp_path, {"kind": "mine"}), out, plugins=[plugin])
    assert not failures
    ((picture,)) = pictures
    assert (picture.name, picture.title, picture.caption) == ("mine", "Mine", "Of run.")


@pytest.mark.parametrize(
    ("trouble", "reason", "traceback"),
    [
        ("raise", "figure 'mine' raised ZeroDivisionError: by zero", True),
        ("exit", "figure 'mine' raised SystemExit: 7", True),
        ("name", "figure 'mine' named a picture '../mine'", False),
        ("type", "figure 'mine' must yield regbench.Drawing", False),
    ],
)
def test_a_failing_plugin_stops_nobody(
    tmp_path: Path, out: Path, plugin: Path, trouble: str, reason: str, traceback: bool
) -> None:
    run = run_with(tmp_path, {"kind": "mine", "options": {"trouble": trouble}}, {"kind": "samples"})
    pictures, (failure,) = draw_figures(run, out, plugins=[plugin])
    assert [p.name for p in pictures] == ["mine", "samples-digits"]
    assert failure.kind == "mine"
    assert reason in failure.reason
    assert failure.exit_code == 2
    assert bool(failure.traceback) is traceback
    assert not (out.parent / "mine.png").exists()


def test_unknown_kinds_and_wrong_options_are_failures_with_a_way_out(tmp_path: Path, out: Path) -> None:
    wanted = [{"kind": "curve"}, {"kind": "tsne", "options": {"images": 1, "colour": 2}}]
    pictures, (unknown, wrong) = draw_figures(run_with(tmp_path, *wanted), out)
    assert not pictures
    assert "did you mean 'curves'?" in unknown.reason
    assert unknown.exit_code == wrong.exit_code == 2
    assert "images:" in wrong.reason
    assert "colour:" in wrong.reason


def test_a_bug_of_ours_is_called_one(tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("epoch")

    monkeypatch.setattr("regbench.report.figures.curves.Curves.draw", broken)
    _, (failure,) = draw_figures(run_with(tmp_path, {"kind": "curves"}), out)
    assert failure.exit_code == 1
    assert "KeyError" in failure.traceback


def test_an_altered_result_is_named(tmp_path: Path, out: Path) -> None:
    run = run_with(tmp_path, {"kind": "samples"}, {"kind": "curves"})
    file = run.cells[0].result_dir / "arrays.npz"
    content = bytearray(file.read_bytes())
    content[100] ^= 1
    file.write_bytes(content)
    pictures, (failure,) = draw_figures(run, out)
    assert [p.kind for p in pictures] == ["curves"]
    assert "arrays.npz has been altered" in failure.reason
    assert failure.exit_code == 4
    assert "--force" in failure.hint


def test_several_processes_draw_the_same_files(tmp_path: Path, out: Path) -> None:
    wanted = [{"kind": "curves"}, {"kind": "spectrum"}, {"kind": "tsne", "options": {"images": 1}}]
    wanted += [{"kind": "curves"}]
    run = run_with(tmp_path, *wanted)
    drawn = {}
    for processes in (1, 2):
        place = out / str(processes)
        place.mkdir()
        pictures, failures = draw_figures(run, place, processes=processes)
        files = {path.name: path.read_bytes() for path in place.iterdir()}
        drawn[processes] = ([picture.name for picture in pictures], failures, files)
    assert drawn[1] == drawn[2]
    assert drawn[2][0] == ["curves-digits", "spectrum-digits", "curves-digits-2"]
    assert len(drawn[2][1]) == 1
    assert len(drawn[2][2]) == 9  # and nothing is left over


def test_histories_go_to_one_process_and_short_kinds_come_last() -> None:
    kinds = ("samples", "clusters", "synthesis", "tsne", "curves", "mine")
    started = _batches([{"kind": kind} for kind in kinds])
    assert [[kinds[number] for number, _ in batch] for batch in started] == [
        ["clusters", "curves"],
        ["tsne"],
        ["samples"],
        ["mine"],
        ["synthesis"],
    ]
    assert all(request["kind"] == kinds[number] for batch in started for number, request in batch)
    assert _batches([{"kind": "samples"}]) == [[(0, {"kind": "samples"})]]


def test_a_process_reads_each_history_once(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []
    verified = CellRecord.verified

    def counting(cell: CellRecord, name: str) -> bytes:
        read.append(name)
        return verified(cell, name)

    monkeypatch.setattr(CellRecord, "verified", counting)
    run = make_run(tmp_path / "run", ["AE", "ProtoVAE K=3"], seeds=2, test_images=12)
    run = replace(run, suite={**run.suite, "figures": [{"kind": "clusters"}, {"kind": "curves"}]})
    pictures, failures = draw_figures(run, out)
    assert [picture.kind for picture in pictures] == ["clusters", "curves"]
    assert not failures
    assert read.count("history.json") == len(run.cells) == 4


def test_processes_are_as_many_as_there_is_work_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sched_getaffinity", lambda _: range(6), raising=False)
    assert [processes_for(1, 3), processes_for(4, 1), processes_for(9, 3)] == [1, 4, 6]


def test_what_dead_processes_leave_is_drawn_here(
    tmp_path: Path, out: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Dead:
        def __init__(self, *_: object) -> None: ...

        def submit(self, *_: object) -> Future[None]:
            future: Future[None] = Future()
            future.set_exception(BrokenProcessPool())
            return future

        def shutdown(self, **_: object) -> None: ...

    monkeypatch.setattr("regbench.report.draw.ProcessPoolExecutor", Dead)
    told: list[str] = []
    run = run_with(tmp_path, {"kind": "spectrum"})
    pictures, failures = draw_figures(run, out, progress=told.append, processes=2)
    assert [picture.name for picture in pictures] == ["spectrum-digits"]
    assert not failures
    assert any("has died" in words for words in told)
