"""A whole training at full size: how long the reference comparison's CIFAR cells take.

    python -m benchmarks.cell --device cuda --epochs 600

Images are noise: how long a step takes does not depend on what is on them. On a GPU every epoch runs with
``torch.cuda.set_sync_debug_mode("error")``: that it ends shows that nothing in it waited for the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from benchmarks.common import Table, write
from benchmarks.contestants import SHAPES, TINY_SHAPES, Arena, regbench_trainer
from benchmarks.training import precisions
from regbench.modes import no_waiting
from regbench.nets import forward_flops
from regbench.training.trainer import Trainer

EPOCHS = 600
"""Of the reference comparison on CIFAR, of which the first ten are the warm-up."""
WARMUP = 10
METHODS: dict[str, tuple[str, dict[str, Any], str]] = {
    "AE": ("ae", {}, "55 s"),
    "ProtoVAE K=10": ("proto-vae", {"prototypes": 10}, "90 s"),
    "ProtoVAE K=50": ("proto-vae", {"prototypes": 50}, "90 s"),
}


def watched(trainer: Trainer) -> Trainer:
    """The same trainer; an epoch that waits for the device raises."""
    run: Callable[..., None] = trainer.loop.run

    def never_waiting(*args: Any, **settings: Any) -> None:
        with no_waiting(trainer.device):
            run(*args, **settings)

    trainer.loop.run = never_waiting  # type: ignore[method-assign]
    return trainer


def row(title: str, arena: Arena, epochs: int, warmup: int, compile: bool) -> tuple[str, ...]:
    """One method's whole training."""
    method, options, aim = METHODS[title]
    precision = precisions(arena.device)[-1]
    trainer = watched(regbench_trainer(arena, method, options, precision=precision, compile=compile))
    trainer.settings = replace(trainer.settings, epochs=epochs, warmup=warmup)
    rows = [trainer.run_epoch(epoch) for epoch in range(1, epochs + 1)]
    setup = sum(r["setup_seconds"] for r in rows)
    phases = {
        phase: [r["seconds"] for r in rows if r["phase"] == phase] for phase in ("warmup", "regularized")
    }
    mean = {phase: sum(seconds) / len(seconds) for phase, seconds in phases.items()}
    whole = setup + WARMUP * mean["warmup"] + (EPOCHS - WARMUP) * mean["regularized"]
    rate = 3.0 * forward_flops(arena.shape) * arena.images / mean["warmup"]
    return (
        f"{title}, {precision}{', compiled' if compile else ''}",
        f"{sum(phases['warmup']) + sum(phases['regularized']):.1f} s",
        f"{setup:.1f} s",
        f"{whole:.1f} s",
        aim,
        f"{arena.images / mean['regularized']:.0f}",
        f"{rate / 1e12:.2f}",
    )


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cuda",
    epochs: Annotated[int, typer.Option(help="How many of the 600 to train.")] = EPOCHS,
    images: Annotated[int, typer.Option(help="Training images.")] = 50_000,
    compile: Annotated[bool, typer.Option(help="Compiled.")] = True,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/cell-<device>.md."""
    where = torch.device(device)
    arena = Arena.make(
        (TINY_SHAPES if tiny else SHAPES)["cifar"], 64 if tiny else images, 16 if tiny else 256, where
    )
    epochs = 4 if tiny else epochs
    warmup = max(epochs * WARMUP // EPOCHS, 1)
    rows = [row(title, arena, epochs, warmup, compile and not tiny) for title in METHODS]
    columns = (
        "cell", f"{epochs} epochs", "setup once", f"scaled to {EPOCHS}", "aim on a GPU", "images/s", "warm-up TFLOP/s"
    )  # fmt: skip
    notes = (
        f"{arena.images:,} images per epoch, batch {arena.batch_size}; setup is capture and compilation.",
    )
    typer.echo(
        write(
            f"cell-{device}",
            f"Whole trainings on {device}",
            where,
            [Table("CIFAR", columns, tuple(rows), notes)],
            out,
        )
    )


if __name__ == "__main__":
    typer.run(main)
