"""What a result was made with: enough to make it again, or to see why it differs."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

_LIBRARIES = (
    "regbench",
    "torch",
    "torchvision",
    "numpy",
    "scipy",
    "scikit-learn",
    "scikit-image",
    "pydantic",
    "pluggy",
)


def provenance(device: Any = None) -> dict[str, Any]:
    """Versions, host, git, threads and, for a torch ``device``, hardware, driver and precision flags."""
    record: dict[str, Any] = {
        "started": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "host": platform.node(),
        "cpu": _cpu(),
        "cpus": os.cpu_count(),
        "libraries": {name: _version(name) for name in _LIBRARIES},
        "git": _git(Path.cwd()),
    }
    if device is not None:
        record["torch"] = _torch(device)
    return record


def device_name(device: Any) -> str:
    """What people call the hardware behind a torch device."""
    import torch  # only here: reports read provenance without torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else _cpu()


def _torch(device: Any) -> dict[str, Any]:
    import torch

    cudnn: Any = torch.backends.cudnn
    record: dict[str, Any] = {
        "device": str(device),
        "device_name": device_name(device),
        "threads": torch.get_num_threads(),
        "float32_matmul_precision": torch.get_float32_matmul_precision(),
        "deterministic_algorithms": torch.are_deterministic_algorithms_enabled(),
        "cuda": torch.version.cuda,
    }
    if device.type == "cuda":
        record |= {
            "driver": _run("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
            "cudnn": cudnn.version(),
            "capability": list(torch.cuda.get_device_capability(device)),
        }
    return record


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(directory: Path) -> dict[str, Any] | None:
    commit = _run("git", "-C", str(directory), "rev-parse", "HEAD")
    if commit is None:
        return None
    return {
        "commit": commit,
        "dirty": bool(_run("git", "-C", str(directory), "status", "--porcelain", "-uno")),
    }


def _run(*command: str) -> str | None:
    """Output of a helper program; ``None`` where it is absent or fails, which is no fault here."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
