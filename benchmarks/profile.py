"""Where the time of an epoch goes, by operation on a CPU and by kernel on a GPU.

python -m benchmarks.profile --device cpu
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from torch.profiler import ProfilerActivity, profile

from benchmarks.common import Table, write
from benchmarks.contestants import SHAPES, TINY_SHAPES, Arena, regbench_epochs
from benchmarks.training import precisions

METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "AE": ("ae", {}),
    "InfoVAE-MMD": ("infovae-mmd", {}),
    "ProtoVAE K=50": ("proto-vae", {"prototypes": 50}),
}
SHOWN = 12


def shares(title: str, arena: Arena, compile: bool) -> Table:
    """The operations that take longest, with their shares of the time that the device was busy."""
    method, options = METHODS[title]
    cuda = arena.device.type == "cuda"
    precision = precisions(arena.device)[-1]
    epoch = regbench_epochs(arena, method, options, precision=precision, compile=compile)
    for _ in range(2):
        epoch()
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if cuda else [])]
    with profile(activities=activities) as found:
        epoch()
    events = list(found.key_averages())
    if cuda:  # operations carry the time of their kernels, which are listed, too
        events = [e for e in events if e.device_type.name == "CUDA" and not e.is_user_annotation]
    spent = {e.key: e.self_device_time_total if cuda else e.self_cpu_time_total for e in events}
    total = sum(spent.values())
    longest = sorted(spent, key=lambda key: spent[key], reverse=True)[:SHOWN]
    calls = {e.key: e.count for e in events}
    rows = tuple(
        (key[:80].replace("|", " "), str(calls[key]), f"{spent[key] / 1e3:.1f}", f"{spent[key] / total:.1%}")
        for key in longest
    )
    what = "kernel" if cuda else "operation"
    return Table(
        f"{title}, {precision}, an epoch of {arena.images:,} images", (what, "calls", "ms", "share"), rows
    )


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    images: Annotated[int, typer.Option(help="Per epoch; 0: 512 on a CPU, 5,120 on a GPU.")] = 0,
    compile: Annotated[bool, typer.Option(help="Compiled.")] = False,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/profile-<device>.md."""
    where = torch.device(device)
    count = 32 if tiny else images or (512 if device == "cpu" else 5120)
    arena = Arena.make((TINY_SHAPES if tiny else SHAPES)["cifar"], count, 16 if tiny else 256, where)
    tables = [shares(title, arena, compile) for title in METHODS]
    typer.echo(write(f"profile-{device}", f"Where the time goes on {device}", where, tables, out))


if __name__ == "__main__":
    typer.run(main)
