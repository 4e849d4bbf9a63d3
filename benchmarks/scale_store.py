"""Runs of any number of cells, at little cost: four cells are trained, all others are copies of them."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import regbench
from benchmarks.synthetic_run import Made, finished_run
from regbench.store.records import Run

MADE = Made("made", 1, 12, 3)
IMAGES = (200, 40)
MOST_IMAGES = 160
"""For training, of the first data set; some of those in the file are held out."""
SWEPT = {"vae-kl": "weight", "infovae-mmd": "weight", "proto-vae": "mmd_lr"}
"""The option of each regularizer that the suite sweeps, one family each."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a suite's number of cells is made of."""

    settings: int
    """Settings of each of the three families; beside them stands the autoencoder."""
    datasets: int
    seeds: int

    @property
    def methods(self) -> int:
        return 1 + len(SWEPT) * self.settings

    @property
    def cells(self) -> int:
        return self.methods * self.datasets * self.seeds

    @property
    def title(self) -> str:
        return (
            f"{self.methods} methods x {self.datasets} data sets x {self.seeds} seeds = {self.cells:,} cells"
        )


def shape_of(cells: int) -> Shape:
    """100 methods on 20 data sets, with as many seeds as make so many cells; fewer of all for fewer than 2,000."""
    if cells >= 2000:
        return Shape(33, 20, round(cells / 2000))
    return Shape(1, 2, max(1, round(cells / 8)))


def suite_file(directory: Path, name: str, shape: Shape) -> Path:
    """Write a suite of this shape. Its data sets are parts of one file, of different sizes."""
    data = (directory / f"{MADE.label}.npz").as_posix()
    options = f'{{ path = "{data}", side = {MADE.side}, channels = {MADE.channels} }}'
    lines = ["[suite]", f'name = "{name}"', f"seeds = {shape.seeds}", 'baseline = "AE"']
    lines += ["[model]", "latent = 4", "features = 8", "widths = [4, 8]"]
    lines += ["[training]", "epochs = 2", "warmup = 1", "batch_size = 16"]
    for number in range(shape.datasets):
        lines += ["[[datasets]]", 'name = "npz"', f'label = "set {number}"', f"options = {options}"]
        lines += [f"train_images = {MOST_IMAGES - number}"]
    lines += ["[[regularizers]]", 'name = "ae"', 'label = "AE"']
    for regularizer, option in SWEPT.items():
        values = [round(0.001 * 1.2**step, 6) for step in range(shape.settings)]
        lines += ["[[regularizers]]", f'name = "{regularizer}"', f'family = "{regularizer}"']
        lines += [f"sweep = {{ {option} = {values} }}"]
    first = f"{next(iter(SWEPT))} {next(iter(SWEPT.values()))}=0.001"
    lines += ["[[claims]]", 'kind = "equivalence"', 'statement = "A little weight costs nothing."']
    lines += [f'methods = ["{first}"]', 'references = ["AE"]', "margin = { relative = 0.05 }"]
    file = directory / f"{name}.toml"
    file.write_text("\n".join(lines) + "\n")
    return file


class Maker:
    """Makes runs below one directory; what they are copied from is trained once."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        directory.mkdir(parents=True, exist_ok=True)
        MADE.write(directory, *IMAGES)
        suite = suite_file(directory, "trained", Shape(1, 1, 1))
        self.trained = regbench.run(suite, device="cpu", runs_dir=directory / "trained").path

    def suite(self, name: str, shape: Shape) -> Path:
        return suite_file(self.directory, name, shape)

    def run(self, name: str, shape: Shape) -> tuple[Path, Path]:
        """The suite's file, and the directory with the finished run of it; one that is there already is taken."""
        suite, runs = self.suite(name, shape), self.directory / "runs"
        if not (runs / name / "suite.lock.json").is_file():
            run = finished_run(self.trained, suite, runs, link=True, by_regularizer=True)
            _of_every_set(run)
        return suite, runs

    @property
    def templates(self) -> list[Path]:
        """The results that were trained."""
        return [cell.result_dir for cell in Run.open(self.trained).cells]


def _of_every_set(run: Run) -> None:
    """What is derived from the one trained data set, for each of the others."""
    for part in ("anchors", "classifier"):
        folder = run.path / "derived" / part
        for file in list(folder.glob("set 0.*")):
            for label in run.datasets[1:]:
                shutil.copyfile(file, folder / f"{label}{file.suffix}")
