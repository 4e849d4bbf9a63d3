"""Two machines' runs of one suite become one: everything or nothing, and never against what one of them says."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

import regbench
from regbench.cli import app
from regbench.errors import LockedError, StoreError, UsageError
from regbench.merge import UNFINISHED, Merged, copy, merge
from regbench.store.records import CellRecord, Run
from regbench.store.writer import RunWriter
from tests.execution.suites import AE, FALLING, write_plugin, write_suite


def make(folder: Path, seeds: str, methods: str = AE, **changes: Any) -> Path:
    """A run of the suite ``tiny`` below ``folder``."""
    folder.mkdir()
    suite = write_suite(folder, methods, seeds=seeds, **changes)
    regbench.run(suite, device="cpu", runs_dir=folder)
    return folder / "tiny"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("machines")
    make(place / "a", "[0, 1]")
    make(place / "b", "[1, 2]")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Copies of both runs, ``a/tiny`` and ``b/tiny``, in the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return tmp_path


def join(into: str = "c", *runs: str) -> Merged:
    return merge(runs or ("a/tiny", "b/tiny"), Path(into))


def cell(run: str, seed: int) -> CellRecord:
    (found,) = (record for record in Run.open(Path(run)).cells if record.seed == seed)
    return found


def content(folder: Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rewrite(record: CellRecord, **changes: Any) -> None:
    """Other contents of ``result.json``, with a manifest that fits."""
    file = record.result_dir / "result.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))
    resum(record, "result.json")


def resum(record: CellRecord, name: str) -> None:
    manifest = record.result_dir / "manifest.json"
    sums = json.loads(manifest.read_text())
    sums["sha256"][name] = hashlib.sha256((record.result_dir / name).read_bytes()).hexdigest()
    manifest.write_text(json.dumps(sums))


def change_lock(run: str, change: Any) -> None:
    file = Path(run) / "suite.lock.json"
    lock = json.loads(file.read_text())
    change(lock)
    file.write_text(json.dumps(lock))


def test_the_merged_run_is_what_one_machine_would_have_made(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(place)
    monkeypatch.setattr(sys, "argv", ["regbench", "merge", "a/tiny", "b/tiny", "--into", "c"])
    assert app.main() == 0
    said = capsys.readouterr().out.splitlines()
    assert said == [
        "only a/tiny has seeds 0",
        "only b/tiny has seeds 2",
        "2 results copied from a/tiny",
        "1 result copied from b/tiny",
        "1 result there already, or the same in several runs",
        "c: 3 of 3 cells finished; regbench report c",
    ]
    assert {name: each for name, each in content(place).items() if not name.startswith("c/")} == before
    make(place / "whole", "[0, 1, 2]")
    one, whole = Run.open(Path("c")), Run.open(Path("whole/tiny"))
    assert one.suite == {**whole.suite, "file": one.suite["file"]}
    assert [record.id for record in one.cells] == [record.id for record in whole.cells]
    for mine, theirs in zip(one.cells, whole.cells, strict=True):
        assert mine.verified("weights.pt") == theirs.verified("weights.pt")
        assert mine.result["metrics"] == theirs.result["metrics"]
        assert (mine.directory / "attempts" / mine.result["attempt"] / "attempt.json").is_file()
    assert one.classifier("digits") == whole.classifier("digits")
    assert one.anchors("digits") == whole.anchors("digits")
    assert not (place / "c" / UNFINISHED).exists()
    (record,) = map(json.loads, (place / "c" / "merges.jsonl").read_text().splitlines())
    assert record["runs"] == [str(place / "a" / "tiny"), str(place / "b" / "tiny")]


def test_a_merged_run_can_be_run_on_and_reported(place: Path) -> None:
    merge(["a/tiny", "b/tiny"], Path("runs/tiny"))
    suite = write_suite(place, AE, seeds="[0, 1, 2]")
    assert [planned.state for planned in regbench.plan(suite, device="cpu").cells] == ["finished"] * 3
    frame = regbench.load_results("tiny")
    assert frame["seed"].tolist() == [0, 1, 2]
    assert frame["mse"].notna().all()
    report = regbench.write_report("runs/tiny", out=place / "report")
    assert "AE" in Path(report.html).read_text()


def test_into_one_of_the_runs_adds_to_it(place: Path) -> None:
    before = content(place / "a" / "tiny" / "cells")
    done = join("a/tiny")
    assert (done.copied, done.kept, done.finished) == ({"b/tiny": 1}, 3, 3)
    after = content(place / "a" / "tiny" / "cells")
    assert {name: after[name] for name in before} == before, "what is there stays"
    assert join("a/tiny").copied == {}, "a second time there is nothing left to do"


def test_an_earlier_merge_takes_more(place: Path) -> None:
    make(place / "d", "[7]")
    join("c")
    assert join("c", "d/tiny", "a/tiny").finished == 4
    assert Run.open(Path("c")).suite["seeds"] == [0, 1, 2, 7]


@pytest.mark.parametrize("run", ["a", "b"])
@pytest.mark.parametrize("name", ["weights.pt", "result.json", "arrays.npz", "manifest.json"])
def test_an_altered_result_in_either_is_named_and_nothing_merged(place: Path, run: str, name: str) -> None:
    file = cell(f"{run}/tiny", 1).result_dir / name
    altered = bytearray(file.read_bytes())
    altered[len(altered) // 2] ^= 1
    file.write_bytes(bytes(altered))
    with pytest.raises(StoreError, match="nothing was merged") as caught:
        join()
    assert f"{run}/tiny/cells" in str(caught.value)
    assert not (place / "c").exists()


def test_all_faults_are_listed_at_once(place: Path) -> None:
    for run, seed in (("a", 0), ("b", 1), ("b", 2)):
        (cell(f"{run}/tiny", seed).result_dir / "weights.pt").unlink()
    with pytest.raises(StoreError) as caught:
        join()
    assert str(caught.value).count("cannot read") == 3


def test_other_numbers_for_one_cell_are_refused_with_both_values(place: Path) -> None:
    mine, theirs = cell("a/tiny", 1), cell("b/tiny", 1)
    first = mine.result["metrics"]["mean"]
    rewrite(theirs, metrics={"mean": {**first, "mse": 0.5}, "sampled": None}, finished="2001-02-03T04:05:06Z")
    before = content(place)
    with pytest.raises(StoreError) as caught:
        join("a/tiny")
    said = str(caught.value)
    assert "digits AE seed 1 has other numbers:" in said
    assert f"mse: {first['mse']!r} and 0.5" in said
    assert "ssim" not in said, "that is the same"
    assert "and b/tiny (on " in said
    assert "2001-02-03T04:05:06Z" in said
    assert content(place) == before


def test_other_weights_behind_the_same_metrics_are_refused(place: Path) -> None:
    theirs = cell("b/tiny", 1)
    state = torch.load(io.BytesIO(theirs.verified("weights.pt")), weights_only=True)
    state[next(iter(state))].view(-1)[0] += 0.25
    torch.save(state, theirs.result_dir / "weights.pt")
    resum(theirs, "weights.pt")
    with pytest.raises(StoreError, match=r"weights: they differ by up to 0\.25"):
        join()


def test_the_same_weights_in_another_file_format_are_the_same(place: Path) -> None:
    theirs = cell("b/tiny", 1)
    state = torch.load(io.BytesIO(theirs.verified("weights.pt")), weights_only=True)
    torch.save(state, theirs.result_dir / "weights.pt", _use_new_zipfile_serialization=False)
    resum(theirs, "weights.pt")
    assert join().kept == 1
    assert cell("c", 1).verified("weights.pt") == cell("a/tiny", 1).verified("weights.pt"), (
        "the first is kept"
    )


def test_a_cell_that_diverged_elsewhere_is_a_contradiction(place: Path) -> None:
    theirs = cell("b/tiny", 1)
    shutil.rmtree(theirs.result_dir)
    (outcome,) = theirs.directory.glob("attempts/*/outcome.json")
    outcome.write_text('{"status": "diverged", "reason": "epoch 1: nan"}')
    with pytest.raises(
        StoreError, match=r"digits AE seed 1 has a result in a/tiny .*, and diverged in b/tiny"
    ):
        join()


def test_failed_cells_come_along_and_finished_ones_are_taken_where_they_are(place: Path) -> None:
    plugin = write_plugin(place)
    methods = AE + FALLING.format(label="falls", options="fall = true")
    for name in ("d", "e"):
        (place / name).mkdir()
        suite = write_suite(place / name, methods)
        with pytest.raises(regbench.errors.CellsFailed):  # type: ignore[attr-defined]
            regbench.run(suite, device="cpu", runs_dir=place / name, plugins=[plugin])
    shutil.rmtree(cell_of("d/tiny", "AE").directory)
    shutil.rmtree(cell_of("e/tiny", "falls").directory)
    done = join("f", "d/tiny", "e/tiny")
    assert (done.finished, done.cells) == (1, 2)
    assert cell_of("f", "AE").status == "done"
    assert cell_of("f", "falls").outcome["reason"] == "RuntimeError: I fell"


def cell_of(run: str, method: str) -> CellRecord:
    (found,) = Run.open(Path(run)).select(method=method)
    return found


@pytest.mark.parametrize("part", ["metrics", "baseline", "claims"])
def test_other_suites_are_refused(place: Path, part: str) -> None:
    change_lock("b/tiny", lambda lock: lock["suite"].update({part: ["another"]}))
    with pytest.raises(StoreError, match=f"the suites have other {part}: .* and .'another'"):
        join()


def test_one_name_for_two_cells_is_refused_with_the_setting_that_differs(place: Path) -> None:
    make(place / "d", "[1]", epochs=3)
    with pytest.raises(StoreError, match=r"digits AE seed 1 is not the same cell: training.epochs = 2 and 3"):
        join("c", "a/tiny", "d/tiny")


def test_two_names_for_one_cell_are_refused(place: Path) -> None:
    make(place / "d", "[1]", AE.replace('"AE"', '"Plain"'))
    change_lock("d/tiny", lambda lock: lock["suite"].update(baseline="AE"))
    with pytest.raises(
        StoreError, match=r"one cell has several names: digits AE seed 1 .*digits Plain seed 1"
    ):
        join("c", "a/tiny", "d/tiny")


def test_results_that_another_classifier_judged_are_counted_and_measured_again(place: Path) -> None:
    facts = place / "b" / "tiny" / "derived" / "classifier" / "digits.json"
    state = torch.load(facts.with_suffix(".pt"), weights_only=True)
    state["head.bias"] += 1
    torch.save(state, facts.with_suffix(".pt"))
    sha = hashlib.sha256(facts.with_suffix(".pt").read_bytes()).hexdigest()
    facts.write_text(json.dumps({**json.loads(facts.read_text()), "sha256": sha}))
    for seed in (1, 2):
        rewrite(cell("b/tiny", seed), classifier={"sha256": sha, "accuracy": 0.5})
    done = join("runs/tiny")
    assert done.remeasure == {"digits": 1}, "the one that both have is judged by the first's"
    suite = write_suite(place, AE, seeds="[0, 1, 2]")
    states = [planned.state for planned in regbench.plan(suite, device="cpu").cells]
    assert states == ["finished", "finished", "remeasure"]


def test_an_altered_classifier_is_named(place: Path) -> None:
    (place / "b" / "tiny" / "derived" / "classifier" / "digits.pt").write_bytes(b"torn")
    with pytest.raises(
        StoreError, match=r"b/tiny/derived/classifier/digits.pt is missing or has been altered"
    ):
        join()


@pytest.mark.parametrize("after", [1, 4, 8, 9, 13, 20])
def test_an_interrupted_merge_leaves_no_half_result_and_goes_on(
    place: Path, monkeypatch: pytest.MonkeyPatch, after: int
) -> None:
    writes = count_writes(after)
    with monkeypatch.context() as patch:
        patch.setattr(copy, "write_bytes", lambda path, data: next(writes)(path, data))
        with pytest.raises(KeyboardInterrupt):
            join()
    for directory in (place / "c" / "cells").iterdir():
        record = CellRecord("", "", "", 0, {}, directory)
        assert not record.result_dir.exists() or record.verified("weights.pt")
    assert not (place / "c" / "suite.lock.json").exists(), "no run before it is complete"
    assert join().finished == 3
    join("other")
    mine, theirs = content(place / "c"), content(place / "other")
    assert mine.keys() == theirs.keys()
    assert all(mine[name] == theirs[name] for name in mine if name != "merges.jsonl")


def count_writes(number: int) -> Iterator[Any]:
    for _ in range(number):
        yield copy_write
    yield interrupt


def copy_write(path: Path, data: bytes) -> None:
    path.write_bytes(data)


def interrupt(path: Path, data: bytes) -> None:
    path.write_bytes(data[:1])
    raise KeyboardInterrupt


def test_an_unfinished_merge_of_other_runs_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    join("c")
    (place / "c" / "suite.lock.json").unlink()
    (place / "c" / UNFINISHED).mkdir()
    rewrite(cell_at("c"), finished="another time")
    with pytest.raises(StoreError, match="of an unfinished merge, is no result of these runs"):
        join("c")


def cell_at(run: str) -> CellRecord:
    return CellRecord("", "", "", 0, {}, sorted((Path(run) / "cells").iterdir())[0])


def test_a_run_in_use_is_left_alone(place: Path) -> None:
    with RunWriter(place / "b" / "tiny").locked(), pytest.raises(LockedError, match="b/tiny is in use"):
        join()
    assert not (place / "c").exists()


@pytest.mark.parametrize("slug", ["../../../evil", "/tmp/evil", ".."])
def test_a_lock_cannot_lead_out_of_its_run(place: Path, slug: str) -> None:
    change_lock("b/tiny", lambda lock: lock["cells"][0].update(slug=slug))
    with pytest.raises(StoreError, match="cannot name a file or directory"):
        join()


def test_a_manifest_cannot_lead_out_of_its_result(place: Path) -> None:
    result = cell("b/tiny", 2).result_dir
    (place / "b" / "secret").write_text("mine")
    sums = json.loads((result / "manifest.json").read_text())["sha256"]
    sums["../../../../secret"] = hashlib.sha256(b"mine").hexdigest()
    (result / "manifest.json").write_text(json.dumps({"sha256": sums}))
    with pytest.raises(StoreError, match=r"names a file outside the result: '\.\./\.\./\.\./\.\./secret'"):
        join()
    assert not (place / "c").exists()


def test_a_pipe_is_refused_and_not_waited_for(place: Path) -> None:
    os.mkfifo(cell("b/tiny", 2).directory / "attempts" / "pipe")
    with pytest.raises(StoreError, match="pipe is neither a file nor a directory"):
        join()


def test_a_data_sets_name_cannot_lead_out_either(place: Path) -> None:
    change_lock("b/tiny", lambda lock: lock.update(datasets=["../../x"]))
    with pytest.raises(StoreError, match="cannot name a file or directory"):
        join()


def test_records_that_are_whole_but_make_no_sense_are_named(place: Path) -> None:
    rewrite(cell("b/tiny", 1), metrics={})
    change_lock("b/tiny", lambda lock: lock["cells"][1].update(method="nobody"))
    with pytest.raises(StoreError, match="is not as regbench writes it: KeyError: 'mean'") as caught:
        join()
    assert "but not its method or data set" in str(caught.value)


def test_symbolic_links_are_refused(place: Path) -> None:
    file = cell("b/tiny", 2).result_dir / "weights.pt"
    file.rename(place / "elsewhere.pt")
    file.symlink_to(place / "elsewhere.pt")
    with pytest.raises(StoreError, match="is a symbolic link"):
        join()


def test_what_is_no_place_for_a_merge(place: Path) -> None:
    (place / "full").mkdir()
    (place / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds something that is no run"):
        join("full")
    with pytest.raises(UsageError, match="two different runs"):
        join("c", "a/tiny", "a/tiny")
    with pytest.raises(UsageError, match="there is no run 'nowhere'"):
        join("c", "a/tiny", "nowhere")


def test_cells_that_the_suite_no_longer_names_are_left_out_and_counted(place: Path) -> None:
    change_lock("b/tiny", lambda lock: lock["cells"].pop())
    done = join()
    assert done.left_out == {"b/tiny": 1}
    assert done.finished == 2
