"""All benchmarks of one kind of machine, in one command:

    python -m benchmarks.run --device cpu
    python -m benchmarks.run --device cuda

Each part is a process with a time limit of its own; one that fails or is stopped does not keep the others from
running. On a GPU the tests that need one come first, and all of it ends within eight minutes: what the time does
not reach is named.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from regbench.errors import DeviceError
from regbench.training.precision import resolve_device

ROOT = Path(__file__).parents[1]
GPU_SECONDS = 480


@dataclass(frozen=True)
class Part:
    """One process."""

    name: str
    command: tuple[str, ...]
    limit: int
    """Seconds."""


def _benchmark(name: str, limit: int, *options: str) -> Part:
    return Part(f"{name} {' '.join(options)}".strip(), ("-m", f"benchmarks.{name}", *options), limit)


def parts(device: str) -> list[Part]:
    """What is run, in order of importance."""
    on = ("--device", device)
    if device == "cpu":
        return [
            _benchmark("training", 1500, *on),
            _benchmark("profile", 300, *on),
            _benchmark("parallel", 600, *on),
            _benchmark("evaluation", 900, *on),
            _benchmark("store", 900),
            _benchmark("engines", 900),
            _benchmark("prediction", 1200, *on),
            _benchmark("equivalence", 3600, *on),
        ]
    tests = ("-m", "pytest", "-rf", "--tb=short", "--maxfail=10", "-m", "gpu")
    return [
        Part("tests of training on a GPU", (*tests, "tests/training", "tests/data"), 60),
        Part("tests of operations on a GPU", (*tests, "tests/ops"), 90),
        _benchmark("cell", 80, *on, "--epochs", "60"),
        _benchmark("training", 150, *on, "--shape", "cifar", "--rounds", "3"),
        _benchmark("profile", 40, *on),
        _benchmark("evaluation", 40, *on),
        Part("regbench plan suites/paper.toml", ("-m", "regbench", "plan", "suites/paper.toml", *on), 120),
        _benchmark("parallel", 60, *on),
        _benchmark("equivalence", 200, *on, "--seeds", "4", "--only", "AE", "--only", "ProtoVAE K=10"),
    ]


def run(part: Part, left: float, more: tuple[str, ...]) -> str:
    """How it ended, in words; what it prints goes through."""
    options = more if part.command[1].startswith("benchmarks.") else ()
    limit = min(part.limit, left)
    if left < 5:
        return "left out: no time"
    started = time.monotonic()
    # A session of its own, so that what the part has started is stopped with it.
    process = subprocess.Popen([sys.executable, *part.command, *options], cwd=ROOT, start_new_session=True)
    try:
        code = process.wait(limit)
    except subprocess.TimeoutExpired:
        return f"stopped after {limit:.0f} s"
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    return f"{'done' if code == 0 else f'failed with exit code {code}'} in {time.monotonic() - started:.0f} s"


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    tiny: Annotated[bool, typer.Option(help="Every benchmark in small, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the pages.")] = None,
) -> None:
    """Run every part and say how each ended; exit code 1 unless all are done."""
    try:
        resolve_device(device)
    except DeviceError as error:
        typer.echo(f"error: {error}\nhint: {error.hint}", err=True)
        raise typer.Exit(error.exit_code) from None
    more = (*(("--tiny",) if tiny else ()), *(("--out", str(out.resolve())) if out else ()))
    end = time.monotonic() + (GPU_SECONDS if device == "cuda" else float("inf"))
    ended: dict[str, str] = {}
    for part in parts(device):
        typer.echo(f"== {part.name}", err=True)
        ended[part.name] = run(part, end - time.monotonic(), more)
        typer.echo(f"== {part.name}: {ended[part.name]}", err=True)
    for name, how in ended.items():
        typer.echo(f"{name}: {how}")
    if not all(how.startswith("done") for how in ended.values()):
        raise typer.Exit(1)


if __name__ == "__main__":
    typer.run(main)
