"""The clock on the wall may jump, back or ahead: it is written down, and decides nothing."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import regbench
from regbench.cli import run

PACKAGE = Path(regbench.__file__).parent
WALL = re.compile(
    r"time\.time\(|datetime\.(now|utcnow|today)\(|create_time\(|st_[mc]time|getmtime|gmtime|localtime"
)
MAY_LOOK = {
    "cell.py": "the day a result was finished, written down",
    "store/provenance.py": "the day an attempt began, written down",
    "store/writer.py": "since when a lock is held, written down",
    "merge/__init__.py": "the day of a merge, written down",
    "doctor/disk.py": "tells the user that a clock is wrong",
    "data/facts.py": "a file is read again where it has any other time; sizes and times of change of state count, too",
    "data/folder.py": "the same, for every image",
    "report/figures/choose.py": "the same, inside one process",
    "execution/planning.py": "where neither the last run nor anything else tells which old result is the latest",
}


def test_nothing_else_looks_at_the_clock() -> None:
    looking = {
        file.relative_to(PACKAGE).as_posix()
        for file in PACKAGE.rglob("*.py")
        if WALL.search(file.read_text(encoding="utf-8"))
    }
    assert looking == MAY_LOOK.keys()


def test_a_clock_that_was_put_back_or_ahead_changes_no_duration(monkeypatch: pytest.MonkeyPatch) -> None:
    before = run._seconds_so_far()
    for year in (-365, 365):
        monkeypatch.setattr("time.time", lambda year=year: 1.8e9 + year * 86400)
        assert before <= run._seconds_so_far() < before + 600
