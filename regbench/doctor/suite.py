"""A suite before it runs: its data sets, and the space that its results will take."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from regbench.cell import model_of
from regbench.doctor.disk import existing
from regbench.doctor.finding import Finding
from regbench.errors import DataError, RegbenchError
from regbench.evaluation.samples import SAMPLES
from regbench.evaluation.selection import LATENTS, SHOWN
from regbench.execution.planning import PlannedCell
from regbench.resolve import Plan
from regbench.store.checkpoints import KEPT
from regbench.suite.cells import CellSpec
from regbench.verify import data_problems

COPIES = 9
"""Of the weights in one checkpoint, at most, as a rule: themselves, and two moments for each of four optimizers."""
RECORDS = 64 * 1024
"""Bytes of a cell's small files, in blocks of the file system: its key, provenance, result, manifest."""
ROW = 1024
"""Bytes of one epoch, in the history and in ``metrics.jsonl`` together."""


def check_data(ready: Plan) -> list[Finding]:
    """Every file of every data set of the suite."""
    found = []
    for spec in {cell.spec.dataset: cell.spec for cell in ready.cells}.values():
        try:
            problems, mend = data_problems(spec, ready.registry, ready.data_root)
        except DataError as error:
            problems, mend = [str(error)], error.hint
        name = f"data set {spec.dataset}"
        found += [Finding("fault", name, problem, mend or "") for problem in problems]
        if not problems:
            found.append(
                Finding("ok", name, f"{spec.train_images:,} images to train on, complete and verified")
            )
    return found


def check_space(ready: Plan, jobs: int) -> list[Finding]:
    """Free space where runs are kept against what the cells to run will take."""
    todo = [cell.spec for cell in ready.cells if cell.ahead]
    todo += [study.base for study in ready.to_tune for _ in range(study.pending)]
    sizes: dict[tuple[str, str], tuple[int, int]] = {}
    need = 0
    largest = 0
    for spec in todo:
        kind = (spec.dataset, spec.method)
        if kind not in sizes:
            weights = weights_bytes(ready, spec)
            sizes[kind] = result_bytes(spec, weights), (KEPT + 1) * checkpoint_bytes(spec, weights)
        need += sizes[kind][0]
        largest = max(largest, sizes[kind][1])
    need += min(jobs, len(todo)) * largest
    home = existing(ready.run_dir)
    free = shutil.disk_usage(home).free
    said = f"{_size(free)} free in {home}; {len(todo)} cells to run take at most about {_size(need)}"
    todo_said = "free some space, or keep runs elsewhere: --runs-dir or REGBENCH_RUNS"
    if need > free:
        return [Finding("fault", "space", said, todo_said)]
    if 2 * need > free:
        return [Finding("warning", "space", said, todo_said)]
    return [Finding("ok", "space", said), *_inodes(home, len(todo))]


def weights_bytes(ready: Plan, spec: CellSpec) -> int:
    """Size of the weights of a cell's model, which is built for it."""
    method = ready.registry.regularizer(spec.regularizer).cls
    model, _ = model_of(spec, method, torch.device("cpu"))
    tensors: list[torch.Tensor] = list(model.state_dict().values())
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def result_bytes(spec: CellSpec, weights: int) -> int:
    """Upper bound of what a finished cell takes: its checkpoints are gone by then.

    Pictures and codes are counted as they are before compression; of a method's own arrays nothing is known.
    """
    pixels = spec.channels * spec.side**2
    tests = min(LATENTS, spec.test_images or LATENTS)
    pictures = (2 * min(SHOWN, tests) + 2 * SAMPLES + 2 * 6 * 8 + 10 * 16) * pixels
    codes = tests * (4 * int(spec.model["latent"]) + 64)
    return weights + pictures + codes + int(spec.training["epochs"]) * ROW + RECORDS


def checkpoint_bytes(spec: CellSpec, weights: int) -> int:
    """Upper bound of one checkpoint, as a rule; while a cell runs it has two, and a third as that is written."""
    return COPIES * weights + int(spec.training["epochs"]) * ROW + RECORDS


def _inodes(home: Path, cells: int) -> list[Finding]:
    """A file system may have space and no room for another file."""
    try:
        room = os.statvfs(home)
    except (AttributeError, OSError):  # not everywhere
        return []
    need = 12 * cells
    if room.f_files == 0 or room.f_favail > need:  # 0: the file system does not count
        return []
    said = f"{home} has room for {room.f_favail:,} more files; {cells} cells need about {need:,}"
    return [Finding("fault", "files", said, "remove files there, or keep runs elsewhere: --runs-dir")]


def must_compile(cells: Sequence[PlannedCell]) -> bool:
    """Whether a cell to run says ``compile = "on"``."""
    return any(cell.ahead and cell.spec.compile == "on" for cell in cells)


def planned(suite: Path, **settings: Any) -> tuple[Plan | None, list[Finding]]:
    """The suite's plan, and what is to be said of it; ``None`` where it cannot be planned."""
    from regbench.resolve import plan

    try:
        ready = plan(suite, **settings)
    except RegbenchError as error:
        return None, [Finding("fault", "suite", str(error), error.hint or "")]
    todo = sum(cell.ahead for cell in ready.cells)
    return ready, [Finding("ok", "suite", f"{ready.suite.name}: {len(ready.cells)} cells, {todo} to run")]


def _size(size: float) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
