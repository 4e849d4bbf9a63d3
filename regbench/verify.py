"""Whether results and data are what they are said to be."""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePath
from typing import Any

from regbench.errors import DataError, RegbenchError, StoreError
from regbench.plugins import Registry
from regbench.store.records import CellRecord, read_json
from regbench.suite.cells import KEY_SCHEMA, CellSpec, canonical, dataset_of

ANEW = "run the suite again with --force to make the result anew"


def verified_key(record: CellRecord) -> dict[str, Any]:
    """Check every file of a finished cell against its manifest, and its key against its id; return the key.

    Raises ``StoreError``, which names the file, for whatever is missing, altered, or of another cell.
    """
    manifest = record.result_dir / "manifest.json"
    for name in read_json(manifest, sha256=dict)["sha256"]:
        if PurePath(name).name != name:
            raise StoreError(f"{manifest} names a file outside the result: {name!r}", hint=ANEW)
        record.verified(name)
    key = key_of(record)
    if record.result.get("id") != id_of(key):
        raise StoreError(
            f"{record.directory / 'cell.json'} has been altered: its hash is not the id of the result beside it",
            hint=ANEW,
        )
    return key


def key_of(record: CellRecord) -> dict[str, Any]:
    """``cell.json``: all that determines the cell's numbers."""
    file = record.directory / "cell.json"
    key = read_json(file)
    if key.get("schema") != KEY_SCHEMA:
        raise StoreError(
            f"{file} has schema {key.get('schema')!r}; this regbench reads {KEY_SCHEMA}",
            hint="use the regbench version that wrote it",
        )
    return key


def id_of(key: dict[str, Any]) -> str:
    """The id of the cell that a key describes."""
    return hashlib.sha256(canonical(key).encode()).hexdigest()


def data_problems(spec: CellSpec, registry: Registry, root: Path) -> tuple[list[str], str | None]:
    """What is wrong with the files of a cell's data set, and what mends it.

    Raises ``DataError`` where looking fails: that is a plugin's code, or options that point nowhere.
    """
    try:
        dataset = dataset_of(spec, registry)
        problems = dataset.check(root)
        return problems, dataset.mend(root) if problems else None
    except RegbenchError:
        raise
    except Exception as error:
        raise DataError(
            f"data set {spec.dataset}: checking it failed: {type(error).__name__}: {error}"
        ) from error
