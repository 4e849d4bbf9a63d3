"""What a table is: columns, rows of cells, and notes. All renderers share it, and none of it is escaped."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from regbench.report.summary import Code

Group = Literal["row", "metric", "difference", "cost", "codes", "prior", "samples", "clusters"]
GROUPS: dict[Group, str] = {
    "metric": "Reconstruction",
    "difference": "Paired differences",
    "cost": "Cost",
    "codes": "Codes",
    "prior": "Distances to priors",
    "samples": "Samples",
    "clusters": "Clusters",
}
"""The groups a table can be split into, with their headings."""


@dataclass(frozen=True, slots=True)
class Column:
    key: str
    """Unique in the table: ``method``, ``n``, ``mse``, ``mse.difference``, ``mse.wins``, ``mse.p``, ..."""
    label: str
    group: Group
    better: Literal["lower", "higher"] | None = None
    definition: str = ""


@dataclass(frozen=True, slots=True)
class Cell:
    text: str
    """What is printed, e.g. ``0.0421 ± 0.0013``; plain Unicode, not escaped for any format."""
    value: float | None = None
    """To sort by; in the unit of the column."""
    low: float | None = None
    high: float | None = None
    bold: bool = False
    note: str = ""
    """More to say about this one cell, e.g. in a tooltip."""
    marks: tuple[str, ...] = ()
    """Footnotes of the table that speak of this cell."""


@dataclass(frozen=True, slots=True)
class Row:
    method: str
    code: Code | Literal[""]
    """``mean`` or ``sampled``; empty for a reference that was not trained."""
    cells: tuple[Cell, ...]
    """One per column."""


@dataclass(frozen=True, slots=True)
class Note:
    text: str
    mark: str = ""
    """The footnote's letter; empty: the note speaks of the whole table."""
    groups: tuple[Group, ...] = ("row",)
    """Whose columns the note explains; ``row``: everybody's."""


@dataclass(frozen=True, slots=True)
class Table:
    dataset: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    notes: tuple[Note, ...]
    baseline: str | None = None

    def pick(self, *groups: Group) -> Table:
        """The same rows with the columns and notes of some groups; method and n always stay."""
        wanted = {"row", *groups}
        places = [place for place, column in enumerate(self.columns) if column.group in wanted]
        rows = [replace(row, cells=tuple(row.cells[place] for place in places)) for row in self.rows]
        rows = [row for row in rows if row.code or any(cell.value is not None for cell in row.cells)]
        if not wanted & {"metric", "difference"}:  # costs and diagnostics do not depend on the code
            rows = [_without_code(row) for row in rows if row.code != "sampled"]
        if wanted == {"row", "clusters"}:  # most methods have none
            rows = [row for row in rows if any(cell.value is not None for cell in row.cells[2:])]
        marks = {mark for row in rows for cell in row.cells for mark in cell.marks}
        notes = [
            note for note in self.notes if (note.mark in marks if note.mark else wanted & {*note.groups})
        ]
        columns = tuple(self.columns[place] for place in places)
        return replace(self, columns=columns, rows=tuple(rows), notes=tuple(notes))

    def heading(self, group: Group) -> str:
        """What stands above the columns of a group."""
        name = GROUPS[group]
        return f"{name} to {self.baseline}" if group == "difference" else name

    @property
    def groups(self) -> tuple[Group, ...]:
        """The groups that have columns here, in order."""
        return tuple(group for group in GROUPS if any(column.group == group for column in self.columns))


def _without_code(row: Row) -> Row:
    first, *rest = row.cells
    return replace(row, cells=(replace(first, text=row.method), *rest))
