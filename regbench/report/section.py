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

    @property
    def numeric(self) -> tuple[bool, ...]:
        """Of each column, whether it holds numbers, which stand to the right, or words."""
        places = range(len(self.columns))
        return tuple(any(row[place].value is not None for row in self.rows) for place in places)


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
    """Needed where there is a frame: lower-case letters and hyphens, other than ``table``."""
    lead: bool = False
    """Whether it stands before the tables."""

    def __post_init__(self) -> None:
        if self.frame is not None and (not self.file or self.file == "table"):
            raise ValueError(f"section {self.id!r}: file = {self.file!r}: expected a name for its CSV file")
