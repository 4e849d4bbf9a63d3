"""A run as tables: one per data set, in one model that all renderers share.

    for table in build_tables(run):
        table.columns, table.rows, table.notes
        table.pick("metric")        # the same rows with the columns of one group

Renderers: :mod:`regbench.report.terminal`, :mod:`regbench.report.markdown`, :mod:`regbench.report.latex`; the
numbers at full precision are :func:`regbench.report.summary.tidy`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from regbench.report.numbers import NOTHING, plain, signed, with_interval
from regbench.report.summary import (
    MIXABLE,
    Entry,
    MethodRow,
    Quantity,
    Summary,
    reference_values,
    summarise,
)
from regbench.report.table import GROUPS, Cell, Column, Group, Note, Row, Table
from regbench.report.table_notes import table_notes
from regbench.store.records import Run

__all__ = ["GROUPS", "Cell", "Column", "Group", "Note", "Row", "Table", "build_tables", "tables_of"]

MEBIBYTE = 2**20


def build_tables(run: Run) -> list[Table]:
    """The tables of a run, one per data set. Failed cells stay in rows and notes, never left out."""
    return tables_of(summarise(run))


def tables_of(summaries: Iterable[Summary]) -> list[Table]:
    """The same for summaries that are there already."""
    return [_Builder(summary).table() for summary in summaries]


@dataclass
class _Builder:
    summary: Summary
    footnotes: list[Note] = field(default_factory=list)

    def table(self) -> Table:
        """Columns, rows and notes; footnotes collect while the rows are made."""
        columns = list(self._columns())
        rows = [self._row(row) for row in self.summary.rows]
        rows += [self._reference_row(label, values, columns) for label, values in self._references(columns)]
        notes = (*self.footnotes, *table_notes(self.summary))
        return Table(self.summary.dataset, tuple(columns), tuple(rows), notes, self.summary.baseline)

    def _metrics(self) -> list[Quantity]:
        return [quantity for quantity in self.summary.quantities if quantity.group == "metric"]

    def _others(self) -> list[Quantity]:
        """Costs and diagnostics; columns without any number are left out."""
        return [
            quantity
            for quantity in self.summary.quantities
            if quantity.group != "metric"
            and any(self.summary.entry(row, quantity).interval for row in self.summary.rows)
        ]

    def _tested(self, metric: Quantity) -> bool:
        """Whether any difference of this metric has enough seeds for an exact test."""
        return any(self.summary.entry(row, metric).p_holm is not None for row in self.summary.rows)

    def _columns(self) -> Iterator[Column]:
        yield Column("method", "method", "row")
        yield Column("n", "n", "row", definition="seeds done / seeds planned")
        for metric in self._metrics():
            yield Column(metric.name, metric.label, "metric", metric.better, metric.definition)
        if self.summary.baseline is not None:
            for metric in self._metrics():
                name = metric.name
                yield Column(f"{name}.difference", f"Δ {metric.label}", "difference", metric.better)
                yield Column(f"{name}.wins", "wins", "difference", "higher")
                if self._tested(metric):
                    yield Column(f"{name}.p", "p", "difference", "lower")
        for quantity in self._others():
            yield Column(quantity.name, quantity.label, quantity.group, quantity.better, quantity.definition)

    def _row(self, row: MethodRow) -> Row:
        cells = [self._method_cell(row), self._n_cell(row)]
        for metric in self._metrics():
            cells.append(_metric_cell(row, self.summary.entry(row, metric)))
        if self.summary.baseline is not None:
            for metric in self._metrics():
                cells += self._difference_cells(row, metric)
        for quantity in self._others():
            cells.append(_other_cell(quantity, self.summary.entry(row, quantity), row))
        return Row(row.method, row.code, tuple(cells))

    def _method_cell(self, row: MethodRow) -> Cell:
        mixed = [
            f"{MIXABLE[kind]} {', '.join(found)}" for kind, found in row.environment.items() if len(found) > 1
        ]
        marks = [self._footnote(f"Seeds of this row mix {'; '.join(mixed)}.")] if mixed else []
        if row.collapsed:
            first, warning = next(iter(row.collapsed.items()))
            text = f"{row.method}: collapsed in {_seeds(row.collapsed)} (seed {first}: {warning})."
            marks.append(self._footnote(text))
        if row.warned:
            first, warning = next(iter(row.warned.items()))
            marks.append(
                self._footnote(f"{row.method}: {warning} (seed {first}; warned of in {_seeds(row.warned)}).")
            )
        return Cell(f"{row.method}, {row.code} code" if row.stochastic else row.method, marks=tuple(marks))

    def _n_cell(self, row: MethodRow) -> Cell:
        marks = []
        for problem in row.problems:
            seeds = _seeds(problem.seeds)
            if problem.status == "missing":
                text = f"{row.method}: {seeds} not run yet."
            else:
                reason = f": {problem.reason}" if problem.reason else ""
                text = f"{row.method}: {seeds} {problem.status}{reason}."
            marks.append(self._footnote(text.replace("..", ".")))
        return Cell(f"{row.done}/{row.planned}", float(row.done), marks=tuple(marks))

    def _difference_cells(self, row: MethodRow, metric: Quantity) -> list[Cell]:
        entry = self.summary.entry(row, metric)
        difference, tested = entry.difference, self._tested(metric)
        if difference is None:
            is_baseline = row.method == self.summary.baseline and row.code == "mean"
            cells = [Cell("baseline" if is_baseline else NOTHING), Cell(NOTHING)]
            return [*cells, Cell(NOTHING)] if tested else cells
        parts = [f"{difference.n} pairs"]
        if difference.correlation is not None:
            parts.append(f"correlation of the pairs {difference.correlation:.2f}")
        if entry.p is not None:
            parts.append(f"sign-flip p = {entry.p:.3g} before adjustment")
        text = signed(difference.mean, difference.low, difference.high)
        cells = [
            Cell(text, difference.mean, difference.low, difference.high, note=", ".join(parts)),
            Cell(f"{difference.wins}/{difference.n}", float(difference.wins)),
        ]
        if tested:
            p = entry.p_holm
            cells.append(Cell("n too small" if p is None else f"{p:.2g}", p))
        return cells

    def _references(self, columns: Sequence[Column]) -> list[tuple[str, dict[str, float]]]:
        """Those that have a value in any of the columns."""
        keys = {column.key for column in columns}
        return [(label, values) for label, values in reference_values(self.summary) if keys & values.keys()]

    def _reference_row(self, label: str, values: Mapping[str, float], columns: Sequence[Column]) -> Row:
        mark = self._footnote("A reference computed from the data, not trained: no seeds, never in bold.")
        cells = {
            "method": Cell(label, marks=(mark,)),
            "n": Cell("–", note="not trained"),
            **{name: Cell(plain(value), value) for name, value in values.items()},
        }
        return Row(label, "", tuple(cells.get(column.key, Cell(NOTHING)) for column in columns))

    def _footnote(self, text: str) -> str:
        """The letter of a footnote; one text has one letter."""
        for note in self.footnotes:
            if note.text == text:
                return note.mark
        number = len(self.footnotes)
        mark = (chr(ord("a") + number // 26 - 1) if number >= 26 else "") + chr(ord("a") + number % 26)
        self.footnotes.append(Note(text, mark))
        return mark


def _seeds(seeds: Collection[int]) -> str:
    return f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"


def _metric_cell(row: MethodRow, entry: Entry) -> Cell:
    interval = entry.interval
    if interval is None:
        states = dict.fromkeys("not run" if p.status == "missing" else p.status for p in row.problems)
        return Cell(", ".join(states) or NOTHING)
    return Cell(
        with_interval(interval.mean, interval.low, interval.high),
        interval.mean,
        interval.low,
        interval.high,
        bold=entry.tie,
        note="n = 1, no interval" if interval.n == 1 else f"{interval.n} seeds",
    )


def _other_cell(quantity: Quantity, entry: Entry, row: MethodRow) -> Cell:
    interval = entry.interval
    if interval is None:
        return Cell("" if row.code == "sampled" else NOTHING)
    unit = MEBIBYTE if quantity.name == "peak_memory_bytes" else 1
    mean = interval.mean / unit
    if (
        interval.low is None
        or interval.high is None
        or interval.high - interval.low <= 1e-9 * abs(interval.mean)
    ):
        return Cell(plain(mean), mean)  # the same for all seeds, as the number of steps is
    low, high = interval.low / unit, interval.high / unit
    return Cell(with_interval(mean, low, high), mean, low, high)
