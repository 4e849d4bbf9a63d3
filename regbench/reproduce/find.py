"""Which result is meant: a path into a cell's directory, or a run and a cell of it."""

from __future__ import annotations

import difflib
from pathlib import Path

from regbench.errors import StoreError, UsageError
from regbench.store.location import find_run
from regbench.store.records import LOCK, CellRecord, Run, read_json

_UP = 4
"""A file of an attempt's checkpoints is as far below its cell's directory as this, or less."""
_SHORTEST = 6
"""Characters of an id that are taken for one."""


def find_cell(
    given: Path | str, cell: str | None = None, runs: Path | None = None
) -> tuple[CellRecord, Run | None]:
    """The cell that a user means, and its run where it lies in one.

    Args:
        given: a cell's directory, or anything in it; or a run, as :func:`regbench.store.location.find_run` takes it.
        cell: of a run with several cells: a title, an id or its beginning, or the name of a directory.
    """
    directory = _around(Path(given))
    if directory is not None:
        if cell is not None:
            raise UsageError(
                f"{given} is a cell already; {cell!r} names another",
                hint="give a run and a cell, or only a path",
            )
        return _of_directory(directory)
    run = Run.open(find_run(given, runs))
    return _pick(run, cell), run


def title(record: CellRecord) -> str:
    return f"{record.dataset} {record.method} seed {record.seed}"


def _around(path: Path) -> Path | None:
    """The cell's directory that ``path`` is or lies in."""
    if not path.exists():
        return None
    absolute = path.resolve()
    return next(
        (each for each in (absolute, *absolute.parents[:_UP]) if (each / "cell.json").is_file()), None
    )


def _of_directory(directory: Path) -> tuple[CellRecord, Run | None]:
    home = directory.parent.parent
    if (home / LOCK).is_file():
        run = Run.open(home)
        for record in run.cells:
            if record.directory.name == directory.name:
                return record, run
    return _alone(directory), None


def _alone(directory: Path) -> CellRecord:
    """A cell that is in no run, or that its run's suite does not name: called as its key calls its parts."""
    manifest = directory / "result" / "manifest.json"
    try:
        key = read_json(directory / "cell.json")
        id = read_json(directory / "result" / "result.json")["id"] if manifest.exists() else ""
        return CellRecord(id, key["regularizer"]["name"], key["dataset"]["name"], key["seed"], key, directory)
    except (KeyError, TypeError) as error:
        raise StoreError(
            f"{directory} is not as regbench writes it: {type(error).__name__}: {error}",
            hint="one of its files has been altered, or was written by another version",
        ) from error


def _pick(run: Run, cell: str | None) -> CellRecord:
    titles = [title(record) for record in run.cells]
    if cell is None:
        if len(run.cells) == 1:
            return run.cells[0]
        raise UsageError(
            f"{run.path} has {len(run.cells)} cells: say which",
            hint=f"for example: regbench reproduce {run.path} '{titles[0]}'"
            if titles
            else "run the suite first",
        )
    names = [(record, (title(record), record.id, record.directory.name)) for record in run.cells]
    found = [record for record, known in names if cell in known]
    if not found and len(cell) >= _SHORTEST:
        found = [record for record in run.cells if record.id.startswith(cell)]
    if (
        len(found) > 1
    ):  # methods that tuning has brought to the same settings share a cell; any of them will do
        found = found[:1] if len({record.id for record in found}) == 1 else found
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(
            f"{len(found)} cells of {run.path} have ids that begin with {cell!r}", hint="give more of it"
        )
    near = difflib.get_close_matches(cell, titles, n=1, cutoff=0.4)
    guess = f"; did you mean {near[0]!r}?" if near else ""
    raise UsageError(
        f"{run.path} has no cell {cell!r}{guess}",
        hint="name it by its title (DATASET METHOD seed N), its id, or its directory: regbench plan SUITE --all",
    )
