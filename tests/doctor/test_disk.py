"""The store's needs are tried out in the real file system, and each check fails where its promise is broken."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from regbench.doctor import disk
from regbench.doctor.disk import check_storage

EXAMINE = """
import dataclasses, json, resource, sys
from pathlib import Path
from regbench.doctor.disk import check_storage
{before}
print(json.dumps([dataclasses.asdict(each) for each in check_storage(Path(sys.argv[1]))]))
"""


def levels(found: Any) -> dict[str, str]:
    return {each.what: each.level for each in found}


def elsewhere(runs: Path, before: str = "", *command: str) -> dict[str, Any]:
    """Findings of another process, by what was looked at; ``command`` starts it."""
    program = EXAMINE.format(before=before)
    words = [*command, sys.executable, "-c", program, str(runs)]
    result = subprocess.run(words, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    return {each["what"]: each for each in json.loads(result.stdout)}


def test_a_sound_directory_passes_everything_and_stays_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "quick").mkdir()
    before = (tmp_path / "quick").stat()
    assert levels(check_storage(tmp_path)) == dict.fromkeys(
        ("runs directory", "write and sync", "rename", "locks", "append", "clock"), "ok"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["quick"]
    assert (tmp_path / "quick").stat().st_mtime_ns == before.st_mtime_ns


def test_a_directory_that_does_not_exist_is_not_made(tmp_path: Path) -> None:
    found = check_storage(tmp_path / "new" / "runs")
    assert "does not exist yet" in found[0].said
    assert {each.level for each in found} == {"ok"}
    assert list(tmp_path.iterdir()) == []


def test_a_file_in_the_place_of_the_directory_is_a_fault(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("a file")
    (found,) = check_storage(tmp_path / "runs")
    assert (found.level, found.what) == ("fault", "runs directory")
    assert found.todo


def test_a_file_size_limit_is_a_fault_that_says_so(tmp_path: Path) -> None:
    limit = "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
    limit += "resource.setrlimit(resource.RLIMIT_FSIZE, (65536, 65536))"
    found = elsewhere(tmp_path, limit)
    assert found["write and sync"]["level"] == "fault"
    assert "ulimit -f" in found["write and sync"]["todo"]
    assert found["rename"]["level"] == "ok"
    assert list(tmp_path.iterdir()) == []


def mounted(place: Path, options: str, then: str = "true") -> list[str]:
    """A command in whose own view ``place`` is a small file system in memory; skips where that is not allowed."""
    mount = f"mount -t tmpfs -o {options} none '{place}' && {then}"
    words = ["unshare", "--map-root-user", "--mount", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run([*words, mount], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    return [*words, f'{mount} && exec "$@"', "sh"]


def test_a_full_disk_is_a_fault_that_says_so(tmp_path: Path) -> None:
    found = elsewhere(tmp_path, "", *mounted(tmp_path, "size=64k"))
    assert found["write and sync"]["level"] == "fault"
    assert "No space left" in found["write and sync"]["said"]
    assert "free some space" in found["write and sync"]["todo"]


def test_a_read_only_disk_is_a_fault_that_says_so(tmp_path: Path) -> None:
    command = mounted(tmp_path, "size=1m", f"mount -o remount,ro '{tmp_path}'")
    found = elsewhere(tmp_path, "", *command)
    assert list(found) == ["runs directory"]
    assert found["runs directory"]["level"] == "fault"
    assert "Read-only file system" in found["runs directory"]["said"]
    assert "--runs-dir" in found["runs directory"]["todo"]


def test_a_rename_that_replaces_full_directories_is_a_fault(tmp_path: Path) -> None:
    def careless(source: Path, target: Path) -> None:
        if target.exists():
            shutil.rmtree(target)
        source.rename(target)

    found = disk.check_rename(tmp_path, careless)
    assert (found.level, found.said) == ("fault", "a directory that is not empty was replaced by another")


def test_a_rename_that_moves_into_the_target_is_a_fault(tmp_path: Path) -> None:
    def moving(source: Path, target: Path) -> None:
        shutil.move(source, target)  # into a directory that is there
        if (target / source.name).exists():
            raise OSError("refused, it says")

    assert disk.check_rename(tmp_path, moving).level == "fault"


def test_a_lock_that_keeps_nobody_out_is_a_fault(tmp_path: Path) -> None:
    found = disk.check_locks(tmp_path, lambda file: contextlib.nullcontext())  # type: ignore[arg-type,return-value]
    assert (found.level, found.what) == ("fault", "locks")
    assert "at the same time" in found.said


def test_lines_that_get_lost_are_a_fault(tmp_path: Path) -> None:
    def overwrite(path: Path, line: str) -> None:
        path.write_text(line + "\n")

    found = disk.check_append(tmp_path, overwrite)
    assert found.level == "fault"
    assert "lines were lost or torn" in found.said


def test_files_from_the_future_are_a_warning(tmp_path: Path) -> None:
    (tmp_path / "quick").mkdir()
    later = time.time() + 3600
    os.utime(tmp_path / "quick", (later, later))
    (found,) = (each for each in check_storage(tmp_path) if each.what == "clock")
    assert found.level == "warning"
    assert re.search(r"files from the future, by up to 3[56]\d\d s", found.said)


def test_a_clock_that_was_never_set_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 12.0)
    assert disk.check_clock(tmp_path).level == "warning"
