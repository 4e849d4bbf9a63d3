"""What evaluating costs: the metrics, the evaluation at the end of a cell by its parts, and the learning curves.

python -m benchmarks.evaluation [--tiny] [--device cpu] [--part metrics|parts|curves] [--out DIR]

Images are noise, and the nets untrained: neither changes what is computed.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import Annotated, Any
from unittest.mock import patch

import torch
import typer

import regbench.assess as assessed
from benchmarks.common import Table, alternate, write
from regbench.api import Regularizer
from regbench.assess import CellData, assess
from regbench.data.split import SplitSizes
from regbench.estimate import Cost, estimate
from regbench.estimate.noise import noise_classifier, noise_split
from regbench.evaluation.evaluate import batch_of, batches_of, evaluate_reconstruction
from regbench.evaluation.metrics import MSE, PSNR, SSIM
from regbench.evaluation.mode import evaluating
from regbench.model import Model, build_model
from regbench.modes import synchronize, threads
from regbench.nets import NetShape, forward_flops
from regbench.regularizers.ae import AE
from regbench.regularizers.proto_vae import ProtoVAE
from regbench.regularizers.vae_kl import VAEKL
from regbench.training.precision import resolve_device
from regbench.workflow import plan

METRICS = [MSE(), PSNR(), SSIM()]
LIMITS = {"cpu": 15.0, "cuda": 2.0}
"""Seconds for 10,000 images of 28 x 28."""
SHARE = 0.05
"""What learning curves may take of the training."""
SUITES = Path(__file__).parent.parent / "suites"
CELLS = {
    "quick.toml": ["digits AE seed 0", "digits VAE-KL seed 0", "digits ProtoVAE K=10 seed 0"],
    "paper.toml": ["MNIST AE seed 0", "MNIST ProtoVAE K=10 seed 0", "CIFAR-10 AE seed 0"],
}
PARTS = {
    "encode_features": "encoder",
    "evaluate_reconstruction": "decoder, metrics, audit",
    "encode_images": "codes",
    "draw_samples": "samples",
    "_regularity": "regularity",
    "_probe": "probe",
    "_sample_quality": "sample quality",
    "clusters": "clusters",
    "sample_agreement": "synthesis",
    "synthesis_pictures": "synthesis",
    "interpolations": "pictures",
    "_pictures": "pictures",
}
"""The functions that the evaluation calls, by the part that they are."""


class Part(StrEnum):
    """A page of results."""

    metrics = "metrics"
    parts = "parts"
    curves = "curves"


def net(side: int, *, wide: bool) -> NetShape:
    """The reference comparison's net, or the narrow one of the small suites."""
    widths = {28: (128, 256), 32: (64, 128, 256)}[side] if wide else {28: (16, 32), 32: (16, 32, 64)}[side]
    return NetShape(channels=1 if side == 28 else 3, side=side, latent=64, features=256, widths=widths)


def noise(shape: NetShape, images: int, device: torch.device) -> CellData:
    """So many images for the training, for its curve, and for the test."""
    split = noise_split(SplitSizes(images, 32, images), shape.channels, shape.side)
    data = CellData.on(device, split, images)
    return data.judged_by(noise_classifier(shape.channels, shape.side, device))


def metrics_table(shapes: dict[str, NetShape], images: int, device: torch.device) -> Table:
    """One forward pass beside the metrics, which contain one."""
    rows = []
    for name, shape in shapes.items():
        model = build_model(shape, AE, {}, seed=0, device=device)
        data = noise(shape, images, device)
        with threads(device, 3.0 * forward_flops(shape) * 256):
            metrics(model, noise(shape, 256, device))  # what happens only once
            times = alternate(
                {"pass": partial(forward, model, data), "metrics": partial(metrics, model, data)},
                rounds=5 if device.type == "cuda" else 1,
                device=device,
                warmups=int(device.type == "cuda"),
            )
        once, whole = times["pass"].median, times["metrics"].median
        rate = forward_flops(shape) * images / once / 1e9
        limit = LIMITS.get(device.type, LIMITS["cpu"])
        fine = f"{'yes' if whole <= limit else 'NO'} ({limit:.0f} s)"
        rows.append((name, f"{once:.2f} s", f"{rate:,.0f}", f"{whole:.2f} s", f"{whole - once:.2f} s", fine))
    columns = (
        "net",
        "one forward pass",
        "GFLOP/s of it",
        "MSE, PSNR, SSIM, audit",
        "beyond the pass",
        "within",
    )
    note = (
        "The forward pass is float32, and what bounds it is the machine's matrix product; the rest is the metrics', "
        "32 images by scikit-image among it."
    )
    return Table(f"Metrics of {images:,} images", columns, tuple(rows), (note,))


def forward(model: Model, data: CellData) -> None:
    with evaluating(model, seed=0, purpose=("benchmark",), sampling=False):
        for x_BCHW in batches_of(data.test, batch_of(model)):
            model.decode(model.encode(x_BCHW))


def metrics(model: Model, data: CellData) -> None:
    evaluate_reconstruction(model, data.test, METRICS, sampling=False, seed=0)


@contextmanager
def timed_parts(device: torch.device) -> Iterator[dict[str, float]]:
    """Seconds of each part of the evaluations inside the block."""
    seconds: dict[str, float] = defaultdict(float)

    def timed(part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            synchronize(device)
            started = time.perf_counter()
            result = function(*args, **options)
            synchronize(device)
            seconds[part] += time.perf_counter() - started
            return result

        return call

    with ExitStack() as stack:
        for name, part in PARTS.items():
            stack.enter_context(patch.object(assessed, name, timed(part, getattr(assessed, name))))
        yield seconds


def parts_table(
    cases: dict[str, tuple[NetShape, type[Regularizer], dict[str, Any]]], images: int, device: torch.device
) -> Table:
    """The evaluation at the end of a cell."""
    names = tuple(dict.fromkeys(PARTS.values()))
    rows = []
    for name, (shape, method, options) in cases.items():
        model = build_model(shape, method, options, seed=0, device=device)
        data = noise(shape, images, device)
        with threads(device, 3.0 * forward_flops(shape) * 256):
            assess(model, data.glimpse(), METRICS, 0)  # what happens only once
            with timed_parts(device) as seconds:
                started = time.perf_counter()
                assess(model, data, METRICS, 0)
                whole = time.perf_counter() - started
        rows.append((name, *(f"{seconds[part]:.2f}" for part in names), f"{whole:.2f}"))
    note = (
        "Where a method has no prior, its samples come from a Gaussian fitted to the codes of all training images, "
        "which are encoded for it. Codes that the regularity and the probe ask for are in two columns; for the probe "
        "5,000 training images are encoded."
    )
    title = f"The evaluation of a cell, {images:,} test and as many training images, in seconds"
    return Table(title, ("method and net", *names, "in all"), tuple(rows), (note,))


def curves_table(suites: dict[str, list[str]], device: torch.device) -> Table:
    """What the learning curves take of the training, by the rates that `regbench plan` measures here."""
    rows = []
    for suite, only in suites.items():
        ready = plan(SUITES / suite, device=str(device), only=only, runs_dir=Path("nowhere"))
        found = estimate(
            ready.cells,
            ready.registry,
            device,
            ready.data_root,
            metrics=ready.suite.metrics,
            run_dir=ready.run_dir,
        )
        named = [cell.spec for cell in ready.cells if cell.spec.id in found.cells]
        rows += [_share(f"{suite}: {spec.title}", spec.curve_points, found.cells[spec.id]) for spec in named]
    columns = (
        "cell",
        "points asked for",
        "training",
        "curves",
        "share",
        f"at most {SHARE:.0%}",
        "whole cell",
    )
    return Table("Evaluation at chosen epochs", columns, tuple(rows))


def _share(name: str, points: int, cost: Cost) -> tuple[str, ...]:
    share = cost.curves / cost.training
    fine = "yes" if share <= SHARE else "NO"
    seconds = (cost.training, cost.curves)
    return (
        name,
        str(points),
        *(f"{value:,.1f} s" for value in seconds),
        f"{share:.1%}",
        fine,
        f"{cost.seconds:,.1f} s",
    )


def main(
    tiny: Annotated[bool, typer.Option(help="Few images and narrow nets, in seconds.")] = False,
    device: Annotated[str, typer.Option(help="cpu, cuda or auto.")] = "cpu",
    part: Annotated[list[Part] | None, typer.Option(help="Only these pages; may be repeated.")] = None,
    out: Annotated[Path | None, typer.Option(help="Where the pages go.")] = None,
) -> None:
    """Time the evaluation."""
    where = resolve_device(device)
    images = 128 if tiny else 10_000
    shapes = {
        f"{side} x {side}{' x 3' if side == 32 else ''}, {'full width' if wide else 'narrow'}": net(
            side, wide=wide
        )
        for side in (28, 32)
        for wide in ((False,) if tiny else (False, True))
    }
    proto = {"prototypes": 10}
    cases: dict[str, tuple[NetShape, type[Regularizer], dict[str, Any]]] = {
        "AE, narrow": (net(28, wide=False), AE, {}),
        "VAE-KL, narrow": (net(28, wide=False), VAEKL, {}),
        "ProtoVAE K=10, narrow": (net(28, wide=False), ProtoVAE, proto),
    }
    if not tiny:
        cases["VAE-KL, full width"] = (net(28, wide=True), VAEKL, {})
    suites = {"quick.toml": CELLS["quick.toml"][:1]} if tiny else CELLS
    pages: dict[Part, tuple[str, Callable[[], Table]]] = {
        Part.metrics: ("The cost of the metrics", lambda: metrics_table(shapes, images, where)),
        Part.parts: ("The cost of an evaluation", lambda: parts_table(cases, images, where)),
        Part.curves: ("The cost of learning curves", lambda: curves_table(suites, where)),
    }
    for name in part or list(pages):
        title, measure = pages[name]
        table = measure()
        typer.echo(table.markdown())
        typer.echo(write(f"evaluation-{name}-{where.type}", title, where, [table], out))


if __name__ == "__main__":
    typer.run(main)
