"""What the store relies on, tried out in the file system where runs are kept. Nothing is left behind."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import filelock

from regbench.doctor.finding import Finding, examined
from regbench.errors import StoreError
from regbench.store.files import append_line, storage_errors, write_bytes

SLOW_S = 0.5
"""Seconds that writing one small file durably may take; a cell writes about ten, and a line per epoch."""
SKEW_S = 2.0
"""Seconds by which the file system's clock may differ from this machine's."""
EARLIEST = 1735689600.0
"""2025-01-01: a clock that says less was never set."""
LINES = 25
OTHER_FS = "keep runs on another file system: --runs-dir or REGBENCH_RUNS"

_LOCK = """
import sys, filelock
try:
    filelock.FileLock(sys.argv[1], timeout=0).acquire()
except filelock.Timeout:
    sys.exit(3)
"""
_APPEND = """
import sys
from pathlib import Path
from regbench.store.files import append_line
for number in range(int(sys.argv[2])):
    append_line(Path(sys.argv[1]), f"theirs {number} " + "." * 200)
"""


def check_storage(runs: Path) -> list[Finding]:
    """Everything that the store needs of the file system that ``runs`` is on, or will be."""
    home = existing(runs)
    found: list[Finding] = []
    try:
        with scratch(home) as place:
            for what, check in (
                ("write and sync", check_sync),
                ("rename", check_rename),
                ("locks", check_locks),
                ("append", check_append),
                ("clock", check_clock),
            ):
                found += examined(what, lambda check=check, place=place: [check(place)])  # type: ignore[misc]
    except StoreError as error:
        found.append(Finding("fault", "runs directory", str(error), error.hint or ""))
    else:
        new = "" if home == runs.resolve() else f", in {home}: it does not exist yet"
        found.insert(0, Finding("ok", "runs directory", f"{runs} can be written{new}"))
    return found


def existing(runs: Path) -> Path:
    """``runs``, or the nearest directory above it that exists: where it would be made."""
    path = runs.resolve()
    return next(each for each in (path, *path.parents) if each.exists())


@contextmanager
def scratch(home: Path) -> Iterator[Path]:
    """A directory to try things in, removed afterwards. Raises ``StoreError`` where none can be made."""
    with storage_errors(home):
        place = Path(tempfile.mkdtemp(prefix=".regbench-doctor-", dir=home))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def check_sync(place: Path) -> Finding:
    """A file is written, synced, replaced, and read back."""
    file, content = place / "file", os.urandom(1 << 20)
    started = time.perf_counter()
    write_bytes(file, b"before")
    seconds = time.perf_counter() - started
    write_bytes(file, content)
    if file.read_bytes() != content:
        return Finding(
            "fault", "write and sync", f"{place.parent} does not give back what was written", OTHER_FS
        )
    said = f"a small file is on the disk after {1000 * seconds:.3g} ms"
    if seconds > SLOW_S:
        return Finding(
            "warning", "write and sync", said, f"cells with short epochs will wait for it: {OTHER_FS}"
        )
    return Finding("ok", "write and sync", said)


def check_rename(place: Path, rename: Callable[[Path, Path], object] = os.rename) -> Finding:
    """A directory can be renamed, and a full one is never replaced: of two results, the first stays."""
    for name in ("first", "second"):
        (place / name).mkdir()
        (place / name / "file").write_text(name)
    target = place / "result"
    with storage_errors(place):
        rename(place / "first", target)
    try:
        rename(place / "second", target)
    except OSError:
        pass
    else:
        return Finding("fault", "rename", "a directory that is not empty was replaced by another", OTHER_FS)
    if (target / "file").read_text() != "first" or not (place / "second" / "file").is_file():
        return Finding("fault", "rename", "a rename that was refused has moved something", OTHER_FS)
    return Finding("ok", "rename", "whole directories appear at once, and a full one is not replaced")


def check_locks(place: Path, hold: Callable[[str], filelock.BaseFileLock] = filelock.FileLock) -> Finding:
    """A lock that this process holds keeps another process out, and lets it in afterwards."""
    file = str(place / "lock")
    with storage_errors(place), hold(file):
        kept_out = _python(_LOCK, file) == 3
    let_in = _python(_LOCK, file) == 0
    if not kept_out:
        said = "two processes held one lock at the same time: runs could disturb each other"
    elif not let_in:
        said = "a lock that was released could not be taken by another process"
    else:
        return Finding(
            "ok", "locks", "what one process holds, another cannot take; seen on this machine only"
        )
    return Finding("fault", "locks", said, OTHER_FS)


def check_append(place: Path, append: Callable[[Path, str], None] = append_line) -> Finding:
    """Two processes append to one file at a time: every line must be there, and whole."""
    file = place / "lines"
    command = [sys.executable, "-c", _APPEND, str(file), str(LINES)]
    with subprocess.Popen(command, stderr=subprocess.PIPE) as other:
        for number in range(LINES):
            append(file, f"mine {number} " + "." * 200)
            time.sleep(0.002)
        other.communicate()
    lines = sorted(file.read_text(encoding="utf-8", errors="replace").splitlines())
    expected = sorted(f"{who} {number} " + "." * 200 for who in ("mine", "theirs") for number in range(LINES))
    if lines != expected:
        missing = len(set(expected) - set(lines))
        return Finding("fault", "append", f"{missing} of {len(expected)} lines were lost or torn", OTHER_FS)
    return Finding("ok", "append", f"{len(expected)} lines of two processes are all there")


def check_clock(place: Path) -> Finding:
    """The file system's clock is this machine's, and both have been set."""
    file = place / "now"
    before = time.time()
    file.touch()
    stamp, after = file.stat().st_mtime, time.time()
    todo = "set the clock (NTP): times in results would be wrong; results themselves do not depend on it"
    if after < EARLIEST:
        return Finding("warning", "clock", f"this machine says it is {time.strftime('%Y-%m-%d')}", todo)
    ahead = max(stamp - after, 0.0) or min(stamp - before, 0.0)
    if abs(ahead) > SKEW_S:
        return Finding("warning", "clock", f"the file system's is {ahead:+.0f} s off this machine's", todo)
    future = _newest(place.parent) - after
    if future > SKEW_S:
        said = f"{place.parent} holds files from the future, by up to {future:.0f} s: a clock has jumped"
        return Finding("warning", "clock", said, todo)
    return Finding("ok", "clock", "the file system agrees with this machine")


def _newest(home: Path) -> float:
    """Time of the newest thing in a directory; the scratch directory in it is no older than now."""
    with os.scandir(home) as entries:
        times = [entry.stat(follow_symlinks=False).st_mtime for entry in entries]
    return max(times, default=0.0)


def _python(program: str, *arguments: str) -> int:
    command: Sequence[str] = [sys.executable, "-c", program, *arguments]
    return subprocess.run(command, capture_output=True, timeout=120).returncode
