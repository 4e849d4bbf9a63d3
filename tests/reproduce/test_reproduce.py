"""A result is made again from its own record: the verdicts, what is checked first, and what is left alone."""

from __future__ import annotations

import hashlib
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import regbench
from regbench.cli import app
from regbench.errors import CellsFailed, DataError, EnvironmentFault, Interrupted, StoreError, UsageError
from regbench.execution.events import EpochFinished
from regbench.reproduce import reproduce
from regbench.store.records import Run
from tests.execution.suites import AE, PLUGIN, TINY, write_plugin, write_suite

FALLING = """
[[regularizers]]
name = "falling"
label = "Falling"
options = { weight = 0.1 }
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two methods with three seeds, and the plugin file beside it."""
    place = tmp_path_factory.mktemp("made")
    plugin = write_plugin(place)
    suite = write_suite(place, AE + FALLING, seeds="3")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)  # what is recorded of git is that of the working directory
        regbench.run(suite, device="cpu", runs_dir=place / "runs", plugins=[plugin])
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, in the working directory."""
    shutil.copytree(made, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    return tmp_path


def cell(place: Path, method: str = "AE", seed: int = 0) -> Path:
    (found,) = (c for c in Run.open(place / "runs" / "tiny").select(method=method) if c.seed == seed)
    return found.directory


def again(result: object, *more: str, **changes: Any) -> Any:
    return reproduce(str(result), *more, **{"device": "cpu", "plugins": ["falling.py"], **changes})


def call(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> int:
    monkeypatch.setattr(sys, "argv", ["regbench", "reproduce", *map(str, arguments)])
    return app.main()


def content(folder: Path) -> dict[str, bytes]:
    """All files but the locks."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.suffix != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def rewrite(file: Path, **changes: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def attempt_file(directory: Path) -> Path:
    (file,) = directory.glob("attempts/*/attempt.json")
    return file


def test_the_same_code_on_the_same_cpu_gives_the_same_bits(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    before = content(place)
    assert call(monkeypatch, "tiny", "digits AE seed 1", "--device", "cpu", "--quiet") == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "weights: identical" in out
    assert "environment: the same" in out
    assert out.splitlines()[-1] == "identical: every metric and every weight, bit for bit"
    assert content(place) == before, "the store is not touched"


@pytest.mark.parametrize("form", ["cell", "result", "file", "title", "id", "id16", "directory"])
def test_a_result_may_be_named_in_several_ways(place: Path, form: str) -> None:
    directory = cell(place, seed=2)
    id = json.loads((directory / "result" / "result.json").read_text())["id"]
    names: dict[str, tuple[object, ...]] = {
        "cell": (directory,),
        "result": (directory / "result",),
        "file": (attempt_file(directory),),
        "title": ("runs/tiny", "digits AE seed 2"),
        "id": ("tiny", id),
        "id16": ("tiny.toml", id[:16]),
        "directory": ("tiny", directory.name),
    }
    from regbench.reproduce.find import find_cell

    first, *rest = names[form]
    record, run = find_cell(str(first), *map(str, rest))
    assert record.directory.resolve() == directory.resolve()
    assert record.seed == 2
    assert run is not None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("tiny",), "has 6 cells: say which"),
        (("tiny", "digits AE seed 7"), "did you mean 'digits AE seed"),
        (("tinny", "digits AE seed 0"), "did you mean 'tiny'"),
        (("CELL", "digits AE seed 0"), "is a cell already"),
    ],
)
def test_what_cannot_be_found_is_said_with_the_nearest(
    place: Path, arguments: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        again(*(str(cell(place)) if word == "CELL" else word for word in arguments))


def test_a_cell_without_a_result_is_none_to_make_again(place: Path) -> None:
    directory = cell(place)
    (directory / "result").rename(place / "away")
    with pytest.raises(UsageError, match="digits AE seed 0 has no result"):
        again(directory)


@pytest.mark.parametrize("name", ["weights.pt", "arrays.npz", "history.json", "result.json"])
def test_an_altered_file_is_named_before_anything_is_trained(place: Path, name: str) -> None:
    file = cell(place) / "result" / name
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(StoreError, match=rf"{name} has been altered"):
        again("tiny", "digits AE seed 0")


def test_a_record_of_another_cell_is_refused(place: Path) -> None:
    directory = cell(place)
    spec = json.loads(attempt_file(directory).read_text())["spec"]
    rewrite(attempt_file(directory), spec={**spec, "seed": 99})
    with pytest.raises(StoreError, match="describes another cell"):
        again(directory)
    rewrite(attempt_file(directory), spec={"tomorrow": 1})
    with pytest.raises(StoreError, match="does not understand"):
        again(directory)
    rewrite(attempt_file(directory), spec=spec)
    rewrite(directory / "cell.json", seed=99)
    with pytest.raises(StoreError, match=r"cell.json has been altered"):
        again(directory)


def test_a_result_without_a_recorded_spec_is_rebuilt_from_its_key(place: Path) -> None:
    directory = cell(place)
    file = attempt_file(directory)
    record = json.loads(file.read_text())
    del record["spec"]
    file.write_text(json.dumps(record))
    assert again(directory).verdict == "identical"
    shutil.rmtree(directory / "attempts")
    found = again(directory)
    assert found.verdict == "identical"
    assert found.environment is None, "nothing is known of it"


def test_a_cell_that_was_taken_out_of_its_run_is_made_again_too(place: Path) -> None:
    alone = shutil.copytree(cell(place), place / "alone")
    found = again(alone)
    assert (found.verdict, found.seeds) == ("identical", 1)
    assert found.metrics[0].rerun.half_width is None


def test_a_directory_with_other_contents_is_no_cell(place: Path) -> None:
    alone = shutil.copytree(cell(place), place / "alone")
    (alone / "cell.json").write_text('{"seed": 1}')
    with pytest.raises(StoreError, match="alone is not as regbench writes it: KeyError: 'regularizer'"):
        again(alone)


def test_other_code_is_said_and_needs_consent(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugin(place, PLUGIN + "# a remark\n")
    with pytest.raises(EnvironmentFault, match=r"regularizer falling, code: \w+\.\.\. then") as caught:
        again("tiny", "digits Falling seed 0")
    assert "--accept-stale" in str(caught.value.hint)
    words = ["tiny", "digits Falling seed 0", "--device", "cpu", "--plugin", "falling.py", "--accept-stale"]
    assert call(monkeypatch, *words, "--json", "--quiet") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["verdict"] == "identical", "a remark changes no number"
    assert [change["what"] for change in found["code"]] == ["regularizer falling, code"]


def test_rounding_that_is_otherwise_is_statistically_equal(place: Path) -> None:
    slightly = "self.options.weight * (1 + 1e-6) *"
    write_plugin(place, PLUGIN.replace("self.options.weight *", slightly))
    found = again("tiny", "digits Falling seed 0", accept_stale=True)
    assert found.verdict == "statistically equal"
    assert 0 < found.weights_difference < 1e-3
    assert found.first_other_epoch == 2, "the warm-up does not regularize"
    assert found.seeds == 3
    assert all(each.rerun.half_width > 0 for each in found.metrics)


def test_a_difference_beyond_the_spread_of_seeds_is_different(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_plugin(place, PLUGIN.replace("self.options.weight *", "1e6 * self.options.weight *"))
    words = ["tiny", "digits Falling seed 0", "--device", "cpu", "--plugin", "falling.py", "--accept-stale"]
    for file in place.glob("runs/tiny/cells/*falling-s[12]*/result/result.json"):
        # Seeds that agree closely, so that little is needed to be further off than they are.
        result = json.loads(file.read_text())
        own = json.loads((cell(place, "Falling") / "result" / "result.json").read_text())
        result["metrics"]["mean"] = {
            name: value * (1 + 1e-4) for name, value in own["metrics"]["mean"].items()
        }
        file.write_text(json.dumps(result))
        sums = json.loads((file.parent / "manifest.json").read_text())["sha256"]
        sums["result.json"] = hashlib.sha256(file.read_bytes()).hexdigest()
        rewrite(file.parent / "manifest.json", sha256=sums)
    assert call(monkeypatch, *words, "--quiet") == 3
    assert (
        "further off than another run may be, judged by 3 seeds" in capsys.readouterr().out.splitlines()[-1]
    )
    alone = shutil.copytree(cell(place, "Falling"), place / "alone")
    found = again(alone, accept_stale=True)
    assert found.verdict == "different"
    assert "1 seed is too few to know what another run may give" in found.why


def test_a_second_training_that_diverges_is_different(place: Path) -> None:
    write_plugin(place, PLUGIN.replace("if self.options.explode", "if True"))
    found = again("tiny", "digits Falling seed 0", accept_stale=True)
    assert found.verdict == "different"
    assert "the second training diverged: epoch 2" in found.why
    assert found.metrics == ()


def test_a_second_training_that_fails_says_why(place: Path) -> None:
    write_plugin(place, PLUGIN.replace("if self.options.fall", "if True"))
    with pytest.raises(CellsFailed, match="could not be made again: failed: RuntimeError: I fell"):
        again("tiny", "digits Falling seed 0", accept_stale=True)


def test_what_differs_in_the_environment_is_listed(place: Path) -> None:
    directory = cell(place)
    file = attempt_file(directory)
    made = json.loads(file.read_text())
    libraries = {**made["libraries"], "torch": "1.0"}
    rewrite(file, libraries=libraries, python="3.5", torch={**made["torch"], "threads": 8}, host=None)
    found = again(directory)
    assert found.verdict == "identical", "what is recorded of the environment changes no number"
    then = {change.what: change.then for change in found.environment}
    assert then == {"torch": "1.0", "python": "3.5", "threads": "8", "host": "not recorded"}
    assert {change.now for change in found.environment if change.what == "torch"} == {
        regbench.store.provenance.provenance()["libraries"]["torch"]  # type: ignore[attr-defined]
    }


def test_the_second_result_can_be_kept_and_read_like_a_run(place: Path) -> None:
    found = again("tiny", "digits Falling seed 2", out=place / "kept")
    assert found.out == str(place / "kept")
    frame = regbench.load_results(place / "kept")
    first = regbench.load_results("tiny")
    mine = first[(first.method == "Falling") & (first.seed == 2)]
    assert frame["mse"].tolist() == mine["mse"].tolist()
    with pytest.raises(UsageError, match="holds something already"):
        again("tiny", "digits Falling seed 2", out=place / "kept")
    (place / "full").mkdir()
    (place / "full" / "thesis.tex").write_text("mine")
    with pytest.raises(UsageError, match="holds something already"):
        again("tiny", "digits Falling seed 2", out=place / "full")


def test_a_second_making_that_was_stopped_is_gone_on_with(place: Path) -> None:
    import os
    import signal

    def stop(event: object) -> None:
        if isinstance(event, EpochFinished) and event.epoch == 1:
            os.kill(os.getpid(), signal.SIGINT)

    before = content(cell(place))
    with pytest.raises(Interrupted, match="the original is untouched") as caught:
        again("tiny", "digits AE seed 0", out=place / "kept", listener=stop)
    assert caught.value.exit_code == 130
    assert content(cell(place)) == before
    assert again("tiny", "digits AE seed 0", out=place / "kept").verdict == "identical"


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A run on a file of images."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    arrays = {
        name: rng.integers(0, 256, (n, 8, 8), dtype=np.uint8) for name, n in (("train", 150), ("test", 40))
    }
    np.savez(tmp_path / "images.npz", **arrays)  # type: ignore[arg-type]
    suite = TINY.format(seeds="1", epochs=2, metrics='["mse"]').replace(
        'name = "digits"', 'name = "npz"\noptions = { path = "images.npz", side = 8 }'
    )
    (tmp_path / "tiny.toml").write_text(suite + AE)
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path))
    regbench.run("tiny.toml", device="cpu")
    return tmp_path


def test_other_images_are_refused_and_missing_ones_named(pictures: Path) -> None:
    assert again("tiny", plugins=[]).verdict == "identical"
    arrays = dict(np.load("images.npz"))
    arrays["train"] = 255 - arrays["train"]
    np.savez("images.npz", **arrays)
    with pytest.raises(DataError, match="has other images than the result was made from"):
        again("tiny", plugins=[], accept_stale=True)
    (pictures / "images.npz").unlink()
    with pytest.raises(DataError, match=r"images\.npz"):
        again("tiny", plugins=[])


def test_without_a_spec_nobody_knows_where_the_images_lie(pictures: Path) -> None:
    (directory,) = (pictures / "runs" / "tiny" / "cells").iterdir()
    shutil.rmtree(directory / "attempts")
    with pytest.raises(StoreError, match="does not record where its data lie"):
        again(directory, plugins=[])
