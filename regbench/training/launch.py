"""How a cell's steps reach the device: CUDA graphs, compilation, deterministic kernels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch

from regbench.errors import DeviceError

Compile = Literal["auto", "on", "off"]
PAYS_FROM = {"cuda": 1e15, "cpu": 1e14}
"""Operations of a cell's training from which on compilation pays: it takes about a minute, and saves a few percent
on a CPU, more on a GPU."""


@dataclass(frozen=True, slots=True)
class Launch:
    """What was decided for one cell. Of its numbers, only the rounding depends on this."""

    graphs: bool = False
    """Replay each batch as one CUDA graph."""
    compile: bool = False
    """Compile the shared net and the operations of :mod:`regbench.ops`."""
    compile_why: str = "not asked for"
    deterministic: bool = False
    """The same bits each time on the same device, at a price on GPUs."""

    @property
    def title(self) -> str:
        """``eager``, or what is used, like ``graphs + compiled``."""
        parts = {"graphs": self.graphs, "compiled": self.compile, "deterministic": self.deterministic}
        return " + ".join(part for part, used in parts.items() if used) or "eager"


@dataclass(frozen=True, slots=True)
class LaunchWishes:
    """What was asked for on the command line, for all cells."""

    eager: bool = False
    """Neither graphs nor compilation, to find faults."""
    deterministic: bool = False


def resolve_launch(
    wishes: LaunchWishes, choice: Compile, device: torch.device, operations: float, *, compilable: bool = True
) -> Launch:
    """Decide for one cell.

    Args:
        choice: the suite's ``compile``.
        operations: floating-point operations of its whole training.
        compilable: what the method says of itself.

    Raises:
        DeviceError: the suite says ``compile = "on"``, and it cannot be.
    """
    compile, why = _compilation(wishes, choice, device, operations, compilable)
    graphs = device.type == "cuda" and not wishes.eager
    return Launch(graphs, compile, why, wishes.deterministic)


def _compilation(
    wishes: LaunchWishes, choice: Compile, device: torch.device, operations: float, compilable: bool
) -> tuple[bool, str]:
    if wishes.eager:
        return False, "--eager"
    if choice == "off":
        return False, 'compile = "off"'
    if not compilable:
        return False, "the method declares compilable = False"
    least = PAYS_FROM.get(device.type)
    if choice == "auto":
        if wishes.deterministic:
            return False, "--deterministic"
        if least is None:
            return False, f"not tried on {device.type}"
        if operations < least:
            return False, f"the cell is short: {operations:.0e} operations, and it pays from {least:.0e} on"
    fault = compiler_fault(device)
    if fault is None:
        return True, 'compile = "on"' if choice == "on" else "the cell is long"
    if choice == "on":
        raise DeviceError(
            f'compile = "on", but torch.compile fails on {device}: {fault}',
            hint='install a C++ compiler (Debian: apt-get install g++), or set compile = "auto"',
        )
    return False, f"torch.compile fails here: {fault}"


@cache
def compiler_fault(device: torch.device) -> str | None:
    """Why ``torch.compile`` cannot be used on ``device``: found by compiling something small, once per process."""

    def small(x: torch.Tensor) -> torch.Tensor:
        return (x + 1).sin().sum()

    try:
        torch.compile(small, fullgraph=True)(torch.ones(8, device=device))
    except Exception as error:  # a missing compiler, Python's headers, Triton: each has an error of its own
        return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
    return None
