"""Tables for the terminal, with rich."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

from rich import box
from rich.console import Console
from rich.measure import Measurement
from rich.padding import Padding
from rich.table import Table as RichTable
from rich.text import Text

from regbench.report.claims import JudgedClaim
from regbench.report.claims_section import claim_lines
from regbench.report.table import Cell, Group, Table


def print_tables(
    tables: Iterable[Table], console: Console | None = None, *, groups: Iterable[Group] | None = None
) -> None:
    """Print to stdout, or to ``console``: per data set one table per group of columns, then the notes.

    ``groups``: only these, e.g. ``("metric",)``.
    """
    console = Console() if console is None else console
    for table in tables:
        wanted = [group for group in table.groups if groups is None or group in groups]
        for group in wanted:
            title = Text(printable(f"{table.dataset}: {table.heading(group)}"), style="bold")
            for grid in _grids(table.pick(group), console):
                console.print(title)
                console.print(grid)
        for note in table.pick(*wanted).notes:
            mark = Text(f"{note.mark} ", style="bold") if note.mark else Text()
            console.print(Padding(mark + Text(printable(note.text), style="dim"), (0, 0, 0, 2)))
        console.print()


def print_claims(claims: Sequence[JudgedClaim], console: Console | None = None) -> None:
    """Print one line per claim, its verdict first."""
    console = Console() if console is None else console
    for verdict, text in claim_lines(claims):
        line = Text(f"{verdict:<9}  ", style="bold" if verdict != "undecided" else "")
        console.print(line + Text(printable(text)), soft_wrap=True)
    if claims:
        console.print()


def printable(text: str) -> str:
    """``text`` on one line, without the control characters by which a name could steer the terminal."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in " ".join(text.split()))


def _grids(part: Table, console: Console) -> Iterator[RichTable]:
    """The table; where it is too wide for the terminal, several, each with some of the columns."""
    fixed = [place for place, column in enumerate(part.columns) if column.group == "row"]
    places = fixed
    # What belongs to one metric stays together: its difference, wins and p.
    for _, block in itertools.groupby(
        (place for place in range(len(part.columns)) if place not in fixed),
        key=lambda place: part.columns[place].key.partition(".")[0],
    ):
        wider = [*places, *block]
        if places != fixed and _width(_grid(part, wider, console), console) > console.width:
            yield _grid(part, places, console)
            wider = [*fixed, *wider[len(places) :]]
        places = wider
    yield _grid(part, places, console)


def _width(grid: RichTable, console: Console) -> int:
    return Measurement.get(console, console.options.update(max_width=10_000), grid).maximum


def _grid(part: Table, places: Sequence[int], console: Console) -> RichTable:
    grid = RichTable(box=box.SIMPLE_HEAD, pad_edge=False)
    for place in places:
        first = place == 0
        grid.add_column(
            Text(printable(part.columns[place].label)),
            justify="left" if first else "right",
            no_wrap=not first,
            overflow="fold",
            max_width=max(16, console.width // 3) if first else None,
        )
    for row in part.rows:
        grid.add_row(*(_cell(row.cells[place]) for place in places), style=None if row.code else "dim")
    return grid


def _cell(cell: Cell) -> Text:
    text = Text(printable(cell.text), style="bold green" if cell.bold else "")
    if cell.marks:
        text.append(f" {','.join(cell.marks)}", style="bold")
    return text
