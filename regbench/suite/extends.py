"""A suite that takes another one's tables and says only what differs."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from regbench.errors import Fault, SuiteError
from regbench.suite import toml
from regbench.suite.faults import show, show_path

DEEPEST = 5
"""Suites in a chain, each extending the next."""


def read(path: Path) -> tuple[dict[str, Any], tuple[Path, ...]]:
    """The tables of a suite file, joined with those of the suites that it extends; and their files, nearest first.

    Single tables are joined key by key, the extending file's value winning; a list of tables (``[[datasets]]``, ...)
    replaces the other's as a whole. The name is never taken over.

    Raises ``SuiteError`` where a file is not found or not TOML, or the chain is a circle or too long.
    """
    document = toml.read(path)
    bases: list[Path] = []
    files = [_resolved(path)]
    while (base := _base(document)) is not None:
        if "\0" in base:
            fault = Fault("suite.extends", show(base), "expected the path of a suite file")
            raise SuiteError(show_path(path), [fault])
        where = files[-1].parent / base
        if _resolved(where) in files or len(files) > DEEPEST:
            chain = " -> ".join(show_path(file) for file in (path, *bases, where))
            expected = "the suites extend each other in a circle" if _resolved(where) in files else "too long"
            raise SuiteError(show_path(path), [Fault("suite.extends", show(base), f"{expected}: {chain}")])
        # Beside the file it is named in, and shown as somebody in the working directory would write it.
        shown = (bases[-1] if bases else path).parent / base
        document = _joined(document, _read_base(shown, path, base))
        bases.append(shown)
        files.append(_resolved(where))
    return document, tuple(bases)


def _resolved(path: Path) -> Path:
    """Without links; other than ``Path.resolve`` it takes links in a circle as they are, for reading to refuse."""
    return Path(os.path.realpath(path))


def _base(document: Mapping[str, Any]) -> str | None:
    head = document.get("suite")
    base = head.get("extends") if isinstance(head, dict) else None
    return base if isinstance(base, str) and base else None  # anything else is the schema's to refuse


def _read_base(file: Path, path: Path, written: str) -> dict[str, Any]:
    try:
        return toml.read(file)
    except SuiteError as error:
        faults = [
            Fault("suite.extends", show(written), f"{show_path(file)}: {fault.expected}")
            for fault in error.faults
        ]
        raise SuiteError(show_path(path), faults, hint=error.hint) from None


def _joined(document: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """``base`` first, so that its tables keep their order."""
    joined = dict(base)
    for key, value in document.items():
        other = joined.get(key)
        joined[key] = {**other, **value} if isinstance(other, dict) and isinstance(value, dict) else value
    head, own = joined.get("suite"), document.get("suite")
    if isinstance(head, dict) and isinstance(own, dict):
        further = _base(base)
        head = {key: value for key, value in head.items() if key not in ("name", "extends")}
        joined["suite"] = (
            head
            | {key: own[key] for key in ("name",) if key in own}
            | ({"extends": further} if further else {})
        )
    return joined
