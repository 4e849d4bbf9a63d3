"""Tables as GitHub-flavoured Markdown."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from regbench.report.section import Section
from regbench.report.table import Cell, Table

_SPECIAL = re.compile(r"([\\`*_{}\[\]<>|~#$&^@!])")
_BLOCK_START = re.compile(r"^(\d*)([-+=.)])")


def to_markdown(tables: Iterable[Table], sections: Sequence[Section] = ()) -> str:
    """All tables, one section per data set, one table per group of columns, and the notes.

    Leading sections come before the tables, the others after them.
    """
    parts = (
        *(_section(section) for section in sections if section.lead),
        *(_dataset(table) for table in tables),
        *(_section(section) for section in sections if not section.lead),
    )
    return "\n".join(line for part in parts for line in part)


def escape(text: str) -> str:
    """``text`` such that Markdown shows it as it is, on one line and inside a table cell."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def _line(text: str) -> str:
    """The same for text that begins a block, where ``1.``, ``+`` and ``-`` would begin a list."""
    return _BLOCK_START.sub(r"\1\\\2", escape(text))


def _section(section: Section) -> Iterator[str]:
    yield from (f"## {_line(section.title)}", "", _line(section.text), "")
    for grid in section.grids:
        yield from (f"### {_line(grid.caption)}", "")
        yield _row(escape(column) for column in grid.columns)
        yield _row("---:" if numeric else "---" for numeric in grid.numeric)
        yield from (_row(_cell(cell) for cell in row) for row in grid.rows)
        yield from ("", *(f"- {_line(note)}" for note in grid.notes), "")


def _dataset(table: Table) -> Iterator[str]:
    yield from (f"## {_line(table.dataset)}", "")
    for group in table.groups:
        part = table.pick(group)
        yield from (f"### {_line(table.heading(group))}", "")
        yield _row(escape(column.label) for column in part.columns)
        yield _row("---" if place == 0 else "---:" for place in range(len(part.columns)))
        yield from (_row(_cell(cell) for cell in row.cells) for row in part.rows)
        yield ""
    for note in table.notes:
        yield f"- <sup>{note.mark}</sup> {escape(note.text)}" if note.mark else f"- {_line(note.text)}"
    yield ""


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _cell(cell: Cell) -> str:
    text = escape(cell.text)
    marks = f"<sup>{','.join(cell.marks)}</sup>" if cell.marks else ""
    return (f"**{text}**" if cell.bold else text) + marks
