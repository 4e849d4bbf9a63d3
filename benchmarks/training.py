"""Training speed: regbench beside pythae, a hand-written loop and the machine's best matrix product.

    python -m benchmarks.training --device cpu
    python -m benchmarks.training --device cuda

Every contestant has a process of its own and trains an epoch per turn.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

import torch
import typer

from benchmarks.common import Table, Timing, bf16_hardware, ratio, timed, write
from benchmarks.contest import Entry, contest
from benchmarks.contestants import (
    SHAPES,
    TINY_SHAPES,
    Arena,
    bare_loop,
    pythae_epochs,
    regbench_epochs,
)
from regbench.modes import full_float32
from regbench.nets import forward_flops
from regbench.training.precision import Precision

PEERS = {"ae": "AE", "vae-kl": "VAE-KL", "infovae-mmd": "InfoVAE-MMD"}
OPTIONS = {"infovae-mmd": {"kernel": "imq"}}
"""pythae's own default kernel."""
PYTHAE = "pip install pythae==0.1.2; pip uninstall dataclasses, which hides Python's own from torch.compile"
IMAGES = {"cpu": 512, "cuda": 25_600}
ROUNDS = {"cpu": 7, "cuda": 5}


def matmul_peak(device: torch.device, precision: Precision, sizes: tuple[int, ...]) -> float:
    """FLOP/s of the fastest square matrix product of these sizes."""
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    best = 0.0
    for n in sizes:
        a, b = (torch.randn(n, n, device=device, dtype=dtype) for _ in range(2))
        repeats = max(1, int(2e10 / (2 * n**3)) if device.type == "cpu" else 20)

        def work(a: torch.Tensor = a, b: torch.Tensor = b, repeats: int = repeats) -> None:
            for _ in range(repeats):
                a @ b

        with full_float32():
            seconds = [timed(work, device) for _ in range(4)][1:]
        best = max(best, repeats * 2 * n**3 / min(seconds))
    return best


def precisions(device: torch.device) -> tuple[Precision, ...]:
    """Those that the device has in hardware."""
    return ("fp32", "bf16") if bf16_hardware(device) else ("fp32",)


def peers(arena: Arena) -> dict[str, Entry]:
    """pythae's models, if it is installed."""
    if find_spec("pythae") is None:
        return {}
    found = {f"pythae {title}": Entry(pythae_epochs, (arena, method)) for method, title in PEERS.items()}
    found["pythae InfoVAE-MMD, efficient kernel"] = Entry(
        pythae_epochs, (arena, "infovae-mmd"), {"efficient_mmd": True}
    )
    if arena.device.type == "cuda":
        for method, title in PEERS.items():
            found[f"pythae {title}, amp"] = Entry(pythae_epochs, (arena, method), {"amp": True})
    else:
        found["pythae AE, memory retained"] = Entry(pythae_epochs, (arena, "ae"), {"retain": True})
    return found


def entries(arena: Arena, *, compile: bool, tiny: bool) -> dict[str, Entry]:
    """Everybody who takes part, by name."""
    found = peers(arena)
    if tiny:
        found = {name: entry for name, entry in found.items() if name == "pythae AE"}
    cuda = arena.device.type == "cuda"
    for precision in precisions(arena.device):
        found[f"bare loop AE, {precision}"] = Entry(bare_loop, (arena, precision))
        for method, title in list(PEERS.items())[: 1 if tiny else None]:
            found[f"regbench {title}, {precision}"] = Entry(
                regbench_epochs, (arena, method, OPTIONS.get(method)), {"precision": precision}
            )
        if cuda and precision == "fp32":
            continue  # eight minutes are short
        for k in (1, 50) if tiny else (1, 10, 50):
            found[f"regbench ProtoVAE K={k}, {precision}"] = Entry(
                regbench_epochs, (arena, "proto-vae", {"prototypes": k}), {"precision": precision}
            )
        if not tiny:
            found |= variants(arena, precision, compile)
    return found


def variants(arena: Arena, precision: Precision, compile: bool) -> dict[str, Entry]:
    """Other ways to launch the same steps."""
    ways: dict[str, dict[str, bool]] = {"deterministic": {"deterministic": True}}
    if compile:
        ways["compiled"] = {"compile": True}
    if arena.device.type == "cuda":
        ways["eager"] = {"eager": True}
    methods = {"AE": ("ae", None), "ProtoVAE K=50": ("proto-vae", {"prototypes": 50})}
    return {
        f"regbench {title}, {precision}, {way}": Entry(
            regbench_epochs, (arena, method, options), {"precision": precision, **settings}
        )
        for way, settings in ways.items()
        for title, (method, options) in methods.items()
    }


def speeds(title: str, arena: Arena, timings: dict[str, Timing], peaks: dict[Precision, float]) -> Table:
    """Images per second of each, against pythae and the matrix product."""
    operations = 3.0 * forward_flops(arena.shape)
    rows = []
    for name, timing in timings.items():
        rate = arena.images / timing.median
        peer = next((f"pythae {m}" for m in PEERS.values() if f" {m}" in name), "pythae VAE-KL")
        precision: Precision = "bf16" if "bf16" in name else "fp32"
        # ProtoVAE's other two steps need the encoder alone: its operations are not simply a multiple.
        plain = "ProtoVAE" not in name
        share = f"{operations * rate / peaks[precision]:.0%}" if plain else ""
        faster = f"{ratio(timing, timings[peer]):.2f} x {peer}" if peer in timings else ""
        rows.append((name, f"{rate:.0f}", faster, share, f"{timing.spread:.1%}"))
    notes = tuple(
        f"Best matrix product in {precision}: {peak / 1e9:.0f} GFLOP/s." for precision, peak in peaks.items()
    )
    columns = ("contestant", "images/s", "faster than its peer", "of the matrix product", "spread")
    return Table(title, columns, tuple(rows), notes)


def goals(timings: dict[str, Timing], precision: Precision, device: str) -> list[tuple[str, str, str]]:
    """What is aimed at, and what came: (goal, aim, measured); a goal whose contestants are not there is left out."""
    low = precision == "bf16"
    if device == "cuda":
        plain, info, three = (">= 10", ">= 10", "") if low else ("", "", "")
    else:
        plain, info, three = (">= 2.3", ">= 6", ">= 1") if low else (">= 1.3", ">= 4", "")
    ours = {title: f"regbench {title}, {precision}" for title in PEERS.values()}
    proto, bare = f"regbench ProtoVAE K=50, {precision}", f"bare loop AE, {precision}"
    wanted = [
        ("AE against pythae", plain, ours["AE"], "pythae AE"),
        ("AE, compiled, against pythae", plain, f"{ours['AE']}, compiled", "pythae AE"),
        ("VAE-KL against pythae", plain, ours["VAE-KL"], "pythae VAE-KL"),
        ("InfoVAE-MMD against pythae", info, ours["InfoVAE-MMD"], "pythae InfoVAE-MMD"),
        (
            "the same, pythae's with an efficient kernel",
            "",
            ours["InfoVAE-MMD"],
            "pythae InfoVAE-MMD, efficient kernel",
        ),
        ("ProtoVAE K=50, three steps, against pythae's VAE", three, proto, "pythae VAE-KL"),
        ("step time of K=50 over K=1", "<= 1.15", f"regbench ProtoVAE K=1, {precision}", proto),
        ("time over the bare loop's", "<= 1.03", bare, ours["AE"]),
        ("time of deterministic over the default", "", ours["AE"], f"{ours['AE']}, deterministic"),
    ]
    return [
        (f"{goal}, {precision}", aim, f"{ratio(timings[of], timings[to]):.3f}")
        for goal, aim, of, to in wanted
        if of in timings and to in timings
    ]


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    shape: Annotated[str, typer.Option(help="cifar, mnist, or both.")] = "both",
    images: Annotated[int, typer.Option(help="Per epoch; 0: 512 on a CPU, 50,000 on a GPU.")] = 0,
    rounds: Annotated[int, typer.Option(help="Turns; 0: 7 on a CPU, 5 on a GPU.")] = 0,
    compile: Annotated[bool, typer.Option(help="Also compiled.")] = True,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/training-<device>.md, or training-<device>-<shape>.md for one shape."""
    where = torch.device(device)
    shapes = TINY_SHAPES if tiny else SHAPES
    sizes = (64,) if tiny else (2048, 4096) if device == "cpu" else (4096, 8192, 16384)
    peaks = {precision: matmul_peak(where, precision, sizes) for precision in precisions(where)}
    batch, turns = (16, 2) if tiny else (256, rounds or ROUNDS[device])
    tables, aims = [], []
    for name in ["cifar"] if tiny else list(SHAPES) if shape == "both" else [shape]:
        arena = Arena.make(shapes[name], 2 * batch if tiny else images or IMAGES[device], batch, where)
        timings = contest(entries(arena, compile=compile, tiny=tiny), turns, where)
        title = f"{name}-shaped net, batch {batch}, {arena.images:,} images per epoch"
        tables.append(speeds(title, arena, timings, peaks))
        for precision in peaks:
            aims += [(f"{goal}, {name}", aim, came) for goal, aim, came in goals(timings, precision, device)]
    tables.insert(0, Table("Goals", ("goal", "aim", "measured"), tuple(aims)))
    if find_spec("pythae") is None:
        tables[0] = replace(tables[0], notes=(f"pythae is not installed: {PYTHAE}",))
    page = f"training-{device}" + ("" if shape == "both" else f"-{shape}")
    typer.echo(write(page, f"Training speed on {device}", where, tables, out))


if __name__ == "__main__":
    typer.run(main)
