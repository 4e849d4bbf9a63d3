"""Reports, planning and the command line: how long they take where a run has many cells.

The run is made up (:mod:`benchmarks.synthetic_run`); what is timed is regbench's own: whole processes as a user
starts them, and ``regbench.plan``.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import torch
import typer

import regbench
from benchmarks.common import Table, Timing, alternate, write
from benchmarks.synthetic_run import Made, finished_run
from regbench.store.records import Run

CPU = torch.device("cpu")
REPORT_LIMIT, PLAN_LIMIT, HELP_LIMIT = 15.0, 2.0, 0.4
"""Seconds: a report of 500 cells, planning 10,000, ``regbench --help``."""


@dataclass(frozen=True, slots=True)
class Size:
    """How large all is."""

    datasets: tuple[Made, ...]
    images: tuple[int, int]
    """For training and for test."""
    head: str
    """What the suite's tables [suite], [training] and the others have besides, as TOML."""
    training: str
    tables: str
    trained_epochs: int
    epochs: int
    """Epochs that the copies' histories have."""
    seeds: int
    many_seeds: int
    """The same for planning."""
    rounds: int


PAPER = Path(__file__).parents[1] / "suites" / "paper.toml"
FULL = Size(
    datasets=(Made("grey", 1, 28, 10), Made("colour", 3, 32, 10), Made("colour-100", 3, 32, 100)),
    images=(1000, 2000),
    head=f'extends = "{PAPER.as_posix()}"',
    training="batch_size = 64\nlr = 2e-3\ntrain_subset = 500",
    tables="",
    trained_epochs=3,
    epochs=600,
    seeds=14,
    many_seeds=278,
    rounds=5,
)
TINY = Size(
    datasets=(Made("grey", 1, 12, 3),),
    images=(80, 40),
    head='baseline = "AE"',
    training="batch_size = 16",
    tables="""[model]
latent = 4
features = 8
[[regularizers]]
name = "ae"
label = "AE"
[[regularizers]]
name = "vae-kl"
label = "VAE-KL"
[[figures]]
kind = "curves"
""",
    trained_epochs=2,
    epochs=5,
    seeds=3,
    many_seeds=10,
    rounds=1,
)


def suite_file(directory: Path, size: Size, name: str, *, seeds: int, epochs: int, warmup: int) -> Path:
    """Write a suite of made-up data sets, whose files are in ``directory``."""
    lines = ["[suite]", f'name = "{name}"', f"seeds = {seeds}", size.head]
    lines += ["[training]", f"epochs = {epochs}", f"warmup = {warmup}", size.training, size.tables]
    for made in size.datasets:
        path = (directory / f"{made.label}.npz").as_posix()
        options = f'{{ path = "{path}", side = {made.side}, channels = {made.channels} }}'
        lines += ["[[datasets]]", 'name = "npz"', f'label = "{made.label}"', f"options = {options}"]
        lines += ["model = { widths = [4, 8] }"]
    file = directory / f"{name}.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


def main(
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes; the numbers mean nothing.")] = False,
    out: Annotated[Path | None, typer.Option(help="Directory for the table.", show_default=False)] = None,
) -> None:
    """Time reports, planning and help, with the limits beside them."""
    size = TINY if tiny else FULL
    with tempfile.TemporaryDirectory(prefix="regbench-store-") as place:
        bench = Bench(Path(place), size)
        tables = [bench.reports(), bench.planning(), bench.help()]
    print(write("store", "Reports, planning and the command line", CPU, tables, out))


class Bench:
    """A trained seed, and what is timed with it, below one directory."""

    def __init__(self, directory: Path, size: Size) -> None:
        self.directory, self.size = directory, size
        for made in size.datasets:
            made.write(directory, *size.images)
        started = time.perf_counter()
        suite = suite_file(directory, size, "trained", seeds=1, epochs=size.trained_epochs, warmup=1)
        self.trained = regbench.run(suite, device="cpu", runs_dir=directory / "trained").path
        _say(f"trained one seed in {time.perf_counter() - started:.0f} s")

    def reports(self) -> Table:
        """``regbench report`` as a process, with and without embeddings in the cache."""
        run = self._run("report", self.size.seeds, link=False)
        out = self.directory / "out"
        command = ("report", str(run.path), "--out", str(out), "--quiet")

        def uncached() -> None:
            shutil.rmtree(run.path / "derived" / "tsne", ignore_errors=True)
            _regbench(*command)

        first = alternate({"": uncached}, 1, CPU, warmups=0)[""]
        again = alternate({"": lambda: _regbench(*command)}, self.size.rounds, CPU, warmups=0)[""]
        files = [path for path in out.rglob("*") if path.is_file()]
        note = (
            f"{len(run.methods)} methods, {len(run.datasets)} data sets, {len(run.suite['seeds'])} seeds, histories "
            f"of {self.size.epochs} epochs; {sum(path.suffix == '.png' for path in files)} figures in three formats, "
            f"{sum(path.stat().st_size for path in files) / 1e6:.0f} MB in all."
        )
        cells = len(run.cells)
        rows = [
            _row(f"report of {cells} cells, t-SNE cached", again, REPORT_LIMIT),
            _row(f"report of {cells} cells, the first: t-SNE computed", first, None),
        ]
        return _table("Report (whole process)", rows, note)

    def planning(self) -> Table:
        """``regbench.plan`` and ``regbench plan``, of an empty store and of one with all cells finished."""
        finished = self._run("many", self.size.many_seeds, link=True)
        suite, cells = self.directory / "many.toml", len(finished.cells)
        rows: list[tuple[str, ...]] = []
        for state, runs in (
            ("empty store", self.directory / "empty"),
            ("all finished", finished.path.parent),
        ):
            command = ("plan", str(suite), "--runs-dir", str(runs), "--device", "cpu", "--no-probe")
            contestants: dict[str, Callable[[], object]] = {
                "call": lambda runs=runs: regbench.plan(suite, device="cpu", runs_dir=runs),
                "process": lambda command=command: _regbench(*command),
            }
            times = alternate(contestants, self.size.rounds, CPU, warmups=1)
            rows.append(_row(f"regbench.plan, {cells:,} cells, {state}", times["call"], PLAN_LIMIT))
            rows.append(_row(f"regbench plan --no-probe, whole process, {state}", times["process"], None))
        return _table("Planning", rows, "The process imports torch, which is most of what it adds.")

    def help(self) -> Table:
        times = alternate({"": lambda: _regbench("--help")}, max(3, self.size.rounds), CPU)[""]
        return _table("Command line", [_row("regbench --help, whole process", times, HELP_LIMIT)])

    def _run(self, name: str, seeds: int, *, link: bool) -> Run:
        started = time.perf_counter()
        suite = suite_file(self.directory, self.size, name, seeds=seeds, epochs=self.size.epochs, warmup=2)
        run = finished_run(self.trained, suite, self.directory / name, link=link)
        _say(f"made a run of {len(run.cells)} cells in {time.perf_counter() - started:.0f} s")
        return run


def _regbench(*arguments: str) -> None:
    command = [sys.executable, "-m", "regbench", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr}")


def _row(what: str, times: Timing, limit: float | None) -> tuple[str, ...]:
    if limit is None:
        return (what, f"{times.median:.2f}", "–", "–")
    return (what, f"{times.median:.2f}", f"{limit:g}", "yes" if times.median <= limit else "no")


def _table(title: str, rows: Sequence[tuple[str, ...]], *notes: str) -> Table:
    return Table(title, ("what", "seconds", "at most", "kept"), tuple(rows), notes)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    typer.run(main)
