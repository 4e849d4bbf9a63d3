"""What `regbench plan` predicts, and what then happens: time and memory of each cell, and of whole runs.

python -m benchmarks.prediction [--tiny] [--device cpu] [--case quick|wide|small] [--suite FILE [--only PATTERN]]

The case `small` wants MNIST in the data directory (`REGBENCH_DATA`); where it is missing, the others are run.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.common import Table, write
from regbench.data.location import data_root
from regbench.plugins import registry
from regbench.store.records import Run
from regbench.training.precision import resolve_device

LIMIT = 0.25
SUITES = Path(__file__).parent.parent / "suites"
TINY = """
[suite]
name = "tiny"
seeds = 1
[model]
latent = 4
features = 8
widths = [4]
[training]
epochs = 2
warmup = 1
batch_size = 32
[[datasets]]
name = "digits"
train_images = 128
test_images = 64
[[regularizers]]
name = "ae"
"""
SMALL = f"""
[suite]
name = "paper-small-mnist"
extends = "{SUITES / "paper-small.toml"}"
seeds = 1
[[datasets]]
name = "mnist"
label = "MNIST"
train_images = 3000
test_images = 2000
training = {{ epochs = 12 }}
model = {{ widths = [16, 32] }}
"""
SMALL_CELLS = ["MNIST AE seed 0", "MNIST ProtoVAE K=10 seed 0"]
WIDE = """
[suite]
name = "wide-digits"
seeds = 1
[model]
widths = [128, 256]
[training]
epochs = 6
warmup = 2
batch_size = 128
curve_points = 3
[[datasets]]
name = "digits"
[[regularizers]]
name = "ae"
[[regularizers]]
name = "proto-vae"
options = { prototypes = 10 }
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One suite: what was predicted for it, and what happened."""

    name: str
    plan: dict[str, Any]
    run: Run
    wall: float

    def cells(self) -> list[tuple[str, float, float, float, float]]:
        """Title, seconds and bytes predicted, seconds and bytes that it took."""
        found = []
        for planned, cell in zip(self.plan["cells"], self.run.cells, strict=True):
            if cell.status != "done" or planned["estimate"] is None:
                continue
            cost, expected = cell.result["cost"], planned["estimate"]
            title = f"{cell.dataset} {cell.method} seed {cell.seed}"
            found.append(
                (
                    title,
                    expected["seconds"],
                    expected["memory_bytes"],
                    cost["wall_seconds"],
                    cost["peak_memory_bytes"],
                )
            )
        return found

    def table(self) -> Table:
        rows, worst = [], 0.0
        for title, seconds, memory, took, needed in self.cells():
            worst = max(worst, abs(seconds / took - 1), abs(memory / needed - 1))
            rows.append(
                (
                    title,
                    f"{seconds:.2f} s",
                    f"{took:.2f} s",
                    f"{seconds / took:.2f}",
                    f"{memory / 1e6:.0f} MB",
                    f"{needed / 1e6:.0f} MB",
                    f"{memory / needed:.2f}",
                )
            )
        whole = self.plan["estimate"]
        total = whole["seconds"]
        worst = max(worst, abs(total / self.wall - 1))
        rows.append(
            ("the whole run", f"{total:.2f} s", f"{self.wall:.2f} s", f"{total / self.wall:.2f}", "", "", "")
        )
        columns = ("cell", "predicted", "took", "ratio", "memory predicted", "memory used", "ratio")
        verdict = "within" if worst <= LIMIT else "NOT within"
        notes = (
            f"Largest difference {worst:.0%}: {verdict} {LIMIT:.0%}. The prediction took "
            f"{whole['probe_seconds']:.1f} s; the data sets are "
            f"{sum(whole['datasets'].values()):.1f} s of it. The whole run is the process from start to end.",
        )
        return Table(self.name, columns, tuple(rows), notes)


def compare(name: str, suite: Path, only: list[str], device: str, folder: Path) -> Comparison:
    """Plan a suite, run it, and read both; each in a process of its own, as a user would."""
    options = ["--device", device, "--json", "--runs-dir", str(folder / "runs")]
    options += [word for pattern in only for word in ("--only", pattern)]
    plan = json.loads(_regbench("plan", str(suite), *options))
    started = time.perf_counter()
    _regbench("run", str(suite), *options)
    return Comparison(name, plan, Run.open(Path(plan["run"])), time.perf_counter() - started)


def _regbench(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "regbench", *words], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"regbench {' '.join(words)} ended with {done.returncode}")
    return done.stdout


def _mnist() -> bool:
    mnist = registry([]).dataset("mnist").cls()
    return not mnist.check(data_root(None))


class Case(StrEnum):
    """What is planned and run, each for a page of its own."""

    quick = "quick"
    wide = "wide"
    small = "small"


@dataclass(frozen=True, slots=True)
class _Suite:
    title: str
    file: Path
    only: list[str]


def _suites(cases: list[Case], folder: Path) -> dict[str, _Suite]:
    """By the name of the page; ``folder`` takes the suites that are written for it."""

    def written(name: str, text: str) -> Path:
        path = folder / f"{name}.toml"
        path.write_text(text)
        return path

    every = {
        Case.quick: _Suite("quick.toml, one seed", SUITES / "quick.toml", ["* seed 0"]),
        Case.wide: _Suite("A full-width net on few images", written("wide", WIDE), []),
        Case.small: _Suite("paper-small.toml on MNIST", written("small", SMALL), SMALL_CELLS),
    }
    return {case.value: every[case] for case in cases}


def _tiny(folder: Path) -> dict[str, _Suite]:
    path = folder / "tiny.toml"
    path.write_text(TINY)
    return {"tiny": _Suite("A tiny cell", path, [])}


def main(
    tiny: Annotated[bool, typer.Option(help="One small cell, in seconds.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    case: Annotated[list[Case] | None, typer.Option(help="Only these; may be repeated.")] = None,
    suite: Annotated[Path | None, typer.Option(help="This suite in place of the usual ones.")] = None,
    only: Annotated[list[str] | None, typer.Option(help="Its cells that fit.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the pages go.")] = None,
) -> None:
    """Compare predictions with what happens."""
    where = resolve_device(device)
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        if suite is not None:
            suites = {suite.stem: _Suite(suite.name, suite, only or [])}
        elif tiny:
            suites = _tiny(folder)
        else:
            suites = _suites(case or [each for each in Case if each is not Case.small or _mnist()], folder)
        for name, each in suites.items():
            table = compare(each.title, each.file, each.only, device, folder).table()
            typer.echo(table.markdown())
            page = write(
                f"prediction-{name}-{where.type}", "Predicted and measured cost", where, [table], out
            )
            typer.echo(page)
    if not (tiny or suite or case or _mnist()):
        typer.echo("paper-small.toml on MNIST is left out: regbench data fetch mnist")


if __name__ == "__main__":
    typer.run(main)
