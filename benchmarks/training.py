"""Training speed: regbench beside pythae, a hand-written loop and the machine's best matrix product.

    python -m benchmarks.training --device cpu
    python -m benchmarks.training --device cuda
    python -m benchmarks.training --shape cifar --only infovae-mmd

Every contestant has a process of its own and trains an epoch per turn.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, Literal

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

Group = Literal["ae", "vae-kl", "infovae-mmd"]
PEERS = {"ae": "AE", "vae-kl": "VAE-KL", "infovae-mmd": "InfoVAE-MMD"}
NAMES = {"compile": "compiled"}
PYTHAE = "pip install pythae==0.1.2; pip uninstall dataclasses, which hides Python's own from torch.compile"
IMAGES = {"cpu": 512, "cuda": 12_800}
ROUNDS = {"cpu": 5, "cuda": 5}


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


def peers(arena: Arena, method: str) -> dict[str, Entry]:
    """pythae's ways to train a method, if it is installed."""
    title = PEERS[method]
    if find_spec("pythae") is None:
        return {}
    found = {f"pythae {title}": Entry(pythae_epochs, (arena, method))}
    if arena.device.type == "cuda" and method == "ae":  # torch forbids the others' loss under autocast
        found[f"pythae {title}, amp"] = Entry(pythae_epochs, (arena, method), {"amp": True})
    if method == "infovae-mmd":
        efficient = Entry(pythae_epochs, (arena, method), {"efficient_mmd": True})
        found[f"pythae {title}, efficient kernel"] = efficient
    if method == "ae" and arena.device.type == "cpu":
        found[f"pythae {title}, memory retained"] = Entry(pythae_epochs, (arena, method), {"retain": True})
    return found


def ours(
    arena: Arena, method: str, title: str, options: Mapping[str, Any] | None, ways: Sequence[str] = ()
) -> dict[str, Entry]:
    """regbench's ways to train a method, at each precision: the default, then ``ways``."""
    found = {}
    for precision in precisions(arena.device):
        for way in ("", *ways):
            settings: dict[str, Any] = {"precision": precision, **({way: True} if way else {})}
            name = f"regbench {title}, {precision}" + (f", {NAMES.get(way, way)}" if way else "")
            found[name] = Entry(regbench_epochs, (arena, method, options), settings)
    return found


def groups(arena: Arena, *, compile: bool, tiny: bool) -> dict[str, dict[str, Entry]]:
    """Everybody who takes part, by name, in groups that take turns: who is compared is in one group.

    A group is called as pythae's method in it.
    """
    ways = ["compile"] if compile and not tiny else []
    launches = [] if tiny else ["deterministic", *(["eager"] if arena.device.type == "cuda" else [])]
    plain = {**peers(arena, "ae"), **ours(arena, "ae", "AE", None, [*ways, *launches])}
    for precision in precisions(arena.device):
        plain[f"bare loop AE, {precision}"] = Entry(bare_loop, (arena, precision))
    proto: dict[str, Entry] = {}
    for k in (1, 50) if tiny else (1, 10, 50):
        more = [*ways, *launches[1:]] if k == 50 else []
        proto |= ours(arena, "proto-vae", f"ProtoVAE K={k}", {"prototypes": k}, more)
    if tiny:
        return {"ae": plain, "vae-kl": proto}
    variational = {**peers(arena, "vae-kl"), **ours(arena, "vae-kl", "VAE-KL", None), **proto}
    # pythae's own default kernel.
    info = ours(arena, "infovae-mmd", "InfoVAE-MMD", {"kernel": "imq"}, ways)
    return {"ae": plain, "vae-kl": variational, "infovae-mmd": {**peers(arena, "infovae-mmd"), **info}}


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
            "InfoVAE-MMD, compiled, against pythae",
            info,
            f"{ours['InfoVAE-MMD']}, compiled",
            "pythae InfoVAE-MMD",
        ),
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
    images: Annotated[int, typer.Option(help="Per epoch; 0: 512 on a CPU, 12,800 on a GPU.")] = 0,
    rounds: Annotated[int, typer.Option(help="Turns; 0: 5.")] = 0,
    compile: Annotated[bool, typer.Option(help="Also compiled.")] = True,
    only: Annotated[Group | None, typer.Option(help="One of the groups that take turns.")] = None,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/training-<device>.md; for one shape or group training-<device>-<shape>-<group>.md."""
    where = torch.device(device)
    shapes = TINY_SHAPES if tiny else SHAPES
    sizes = (64,) if tiny else (2048, 4096) if device == "cpu" else (4096, 8192, 16384)
    peaks = {precision: matmul_peak(where, precision, sizes) for precision in precisions(where)}
    batch, turns = (16, 2) if tiny else (256, rounds or ROUNDS[device])
    page = "-".join(["training", device, *([] if shape == "both" else [shape]), *([only] if only else [])])
    notes = [f"pythae is not installed: {PYTHAE}"] if find_spec("pythae") is None else []
    before: list[Table] = []
    aims: list[tuple[str, str, str]] = []
    for name in ["cifar"] if tiny else list(SHAPES) if shape == "both" else [shape]:
        arena = Arena.make(shapes[name], 2 * batch if tiny else images or IMAGES[device], batch, where)
        title = f"{name}-shaped net, batch {batch}, {arena.images:,} images per epoch"
        timings: dict[str, Timing] = {}
        taking_part = groups(arena, compile=compile, tiny=tiny)
        if only and only not in taking_part:
            raise typer.BadParameter(f"there is no group {only} with --tiny")
        for group in [taking_part[only]] if only else taking_part.values():
            found, failed = contest(group, turns, where)
            timings |= found
            notes += [f"Failed: {who}: {why.strip().splitlines()[-1]}" for who, why in failed.items()]
            for who, why in failed.items():
                typer.echo(f"{who}: {why}", err=True)
            reached = [
                (f"{goal}, {name}", aim, came)
                for precision in peaks
                for goal, aim, came in goals(timings, precision, device)
            ]
            first = Table("Goals", ("goal", "aim", "measured"), (*aims, *reached), tuple(notes))
            tables = [first, *before, speeds(title, arena, timings, peaks)]
            # After each group: what is stopped later has its page all the same.
            written = write(page, f"Training speed on {device}", where, tables, out)
        before.append(tables[-1])
        aims += reached
    typer.echo(written)


if __name__ == "__main__":
    typer.run(main)
