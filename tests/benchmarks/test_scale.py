"""The benchmark of very many cells: made-up cells that regbench takes for finished, and every table of it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import scale, scale_verbs
from benchmarks.scale import COUNTED, TINY, Bench
from benchmarks.scale_disk import commit_cell, files_of
from benchmarks.scale_store import Maker, Shape, shape_of
from benchmarks.scale_verbs import CALLS, VERBS, Clock, count, kind_of, measure
from regbench.store.records import Run


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return Bench(Maker(tmp_path_factory.mktemp("scale")), Shape(1, 2, 2), TINY)


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Verbs are done in this process, which has torch already."""

    def process(verb: str, suite: Path, runs: Path) -> str:
        clock = Clock()
        VERBS[verb](suite, runs, clock)
        return json.dumps({"seconds": clock.seconds, "cpu": clock.cpu, "before": 1, "peak": 2})

    monkeypatch.setattr(scale_verbs, "_process", process)


@pytest.mark.usefixtures("here")
def test_every_verb_is_timed_on_cells_that_count_as_finished(bench: Bench) -> None:
    table = bench.verbs()
    suite, runs = bench.maker.run("scale", bench.shape)
    run = Run.open(runs / suite.stem)
    assert len(run.cells) == bench.shape.cells == 16
    assert {cell.status for cell in run.cells} == {"done"}
    named = [row[0] for row in table.rows]
    assert named[:3] == ["expand", "plan, empty store", "plan, all finished"]
    assert {"run, nothing left to do, all finished", "results as a frame", "claims", "facts"} <= set(named)
    assert not (bench.place / "empty").exists()
    for verb in ("follow", "commit"):
        assert sum(measure(verb, suite, runs).seconds.values()) > 0


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace is not installed")
def test_file_operations_are_those_below_the_runs_directory(bench: Bench) -> None:
    suite, runs = bench.maker.run("scale", bench.shape)
    found = count("read", suite, runs)
    assert found["open"] == found["read"] == 2 * 16 + 1  # manifest and result of each cell, and the lock
    assert found["sync"] == found["change"] == 0


def test_commits_and_listings_are_timed(bench: Bench) -> None:
    table = bench.commits()
    assert [row[0] for row in table.rows] == ["2"]
    assert all(float(number) > 0 for row in table.rows for number in row[1:])
    assert [row[0] for row in bench.listings().rows] == ["10", "100"]
    assert not list(bench.place.glob("list-*")) + list(bench.place.glob("commits-*"))


def test_a_committed_cell_is_whole(bench: Bench, tmp_path: Path) -> None:
    template = bench.maker.templates[0]
    commit_cell(tmp_path, files_of(template))
    (result,) = tmp_path.glob("*/result")
    assert files_of(result) == files_of(template)


@pytest.mark.parametrize(
    ("line", "kind"),
    [
        ('7 openat(AT_FDCWD</x>, "/runs/a/cell.json", O_RDONLY) = 3</runs/a/cell.json>', "open"),
        ('7 openat(AT_FDCWD</x>, "/runs/a/none", O_RDONLY) = -1 ENOENT (No such file or directory)', "open"),
        ('7 openat(AT_FDCWD</x>, "/elsewhere", O_RDONLY) = 3</elsewhere>', None),
        ('7 newfstatat(3</runs/a>, "", {st_mode=S_IFREG|0644, ...}, AT_EMPTY_PATH) = 0', None),
        ('7 newfstatat(AT_FDCWD</x>, "/runs/a", {st_mode=S_IFDIR|0755, ...}, 0) = 0', "look"),
        ('7 read(3</runs/a/cell.json>, "{"..., 4096) = 795', "read"),
        ('7 read(3</runs/a/cell.json>, "", 4096) = 0', None),
        ('7 rename("/runs/a/.b.tmp", "/runs/a/b") = 0', "change"),
        ("7 fsync(3</runs/a> <unfinished ...>", "sync"),
        ("7 <... fsync resumed>) = 0", None),
    ],
)
def test_what_asks_a_server_is_told_from_what_does_not(line: str, kind: str | None) -> None:
    assert kind_of(line, "/runs") == kind


def test_shapes_have_about_as_many_cells_as_asked_for() -> None:
    assert shape_of(100_000) == Shape(33, 20, 50)
    assert shape_of(100_000).cells == 100_000
    assert [shape_of(cells).cells for cells in (8, 40, 4_000)] == [8, 40, 4_000]


def test_the_page_counts_verbs_that_exist() -> None:
    assert COUNTED.keys() <= VERBS.keys()
    assert set(CALLS) == {"open", "look", "read", "list", "change", "sync"}
    assert scale.MOST_CELLS < 65_000 * 3  # names of one file, shared by the cells of one of three families
