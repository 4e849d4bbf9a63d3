"""What an engine adds to a cell: many cells that are as small as can be, run in every way that works here.

    python -m benchmarks.engines

Each way runs the same suite in a directory of its own. Seconds to the first cell are the engine's start; the rest,
divided by the cells, is what a cell costs with all that is done for it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

import regbench
from benchmarks.common import Table, write
from regbench.execution.events import CellFinished, CellStarted
from regbench.execution.placement import Placement
from regbench.plugins import registry
from regbench.store.records import Run

SUITE = """
[suite]
name = "engines"
seeds = {seeds}
metrics = ["mse"]

[model]
latent = 4
features = 8
widths = [4]

[training]
epochs = 1
warmup = 0
batch_size = 32

[[datasets]]
name = "digits"
train_images = 64
test_images = 40

[[regularizers]]
name = "ae"
label = "AE"
"""
WAYS = {
    "in this process": Placement(),
    "local, --jobs 1": Placement(jobs=1),
    "local, --jobs 2": Placement(jobs=2),
    "ray, --jobs 2": Placement("ray", jobs=2),
    "slurm, --jobs 2": Placement("slurm", jobs=2),
}
TINY = ("in this process", "local, --jobs 2")
EXPECTED = (
    "Expected before the first run: a cell of these costs 0.2 to 0.4 s in this process, most of it evaluation and "
    "syncing of files. Workers add the claim, the job's text and its answer: 10 to 30 ms per cell. Two of them, on two "
    "cores, take 0.5 to 0.6 of the time of one. They start in 5 to 10 s, for which they import torch. Ray adds 10 to "
    "20 ms more, and some seconds to start. Slurm starts a process for each cell: 10 s and more."
)


@dataclass
class Clock:
    """When the first cell began and the last one ended."""

    begun: float = field(default_factory=time.perf_counter)
    first: float = 0.0
    last: float = 0.0

    def __call__(self, event: Any) -> None:
        if isinstance(event, CellStarted) and not self.first:
            self.first = time.perf_counter()
        elif isinstance(event, CellFinished):
            self.last = time.perf_counter()


def unusable(placement: Placement) -> str:
    """Why the way cannot be gone here; empty: it can."""
    if placement.in_process:
        return ""
    cls, options = placement.engine_class(registry())
    return "; ".join(problem.partition("\n")[0] for problem in cls.check(options))


def timed_run(suite: Path, placement: Placement, place: Path) -> tuple[Clock, Run]:
    clock = Clock()
    run = regbench.run(suite, device="cpu", placement=placement, runs_dir=place, listener=clock)
    return clock, run


def measure(cells: int, ways: Mapping[str, Placement]) -> Table:
    """Each way in turn; the results must be the same."""
    rows: list[tuple[str, ...]] = []
    alone = 0.0
    expected: list[Any] = []
    with tempfile.TemporaryDirectory() as folder:
        suite = Path(folder) / "engines.toml"
        suite.write_text(SUITE.format(seeds=2))
        timed_run(suite, Placement(), Path(folder) / "warm")  # imports, and what torch does only once
        suite.write_text(SUITE.format(seeds=cells))
        for number, (way, placement) in enumerate(ways.items()):
            if why := unusable(placement):
                rows.append((way, f"skipped: {why}", "", ""))
                continue
            clock, run = timed_run(suite, placement, Path(folder) / str(number))
            metrics = [cell.result["metrics"] for cell in run.cells]
            expected = expected or metrics
            assert metrics == expected, f"{way} gives other numbers"
            each = (clock.last - clock.first) / cells
            alone = alone or each
            start = f"{clock.first - clock.begun:.1f}"
            rows.append((way, start, f"{each * 1000:.0f}", f"{(each - alone) * 1000:+.0f}"))
    columns = ("way", "s to the first cell", "ms per cell", "ms more than in this process")
    title = f"{cells} cells: digits, 64 images, 1 epoch; the same metrics in every way"
    return Table(title, columns, tuple(rows), (EXPECTED,))


def main(
    cells: Annotated[int, typer.Option(help="Cells of the suite.")] = 200,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/engines-cpu.md."""
    ways = {way: WAYS[way] for way in TINY} if tiny else WAYS
    table = measure(4 if tiny else cells, ways)
    typer.echo(write("engines-cpu", "What an engine adds to a cell", torch.device("cpu"), [table], out))


if __name__ == "__main__":
    typer.run(main)
