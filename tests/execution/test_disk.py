"""A disk that is full, a limit on files, a disk that cannot be written: said with what to do, and nothing is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from regbench.cli.app import main
from regbench.store.records import Run
from tests.execution.suites import AE, write_suite

Verb = Callable[..., tuple[int, str]]


@pytest.fixture
def verb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Verb:
    """Runs the command line in ``tmp_path``; gives the exit code and what was written to stderr."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> tuple[int, str]:
        monkeypatch.setattr(sys, "argv", ["regbench", *arguments])
        code = main()
        return code, capsys.readouterr().err

    return run


def mount(*arguments: str) -> None:
    subprocess.run(["mount", *arguments], check=True, capture_output=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A file system of 200 KiB."""
    place = tmp_path / "small"
    place.mkdir()
    try:
        mount("-t", "tmpfs", "-o", "size=200k", "tmpfs", str(place))
    except (OSError, subprocess.CalledProcessError) as error:
        pytest.skip(f"no tmpfs can be mounted here: {error}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


def finished(run: Path) -> dict[str, bytes]:
    """The weights of the finished cells, verified."""
    return {cell.id: cell.verified("weights.pt") for cell in Run.open(run).cells if cell.status == "done"}


def leftovers(place: Path) -> list[Path]:
    return [path for path in place.rglob("*") if ".tmp" in path.name]


def test_a_full_disk_keeps_what_is_finished_and_the_run_goes_on_with_more_space(
    tmp_path: Path, small: Path, verb: Verb
) -> None:
    write_suite(tmp_path, AE, seeds="3")
    assert verb("run", "tiny.toml", "--runs-dir", "elsewhere")[0] == 0
    reference = finished(tmp_path / "elsewhere" / "tiny")
    sizes = iter(range(290, 600, 30))
    mount("-o", f"remount,size={next(sizes)}k", str(small))
    code, said = verb("run", "tiny.toml", "--runs-dir", "small")
    while not ((small / "tiny" / "suite.lock.json").is_file() and finished(small / "tiny")):
        assert code == 4
        mount("-o", f"remount,size={next(sizes)}k", str(small))
        code, said = verb("run", "tiny.toml", "--runs-dir", "small")
    assert code == 4
    assert "No space left on device" in said
    assert "hint: free some space and run the same command again: finished cells are kept" in said
    assert "Traceback" not in said
    assert leftovers(small) == []
    kept = finished(small / "tiny")
    assert 0 < len(kept) < 3

    mount("-o", "remount,size=8m", str(small))
    code, said = verb("run", "tiny.toml", "--runs-dir", "small")
    assert code == 0
    assert f"{3 - len(kept)} of 3 cells to run" in said
    assert finished(small / "tiny") == reference


def test_a_full_disk_ends_a_report_with_what_to_do(tmp_path: Path, small: Path, verb: Verb) -> None:
    write_suite(tmp_path, AE)
    with (tmp_path / "tiny.toml").open("a") as suite:
        suite.write('[[figures]]\nkind = "curves"\n')
    assert verb("run", "tiny.toml", "--runs-dir", "runs")[0] == 0
    mount("-o", "remount,size=16k", str(small))
    code, said = verb("report", "runs/tiny", "--out", "small/report")
    assert code == 4
    assert "No space left on device" in said
    assert leftovers(small) == []
    mount("-o", "remount,size=8m", str(small))
    assert verb("report", "runs/tiny", "--out", "small/report")[0] == 0


def test_a_disk_that_cannot_be_written_is_named_before_any_training(
    tmp_path: Path, small: Path, verb: Verb
) -> None:
    write_suite(tmp_path, AE)
    mount("-o", "remount,ro", str(small))
    code, said = verb("run", "tiny.toml", "--runs-dir", "small")
    assert code == 4
    assert "Read-only file system" in said
    assert "hint: choose another place with --runs-dir or REGBENCH_RUNS" in said
    assert verb("plan", "tiny.toml", "--runs-dir", "small", "--no-probe")[0] == 0, "planning writes nothing"


def test_a_lock_that_cannot_be_taken_is_named(tmp_path: Path, verb: Verb) -> None:
    write_suite(tmp_path, AE)
    (tmp_path / "runs" / "tiny" / "derived" / ".digits.lock").mkdir(parents=True)
    code, said = verb("run", "tiny.toml", "--runs-dir", "runs")
    assert code == 4
    assert ".digits.lock: Is a directory" in said


def test_a_limit_on_the_size_of_files_is_told_from_a_full_disk(tmp_path: Path, verb: Verb) -> None:
    resource = pytest.importorskip("resource")
    write_suite(tmp_path, AE)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, before[1]))
    try:
        code, said = verb("run", "tiny.toml", "--runs-dir", "runs")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert code == 4
    assert "File too large" in said
    assert "hint: raise the file size limit (ulimit -f) and run the same command again" in said
    assert leftovers(tmp_path / "runs") == []
    for file in (tmp_path / "runs").rglob("*.json"):
        json.loads(file.read_bytes())  # each is complete
    assert verb("run", "tiny.toml", "--runs-dir", "runs")[0] == 0
