"""A suite through a real Slurm, disturbed, and what it must arrive at: ``nox -s slurm``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from regbench.engines import slurm_commands as commands
from tests.engines import start_slurm
from tests.execution.resuming import METHODS
from tests.execution.test_kill import finished, prepared

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROOT = Path(__file__).parent.parent.parent
EPOCHS = 40
PATIENCE_S = 200.0


def regbench(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    """``regbench run`` in ``folder``, from this checkout."""
    command = (
        sys.executable,
        "-m",
        "regbench",
        "run",
        "resumed.toml",
        "--device",
        "cpu",
    )
    return subprocess.Popen(
        [*command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def ended(run: subprocess.Popen[str]) -> str:
    """What it has printed; it must have ended well."""
    said, _ = run.communicate(timeout=PATIENCE_S)
    assert run.returncode == 0, said
    return said


def until(run: subprocess.Popen[str], ready: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + PATIENCE_S
    while not (found := ready()):
        assert run.poll() is None, run.communicate()[0]
        assert time.monotonic() < deadline, commands.queue()
        time.sleep(0.02)
    return found


def process_of(handle: str) -> int | None:
    """The job's Python, once it is there."""
    array, _, task = handle.partition("_")
    for process in psutil.process_iter():
        try:
            environment = process.environ()
        except psutil.Error:
            continue
        if (environment.get("SLURM_ARRAY_JOB_ID"), environment.get("SLURM_ARRAY_TASK_ID")) == (array, task):
            return process.pid
    return None


def cell(folder: Path, method: str) -> Path:
    [directory] = folder.glob(f"runs/resumed/cells/digits-{method.lower()}-s0-*")
    return directory


def well_under_way(folder: Path, method: str) -> bool:
    """Mid-cell, with a checkpoint."""
    rows = sum(len(file.read_text().splitlines()) for file in folder.glob(_files(method, "metrics.jsonl")))
    return 5 <= rows < EPOCHS and any(folder.glob(_files(method, "checkpoints/*.ckpt")))


def _files(method: str, name: str) -> str:
    return f"runs/resumed/cells/digits-{method.lower()}-s0-*/attempts/*/{name}"


def test_a_disturbed_suite_gives_the_undisturbed_table(cluster: start_slurm.Slurm, tmp_path: Path) -> None:
    """One job killed and one requeued in the middle of their cells."""
    pytest.importorskip("submitit", reason="submitit is not installed: pip install 'regbench[slurm]'")
    undisturbed = prepared(tmp_path / "undisturbed", EPOCHS)
    ended(regbench(undisturbed))

    disturbed = prepared(tmp_path / "disturbed", EPOCHS)
    polling = ("--engine-option", "poll_seconds=0.5")
    run = regbench(disturbed, "--engine", "slurm", "--jobs", "2", *polling, "--checkpoint-every", "3 epochs")
    first, second = METHODS[:2]
    handles = until(run, lambda: sorted(commands.queue()) if len(commands.queue()) == 2 else ())
    process = until(run, lambda: process_of(handles[0]))
    disturb = {
        first: lambda: os.kill(process, signal.SIGKILL),
        second: lambda: subprocess.run(["scontrol", "requeue", handles[1]], check=True),
    }
    while disturb:
        method = until(run, lambda: next((m for m in disturb if well_under_way(disturbed, m)), ""))
        disturb.pop(method)()
    said = ended(run)

    assert finished(disturbed) == finished(undisturbed), said
    attempts = {
        method: sorted(path.name for path in (cell(disturbed, method) / "attempts").iterdir())
        for method in METHODS
    }
    tokens = {method: [name.partition("-")[2] for name in names] for method, names in attempts.items()}
    assert len(set(tokens[first])) == len(attempts[first]) == 2, "given out again, with a new claim"
    assert len(set(tokens[second])) == 1, "Slurm ran the same job again, with the same claim"
    assert len(attempts[second]) == 2
    assert all(len(attempts[method]) == 1 for method in METHODS[2:])
    for method in METHODS:
        results = list(cell(disturbed, method).glob("result*/result.json"))
        assert len(results) == 1
        result = json.loads(results[0].read_text())
        assert result["attempt"] == attempts[method][-1]
        assert len(result["cost"]["resumed"]) == (method in (first, second)), "went on where it was"
    assert not commands.queue(), "nothing of it is left"
