"""Who may work on a cell: an attempt whose claim has moved on changes nothing; a run directory has one process."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from regbench.cli.app import main
from regbench.errors import LockedError, StoreError
from regbench.store.claims import ClaimLost
from regbench.store.records import read_metrics
from regbench.store.writer import AttemptWriter, CellWriter, RunWriter
from tests.execution.suites import AE, write_suite

ROW = {"epoch": 1, "losses": {"loss": 1.0}}


def files(cell: CellWriter) -> dict[str, bytes]:
    return {
        str(path.relative_to(cell.directory)): path.read_bytes()
        for path in cell.directory.rglob("*")
        if path.is_file()
    }


def result_of(attempt: AttemptWriter) -> dict[str, bytes]:
    return {"result.json": json.dumps({"attempt": attempt.directory.name}).encode()}


@pytest.mark.parametrize("replace", [False, True])
def test_what_thaws_after_its_claim_has_moved_on_changes_nothing(tmp_path: Path, replace: bool) -> None:
    run = RunWriter(tmp_path)
    frozen, present = run.cell("a"), run.cell("a")
    old = frozen.begin({}, {})
    old.metrics(ROW)
    new = present.begin({}, {})
    new.metrics(ROW)
    before = files(present)

    def tries() -> None:
        for step in (
            lambda: frozen.begin({}, {}),
            lambda: old.metrics(ROW),
            lambda: frozen.claim.ask("batch"),
            lambda: old.commit(result_of(old), replace=replace),
            lambda: run.cell("a", frozen.claim.token).begin({}, {}),
        ):
            with pytest.raises(ClaimLost, match="another attempt has taken this cell over"):
                step()

    tries()
    assert files(present) == before
    new.metrics({**ROW, "epoch": 2})
    new.commit(result_of(new))
    before = files(present)
    tries()
    assert files(present) == before
    assert json.loads((present.result / "result.json").read_text()) == {"attempt": new.directory.name}
    assert [row["epoch"] for row in read_metrics(new.directory / "metrics.jsonl")] == [1, 2]


def test_who_comes_too_late_between_check_and_rename_is_refused_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have passed their checks: the first rename wins, also where an earlier result is replaced."""
    cell = RunWriter(tmp_path).cell("a")
    first = cell.begin({}, {})
    first.commit(result_of(first))
    monkeypatch.setattr("regbench.store.claims.Claim.check", lambda claim: None)
    one, other = (RunWriter(tmp_path).cell("a").begin({}, {}) for _ in range(2))
    one.commit(result_of(one), replace=True)
    with pytest.raises(ClaimLost, match="has been committed by another process; it stays"):
        other.commit(result_of(other), replace=True)
    assert json.loads((cell.result / "result.json").read_text()) == {"attempt": one.directory.name}
    assert not list(cell.directory.glob(".result-*"))


def test_a_wish_to_stop_is_read_by_whoever_holds_the_claim(tmp_path: Path) -> None:
    cell = RunWriter(tmp_path).cell("a")
    cell.claim.take()
    worker = RunWriter(tmp_path).cell("a", cell.claim.token)
    assert worker.claim.stop_level() == ""
    cell.claim.ask("epoch")
    assert worker.claim.stop_level() == "epoch"
    cell.claim.ask("batch")
    assert worker.claim.stop_level() == "batch"
    cell.claim.take()
    assert worker.claim.stop_level() == "", "a new attempt begins without"


def test_a_damaged_claim_is_named(tmp_path: Path) -> None:
    cell = RunWriter(tmp_path).cell("a")
    attempt = cell.begin({}, {})
    cell.claim.path.write_text("{")
    with pytest.raises(StoreError, match=r"claim\.json is not valid JSON"):
        attempt.metrics(ROW)


HOLD = """
import sys, time
from pathlib import Path
from regbench.store.writer import RunWriter
with RunWriter(Path(sys.argv[1])).locked():
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_second_run_of_a_directory_is_told_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = write_suite(tmp_path, AE, metrics='["mse"]')
    arguments = [
        "regbench",
        "run",
        str(suite),
        "--device",
        "cpu",
        "--quiet",
        "--runs-dir",
        str(tmp_path / "runs"),
    ]
    monkeypatch.setattr(sys, "argv", arguments)
    directory = tmp_path / "runs" / "tiny"
    command = [sys.executable, "-c", HOLD, str(directory)]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == b"held\n"
            assert main() == 5
            told = capsys.readouterr().err
            assert (
                f"in use by another regbench process: process {holder.pid} on {platform.node()}, since 20"
                in told
            )
            assert "hint: wait for it to end" in told
            (directory / ".lock.holder").write_text("{")
            assert main() == 5, "it is held, whoever says so"
        finally:
            holder.kill()
    stale: dict[str, Any] = {"host": "elsewhere", "pid": os.getpid(), "since": "2020-01-01T00:00:00"}
    (directory / ".lock.holder").write_text(json.dumps(stale))
    with RunWriter(directory).locked():
        by = json.loads((directory / ".lock.holder").read_text())
        assert (by["host"], by["pid"]) == (platform.node(), os.getpid()), "a dead holder's name is no lock"
        with pytest.raises(LockedError, match=f"process {os.getpid()}"), RunWriter(directory).locked():
            raise AssertionError
    assert not (directory / ".lock.holder").exists()
