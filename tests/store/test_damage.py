"""Files of the store that are not what they should be: named, set aside, never taken for results."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from regbench.errors import StoreError
from regbench.execution import planning
from regbench.store import files
from regbench.store.files import append_line
from regbench.store.records import CellRecord, Run, read_json, read_metrics
from regbench.store.writer import RunWriter

FILES = {"result.json": b'{"id": "x"}', "history.json": b"[]"}
ENTRY = {"id": "x", "slug": "a", "method": "AE", "dataset": "digits", "seed": 0, "key": {}}


def record(run: Path) -> CellRecord:
    return CellRecord("x", "AE", "digits", 0, {}, run / "cells" / "a")


def lock(**changes: Any) -> bytes:
    whole = {"schema": 1, "suite": {"name": "s"}, "methods": [], "datasets": ["d"], "cells": [ENTRY]}
    return json.dumps({**whole, **changes}).encode()


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "is not valid JSON"),
        (b"\0" * 100, "is not valid JSON"),
        (b"[" * 100_000, "is not valid JSON"),
        (b"[]", "holds list; expected a JSON object"),
        (b'{"schema": 1}', "it has no dict `suite`"),
        (lock(cells=3), "it has no list `cells`"),
        (lock(cells=[3]), "an entry lacks one of id, method"),
        (lock(cells=[{**ENTRY, "seed": "0"}]), "an entry lacks one of id, method"),
        (lock(cells=[{**ENTRY, "slug": "../../etc"}]), "cannot name a file or directory"),
        (lock(cells=[{**ENTRY, "slug": ".."}]), "cannot name a file or directory"),
        (lock(cells=[{**ENTRY, "slug": "a\0b"}]), "cannot name a file or directory"),
        (lock(suite={"name": "/tmp/elsewhere"}), "cannot name a file or directory"),
        (lock(datasets=["..\\x"]), "cannot name a file or directory"),
        (lock(datasets=[""]), "cannot name a file or directory"),
    ],
)
def test_a_damaged_lock_is_named(tmp_path: Path, content: bytes, problem: str) -> None:
    (tmp_path / "suite.lock.json").write_bytes(content)
    with pytest.raises(StoreError, match=problem) as caught:
        Run.open(tmp_path)
    assert str(tmp_path / "suite.lock.json") in str(caught.value)
    assert caught.value.hint == "move the file aside and run the suite again"
    assert caught.value.exit_code == 4
    (tmp_path / "suite.lock.json").write_bytes(lock())
    assert Run.open(tmp_path).datasets == ("d",)


def test_what_a_record_needs_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "x.json").write_text('{"a": 1}')
    assert read_json(tmp_path / "x.json", a=int) == {"a": 1}
    with pytest.raises(StoreError, match="it has no str `a`"):
        read_json(tmp_path / "x.json", a=str)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("{", "outcome.json is not valid JSON"),
        ("[]", "outcome.json holds list"),
        ("{}", "it has no str `status`"),
        ('{"status": 3}', "it has no str `status`"),
        ('{"status": "great"}', "outcome.json has status 'great'"),
        ('{"status": "done"}', "result is gone"),
    ],
)
def test_an_outcome_that_says_nothing_means_that_the_cell_is_run_again(
    tmp_path: Path, content: str, reason: str
) -> None:
    attempt = RunWriter(tmp_path).cell("a").begin({}, {})
    (attempt.directory / "outcome.json").write_text(content)
    assert record(tmp_path).status == "missing"
    assert reason in record(tmp_path).outcome_now.reason


@pytest.mark.parametrize("manifest", ["", "[1]", "{}", '{"sha256": []}'])
def test_a_result_with_a_damaged_manifest_is_no_result(tmp_path: Path, manifest: str) -> None:
    RunWriter(tmp_path).cell("a").begin({}, {}).commit(FILES)
    (tmp_path / "cells" / "a" / "result" / "manifest.json").write_text(manifest)
    with pytest.raises(StoreError, match=r"manifest\.json"):
        _ = record(tmp_path).result


def as_file(result: Path) -> None:
    result.write_text("a file")


def as_half(result: Path) -> None:
    result.mkdir()
    (result / "result.json").write_text("{}")


def as_dangling_link(result: Path) -> None:
    result.symlink_to(result.parent / "nowhere")


@pytest.mark.parametrize("put", [as_file, as_half, as_dangling_link])
def test_what_was_never_committed_is_set_aside_and_never_overwritten(
    tmp_path: Path, put: Callable[[Path], None]
) -> None:
    attempt = RunWriter(tmp_path).cell("a").begin({}, {})
    put(tmp_path / "cells" / "a" / "result")
    assert record(tmp_path).status == "missing"
    attempt.commit(FILES)
    assert record(tmp_path).result == {"id": "x"}
    (aside,) = (tmp_path / "cells" / "a" / "superseded").iterdir()
    assert os.path.lexists(aside)
    assert not aside.is_file() or aside.read_text() == "a file"


def test_a_result_behind_a_link_is_read_and_a_new_one_leaves_it_as_it_was(tmp_path: Path) -> None:
    """Links that somebody has put into a run, to another disk as a rule, are followed, and only they are moved."""
    cell = RunWriter(tmp_path / "run").cell("a")
    cell.begin({}, {}).commit(FILES)
    cell.result.rename(tmp_path / "elsewhere")
    cell.result.symlink_to(tmp_path / "elsewhere")
    assert record(tmp_path / "run").result == {"id": "x"}
    again = RunWriter(tmp_path / "run").cell("a").begin({}, {})
    again.commit({**FILES, "result.json": b'{"id": "new"}'}, replace=True)
    assert not cell.result.is_symlink()
    assert record(tmp_path / "run").result == {"id": "new"}
    assert json.loads((tmp_path / "elsewhere" / "result.json").read_text()) == {"id": "x"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content + b'{"epoch": 3, "los',
        lambda content: content + b"\0" * 512,
        lambda content: content + b"\0" * 512 + b"\n",
        lambda content: content.replace(b"\n", b'\n{"epoch": 2, "lo\n', 1),
        lambda content: b"\xff\xfe\n[1]\n3\n" + content,
        lambda content: content + b"[" * 100_000 + b"\n",
    ],
)
def test_what_a_crash_leaves_among_the_rows_is_passed_over(
    tmp_path: Path, damage: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, '{"epoch": 1}')
    append_line(path, '{"epoch": 2}')
    path.write_bytes(damage(path.read_bytes()))
    assert read_metrics(path) == [{"epoch": 1}, {"epoch": 2}]


def test_a_line_that_does_not_fit_leaves_the_file_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "metrics.jsonl"
    append_line(path, '{"epoch": 1}')

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(files.os, "fsync", full)
        with pytest.raises(StoreError, match="No space left on device"):
            append_line(path, '{"epoch": 2}')
    append_line(path, '{"epoch": 3}')
    assert read_metrics(path) == [{"epoch": 1}, {"epoch": 3}]


def finished(run: Path, slug: str, source: str, changed: int) -> None:
    """A cell of one method, of some version of its code."""
    key = {"regularizer": {"name": "m", "plugin": {"version": "1", "source": source}}}
    cell = RunWriter(run).cell(slug)
    cell.begin(key, {}).commit(FILES)
    os.utime(cell.result / "manifest.json", ns=(changed, changed))


def test_the_latest_result_of_older_code_is_the_last_runs_whatever_the_clock_says(tmp_path: Path) -> None:
    finished(tmp_path, "m-0000000000000001", "old", changed=9 * 10**18)  # the clock was ahead then
    finished(tmp_path, "m-0000000000000002", "older", changed=10**18)
    names = ["m-0000000000000001", "m-0000000000000002"]
    (latest,) = planning._by_key(tmp_path, names).values()
    assert latest.name == names[0], "nothing else is known"
    (tmp_path / "suite.lock.json").write_bytes(lock(cells=[{**ENTRY, "slug": names[1]}]))
    (latest,) = planning._by_key(tmp_path, names).values()
    assert latest.name == names[1]


@pytest.mark.parametrize("key", ["3", "{", '{"regularizer": 1}', '{"regularizer": {}}', "[]"])
def test_a_strange_directory_among_the_cells_disturbs_nobody(tmp_path: Path, key: str) -> None:
    finished(tmp_path, "m-0000000000000001", "old", changed=10**18)
    (tmp_path / "cells" / "m-0000000000000001" / "cell.json").write_text(key)
    assert planning._by_key(tmp_path, ["m-0000000000000001"]) == {}


def test_a_runs_directory_that_is_none_is_named(tmp_path: Path) -> None:
    assert planning.folders(tmp_path / "cells") == set()
    (tmp_path / "cells").write_text("a file")
    with pytest.raises(StoreError, match=r"cannot read .*cells: Not a directory") as caught:
        planning.folders(tmp_path / "cells")
    assert caught.value.hint == "choose another place with --runs-dir"


@pytest.mark.parametrize("place", ["cells/a", "cells/a/attempts", "cells"])
def test_a_file_where_a_directory_belongs_is_named_and_left_alone(tmp_path: Path, place: str) -> None:
    file = tmp_path / place
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("somebody's")
    with pytest.raises(StoreError, match=f"cannot write {tmp_path}") as caught:
        RunWriter(tmp_path).cell("a").begin({}, {})
    assert caught.value.hint == "something else is where a directory belongs: move it aside"
    assert file.read_text() == "somebody's"


def test_a_cell_behind_a_link_is_one_like_any_other(tmp_path: Path) -> None:
    (tmp_path / "other-disk").mkdir()
    cells = tmp_path / "run" / "cells"
    cells.mkdir(parents=True)
    (cells / "a").symlink_to(tmp_path / "other-disk", target_is_directory=True)
    RunWriter(tmp_path / "run").cell("a").begin({}, {}).commit(FILES)
    assert record(tmp_path / "run").result == {"id": "x"}
    assert (tmp_path / "other-disk" / "result" / "manifest.json").is_file()
    assert planning.folders(cells) == {"a"}
