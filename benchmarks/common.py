"""What every benchmark shares: the machine's facts, alternating timing, and the Markdown that comes out."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
import torch

from regbench.modes import synchronize
from regbench.store.provenance import device_name

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("regbench", "torch", "torchvision", "triton", "numpy", "pythae")


@dataclass(frozen=True, slots=True)
class Table:
    """One table of a result page."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        """A heading, the table, and its notes."""
        lines = [
            f"## {self.title}",
            "",
            _row(self.columns),
            _row(["---", *["---:"] * (len(self.columns) - 1)]),
        ]
        lines += [_row(row) for row in self.rows]
        return "\n".join([*lines, "", *(f"{note}\n" for note in self.notes)])


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


@dataclass(frozen=True, slots=True)
class Timing:
    """Seconds of each round of one contestant."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def spread(self) -> float:
        """Half the range between the second fastest and the second slowest round, relative to the median."""
        inner = sorted(self.seconds)[1:-1] or sorted(self.seconds)
        return (inner[-1] - inner[0]) / 2 / self.median


def timed(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    synchronize(device)
    started = time.perf_counter()
    work()
    synchronize(device)
    return time.perf_counter() - started


def alternate(
    contestants: Mapping[str, Callable[[], object]], rounds: int, device: torch.device, warmups: int = 1
) -> dict[str, Timing]:
    """Time each contestant once per round, in turns, so that whatever else the machine does hits all alike.

    All are in this process; :mod:`benchmarks.contest` gives each one of its own. The order turns by one place each
    round: nobody always runs after the same other one.
    """
    names = list(contestants)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for name in names:
        for _ in range(warmups):
            contestants[name]()
    for round_ in range(rounds):
        for name in names[round_ % len(names) :] + names[: round_ % len(names)]:
            seconds[name].append(timed(contestants[name], device))
    return {name: Timing(tuple(values)) for name, values in seconds.items()}


def ratio(of: Timing, to: Timing) -> float:
    """How many times faster ``of`` is than ``to``: the median over rounds of the ratio within a round."""
    return statistics.median(b / a for a, b in zip(of.seconds, to.seconds, strict=True))


def machine(device: torch.device) -> dict[str, str]:
    """Hardware and versions, for the head of a result page."""
    facts = {
        "device": f"{device.type} ({device_name(device)})",
        "processor": f"{_processor()}, {os.cpu_count()} cores, {torch.get_num_threads()} threads used",
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "bfloat16 in hardware": "yes" if bf16_hardware(device) else "no",
        "python": platform.python_version(),
    }
    for package in PACKAGES:
        try:
            facts[package] = version(package)
        except PackageNotFoundError:
            facts[package] = "not installed"
    return facts


def bf16_hardware(device: torch.device) -> bool:
    """Whether ``device`` multiplies bfloat16 matrices in hardware."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    flags = _cpuinfo("flags").split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def write(
    name: str, title: str, device: torch.device, tables: Sequence[Table], out: Path | None = None
) -> Path:
    """Write ``<out>/<name>.md``: the command, the machine, then the tables. ``out``: benchmarks/results."""
    command = f"python -m {_module()} {' '.join(sys.argv[1:])}".strip()
    head = [f"# {title}", "", f"`{command}`, {time.strftime('%Y-%m-%d', time.gmtime())}", ""]
    head += [f"- {key}: {value}" for key, value in machine(device).items()]
    text = "\n".join([*head, "", *(table.markdown() for table in tables)]).rstrip() + "\n"
    path = (out or RESULTS) / f"{name}.md"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def _module() -> str:
    main = sys.modules["__main__"].__spec__
    return main.name if main else Path(sys.argv[0]).name


def _processor() -> str:
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _cpuinfo(key: str) -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text().splitlines() if path.exists() else []
    return next((line.partition(":")[2].strip() for line in lines if line.startswith(key)), "")
