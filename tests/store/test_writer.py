"""What the store promises: complete or absent, first wins, nothing overwritten, faults named."""

from __future__ import annotations

import errno
import json
import math
import os
import signal
import sys
from pathlib import Path
from typing import Any

import pytest

from regbench.errors import LockedError, StoreError, UsageError
from regbench.execution.interrupt import Stop, stoppable
from regbench.store import files, writer
from regbench.store.files import append_line, write_bytes
from regbench.store.location import find_run, mark_last, runs_dir
from regbench.store.records import CellRecord, Run, read_metrics
from regbench.store.writer import RunWriter, finite

FILES = {"result.json": b'{"id": "x", "metrics": {"mean": {}}}', "history.json": b"[]"}


def record(run: Path, slug: str = "a") -> CellRecord:
    return CellRecord("x", "AE", "digits", 0, {}, run / "cells" / slug)


def written(run: Path) -> Run:
    entry = {"id": "x", "slug": "a", "method": "AE", "dataset": "digits", "seed": 0, "key": {}}
    return RunWriter(run).write_lock({"name": "s"}, ["AE"], ["digits"], [entry], [b"text"])


def test_a_replaced_file_is_old_or_new_but_never_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "file"
    write_bytes(target, b"old")

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(StoreError, match=r"cannot write .*: No space left on device") as caught:
        write_bytes(target, b"new")
    assert "free some space" in str(caught.value.hint)
    assert target.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"], "no temporary file is left"


def test_a_directory_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file where a directory should be")
    with pytest.raises(StoreError, match="cannot write"):
        RunWriter(tmp_path / "runs" / "quick")


def test_attempts_are_numbered_and_kept(tmp_path: Path) -> None:
    cell = RunWriter(tmp_path).cell("a")
    first = cell.begin({"k": 1}, {"host": "h"})
    first.metrics({"epoch": 1, "losses": {"a": math.nan}})
    first.end("failed", "because", epoch=1)
    assert record(tmp_path).outcome == {"status": "failed", "reason": "because", "epoch": 1}
    assert record(tmp_path).history == [{"epoch": 1, "losses": {"a": "nan"}}]
    second = cell.begin({"k": 1}, {"host": "h"})
    assert second.directory.name.startswith("2-")
    second.end("diverged", "nan", epoch=2)
    assert record(tmp_path).status == "diverged", "the latest attempt counts"
    assert (first.directory / "outcome.json").exists()


def test_the_tenth_attempt_comes_after_the_ninth(tmp_path: Path) -> None:
    cell = RunWriter(tmp_path).cell("a")
    for number in range(1, 12):
        cell.begin({}, {}).end("failed", f"attempt {number}")
    assert record(tmp_path).outcome["reason"] == "attempt 11"


def test_a_result_appears_at_once_and_the_first_one_stays(tmp_path: Path) -> None:
    cell = RunWriter(tmp_path).cell("a")
    first, second = cell.begin({}, {}), cell.begin({}, {})
    assert record(tmp_path).status == "missing"
    first.commit(FILES)
    assert record(tmp_path).status == "done"
    with pytest.raises(StoreError, match="committed by another process; it stays"):
        second.commit({**FILES, "result.json": b'{"id": "other"}'})
    assert record(tmp_path).result["id"] == "x"
    assert not list((tmp_path / "cells" / "a").glob(".result-*")), "the losing copy is cleared away"


def test_replacing_sets_the_old_result_aside(tmp_path: Path) -> None:
    cell = RunWriter(tmp_path).cell("a")
    cell.begin({}, {}).commit(FILES)
    cell.begin({}, {}).commit({**FILES, "result.json": b'{"id": "new"}'}, replace=True)
    assert record(tmp_path).result["id"] == "new"
    (old,) = (tmp_path / "cells" / "a" / "superseded").iterdir()
    assert json.loads((old / "result.json").read_text())["id"] == "x"


@pytest.mark.skipif(sys.platform == "win32", reason="signals of POSIX")
def test_a_signal_while_a_result_is_replaced_puts_the_earlier_one_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cell = RunWriter(tmp_path).cell("a")
    cell.begin({}, {}).commit(FILES)
    attempt = cell.begin({}, {})
    sync = files.sync_directory

    def slow(path: Path) -> None:
        if path == cell.directory:  # the earlier result has been moved, the new one has not
            assert not cell.result.exists()
            os.kill(os.getpid(), signal.SIGTERM)
        sync(path)

    monkeypatch.setattr(writer, "sync_directory", slow)
    with pytest.raises(Stop), stoppable():
        attempt.commit({**FILES, "result.json": b'{"id": "new"}'}, replace=True)
    assert record(tmp_path).result["id"] == "x"
    assert not list(cell.directory.glob(".result-*"))


def test_an_altered_result_is_noticed(tmp_path: Path) -> None:
    RunWriter(tmp_path).cell("a").begin({}, {}).commit(FILES)
    file = tmp_path / "cells" / "a" / "result" / "result.json"
    content = bytearray(file.read_bytes())
    content[2] ^= 1
    file.write_bytes(bytes(content))
    with pytest.raises(StoreError, match=r"result.json has been altered: SHA-256") as caught:
        _ = record(tmp_path).result
    assert "--force" in str(caught.value.hint)


def test_a_torn_last_line_is_left_out(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, '{"epoch": 1}')
    append_line(path, '{"epoch": 2}')
    path.write_bytes(path.read_bytes() + b'{"epoch": 3, "los')
    assert read_metrics(path) == [{"epoch": 1}, {"epoch": 2}]


def test_two_processes_cannot_work_in_one_directory(tmp_path: Path) -> None:
    message = "in use by another regbench process"
    with (
        RunWriter(tmp_path).locked(),
        pytest.raises(LockedError, match=message),
        RunWriter(tmp_path).locked(),
    ):
        raise AssertionError
    with RunWriter(tmp_path).locked():
        pass


def test_what_is_not_finite_is_kept_as_text() -> None:
    value: Any = {"a": math.inf, "b": [1.0, -math.inf], "c": ("x", math.nan)}
    assert finite(value) == {"a": "inf", "b": [1.0, "-inf"], "c": ["x", "nan"]}


def test_runs_are_found_by_path_name_suite_file_or_as_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match="there is no last run in runs"):
        find_run()
    written(Path("runs/quick"))
    assert find_run() == Path("runs/quick"), "the only one"
    written(Path("runs/paper"))
    with pytest.raises(UsageError, match="it holds paper, quick"):
        find_run()
    mark_last(Path("runs/quick"))
    assert find_run() == Path("runs/quick")
    mark_last(Path("runs/paper"))
    assert find_run() == Path("runs/paper")
    assert find_run("quick") == find_run("suites/quick.toml") == find_run("runs/quick") == Path("runs/quick")
    with pytest.raises(UsageError, match=r"did you mean 'quick'\?"):
        find_run("quik")


def test_where_runs_live(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    assert runs_dir() == Path("runs")
    monkeypatch.setenv("REGBENCH_RUNS", str(tmp_path))
    assert runs_dir() == tmp_path
    assert runs_dir(Path("given")) == Path("given")


def test_a_directory_that_is_no_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="is not a run directory"):
        Run.open(tmp_path)
    run = written(tmp_path)
    assert run.methods == ("AE",)
    (tmp_path / "suite.lock.json").write_text("{ torn")
    with pytest.raises(StoreError, match="is not valid JSON"):
        Run.open(tmp_path)
    (tmp_path / "suite.lock.json").write_text('{"schema": 99}')
    with pytest.raises(StoreError, match="has schema 99; this regbench reads 1"):
        Run.open(tmp_path)
