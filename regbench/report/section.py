"""What a report has besides the tables of methods: a titled part with words, grids of cells, and a CSV file."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from regbench.report.table import Cell


@dataclass(frozen=True, slots=True)
class Grid:
    """A small table with a caption; none of it is escaped for any format."""

    caption: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    """One cell per column."""
    notes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Section:
    """One part of the report."""

    id: str
    """Anchor on the page: lower-case letters and hyphens."""
    title: str
    text: str
    """One paragraph."""
    grids: tuple[Grid, ...]
    frame: pd.DataFrame | None = None
    """The same numbers at full precision, written as ``<file>.csv``."""
    file: str = ""
    lead: bool = False
    """Whether it stands before the tables."""
