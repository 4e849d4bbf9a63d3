"""No number is bought with quality: faster ways to train against plain float32, by paired seeds and equivalence tests.

    python -m benchmarks.equivalence --device cpu

Runs the methods of suites/quick.toml through ``regbench run``, once plainly and once per faster way, and tests
whether the metrics of each method match: two one-sided paired t-tests, with a margin fixed beforehand.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pandas as pd
import torch
import typer

import regbench
from benchmarks.common import Table, write
from regbench.statistics.equivalence import tost_needed_seeds, tost_paired

QUICK = Path(__file__).parents[1] / "suites" / "quick.toml"
MARGINS = {"mse": (0.05, "of the mean"), "ssim": (0.01, "absolute")}
"""The margin of the mean squared error is that of the paper's claims."""
SUITE = """
[suite]
name = "equivalence"
extends = "{base}"
seeds = {seeds}

[training]
precision = "{precision}"
compile = "{compile}"
{more}
"""
TINY = "epochs = 2\nwarmup = 1"


@dataclass(frozen=True)
class Way:
    """One way to train."""

    precision: str = "fp32"
    compile: str = "off"
    asked: tuple[str, ...] = ()
    """Further keyword arguments of :func:`regbench.run` that are true."""


PLAIN = Way(asked=("eager",))


def ways(device: torch.device) -> dict[str, Way]:
    """The faster ways of a kind of device."""
    found = {"compiled": Way(compile="on"), "bf16": Way("bf16")}
    if device.type == "cuda":
        graphs = {"CUDA graphs": Way(), "deterministic": Way(asked=("deterministic",))}
        return {**graphs, **found, "bf16, graphs, compiled (the default)": Way("bf16", "on")}
    return found


def results(way: Way, seeds: int, device: str, only: list[str], more: str) -> pd.DataFrame:
    """The results of all cells trained that way."""
    with tempfile.TemporaryDirectory() as place:
        suite = Path(place) / "equivalence.toml"
        settings = {"precision": way.precision, "compile": way.compile, "more": more}
        suite.write_text(SUITE.format(base=QUICK.as_posix(), seeds=seeds, **settings))
        asked: Mapping[str, Any] = dict.fromkeys(way.asked, True)
        run = regbench.run(suite, device=device, runs_dir=Path(place), only=only, **asked)
        frame = regbench.load_results(run.path)
    return frame[frame["status"] == "done"]


def compared(plain: pd.DataFrame, other: pd.DataFrame, way: str) -> list[tuple[str, ...]]:
    """One row per method and metric: difference, interval, margin, verdict, seeds that would do."""
    rows = []
    for method in plain["method"].unique():
        for metric, (margin, unit) in MARGINS.items():
            a, b = (f[f["method"] == method].sort_values("seed")[metric].to_numpy() for f in (other, plain))
            absolute = margin * float(np.mean(b)) if unit == "of the mean" else margin
            found = tost_paired(a, b, absolute)
            inside = "equivalent" if found.equivalent else "not shown to be"
            interval = "" if found.low is None else f"{found.low:+.5f} to {found.high:+.5f}"
            needed = tost_needed_seeds(float(np.std(a - b, ddof=1)), absolute) or "over 10,000"
            rows.append(
                (
                    way,
                    method,
                    metric,
                    f"{np.mean(b):.5f}",
                    f"{found.mean:+.5f}",
                    interval,
                    f"{absolute:.5f}",
                    inside,
                    str(needed),
                )
            )
    return rows


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    seeds: Annotated[int, typer.Option(help="Paired seeds.")] = 6,
    only: Annotated[list[str] | None, typer.Option(help="Only these methods; may be repeated.")] = None,
    way: Annotated[str, typer.Option(help="Only this way, on a page of its own.")] = "",
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/equivalence-<device>.md, or equivalence-<device>-<way>.md."""
    where = torch.device(device)
    chosen = ["AE"] if tiny else only or ["AE", "VAE-KL", "InfoVAE-MMD", "ProtoVAE K=10"]
    more, count = (TINY, 2) if tiny else ("", seeds)
    plain = results(PLAIN, count, device, chosen, more)
    rows = []
    found = ways(where)
    if way and way not in found:
        raise typer.BadParameter(f"--way {way}: one of {', '.join(found)}")
    for name in [way] if way else found:
        rows += compared(plain, results(found[name], count, device, chosen, more), name)
    columns = (
        "way",
        "method",
        "metric",
        "fp32, eager",
        "difference",
        "90% interval",
        "margin",
        "verdict",
        "seeds",
    )
    note = (
        f"{count} paired seeds, suites/quick.toml; two one-sided paired t-tests at 5%. Margins, fixed beforehand: "
        + "; ".join(f"{metric} {margin:g} {unit}" for metric, (margin, unit) in MARGINS.items())
        + ". Seeds: how many would show it in four of five runs, if there is no difference, with the spread found here."
    )
    table = Table("Does it match?", columns, tuple(rows), (note,))
    page = f"equivalence-{device}" + (f"-{way}" if way else "")
    typer.echo(write(page, f"Equivalence on {device}", where, [table], out))


if __name__ == "__main__":
    typer.run(main)
