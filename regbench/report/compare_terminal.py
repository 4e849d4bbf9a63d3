"""A comparison in the terminal, with rich."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from regbench.report.compare import MARKS, Compared, Comparison
from regbench.report.numbers import NOTHING, signed, with_interval
from regbench.report.terminal import printable
from regbench.statistics import Interval

_STYLES = {"+": "green", "-": "red", "!": "bold red", "*": "bold green"}


def print_comparison(comparison: Comparison, console: Console | None = None) -> None:
    """Print to stdout, or to ``console``: a table per data set, what the marks mean, what else differs."""
    console = Console() if console is None else console
    console.print(Text(printable(f"A: {comparison.a}")))
    console.print(Text(printable(f"B: {comparison.b}")))
    for dataset in dict.fromkeys(line.dataset for line in comparison.lines):
        lines = [line for line in comparison.lines if line.dataset == dataset]
        console.print()
        console.print(Text(printable(dataset), style="bold"))
        console.print(_grid(comparison, lines))
    for mark, meaning in MARKS.items():
        if count := comparison.count(mark):
            console.print(Text(f"  {mark}  {meaning}: {count}", style=_STYLES.get(mark, "")))
    level = f"Marks at {comparison.alpha:.0%}, Holm-adjusted over all tests of a metric."
    console.print(Text(f"  ±: 95% t-interval over seeds. {level}", style="dim"))
    for note in comparison.notes:
        console.print(Text(f"  differs: {printable(note)}", style="yellow"))


def _grid(comparison: Comparison, lines: Sequence[Compared]) -> Table:
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("", "method", "metric", "A", "B", "B − A", "test"):
        number = name in ("A", "B", "B − A")
        grid.add_column(name, justify="right" if number else "left", overflow="fold")
    previous = ""
    for line in lines:
        metric = comparison.labels.get(line.metric, "")
        if line.code == "sampled":
            metric += ", sampled code"
        grid.add_row(
            Text(line.mark, style=_STYLES.get(line.mark, "")),
            Text(printable(line.method if line.method != previous else "")),
            Text(printable(metric)),
            _interval(line.a),
            _interval(line.b),
            _interval(line.difference, signed),
            Text(printable(line.note or line.test)),
        )
        previous = line.method
    return grid


def _interval(value: Interval | None, write: Callable[..., str] = with_interval) -> Text:
    return Text(NOTHING if value is None else write(value.mean, value.low, value.high))
