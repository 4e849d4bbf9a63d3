"""Where runs live, and which one was the last."""

from __future__ import annotations

import difflib
import os
import tomllib
from pathlib import Path

from regbench.errors import UsageError
from regbench.store.files import storage_errors, write_bytes
from regbench.store.records import LOCK

ENVIRONMENT = "REGBENCH_RUNS"
_LAST = ".last"
LARGEST_SUITE = 128 * 1024
"""Bytes of a suite file."""


def runs_dir(given: Path | None = None) -> Path:
    """``--runs-dir``, else the environment variable REGBENCH_RUNS, else ``runs`` in the working directory."""
    return given or Path(os.environ.get(ENVIRONMENT) or "runs")


def mark_last(run: Path) -> None:
    """Remember ``run`` as the last one of its directory."""
    with storage_errors(run.parent):
        run.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(run.parent / _LAST, f"{run.name}\n".encode())


def _suite_name(path: Path) -> str:
    """The run's name that a suite file gives; what is no readable suite file is taken for a name itself."""
    try:
        if path.is_file() and path.stat().st_size <= LARGEST_SUITE:  # no pipe, and nothing without an end
            return str(tomllib.loads(path.read_text(encoding="utf-8"))["suite"]["name"])
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        pass
    return path.stem


def _is_run(path: Path) -> bool:
    try:
        return (path / LOCK).is_file()
    except (OSError, ValueError):  # a name that no file can have
        return False


def find_run(given: str | Path | None = None, runs: Path | None = None) -> Path:
    """The run directory that a user means: a path, a name below ``runs``, a suite file, or nothing for the last run."""
    home = runs_dir(runs)
    known = sorted(path.parent.name for path in home.glob(f"*/{LOCK}")) if home.is_dir() else []
    if given is None:
        last = home / _LAST
        name = last.read_text(encoding="utf-8", errors="replace").strip() if last.is_file() else ""
        if name in known:  # and nowhere else, whatever the file says
            return home / name
        if len(known) == 1:
            return home / known[0]
        listing = f"; it holds {', '.join(known)}" if known else ""
        raise UsageError(
            f"there is no last run in {home}{listing}",
            hint="name a run: regbench report NAME"
            if known
            else "run a suite first: regbench run suites/quick.toml",
        )
    path = Path(given)
    for candidate in (path, home / path, home / _suite_name(path)):
        if _is_run(candidate):
            return candidate
    near = difflib.get_close_matches(path.stem, known, n=1)
    guess = f"; did you mean {near[0]!r}?" if near else f"; it holds {', '.join(known) or 'no run'}"
    raise UsageError(
        f"there is no run {str(given)!r} in {home}{guess}", hint="give the path or the name of a run"
    )
