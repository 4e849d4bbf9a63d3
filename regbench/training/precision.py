"""Devices and precision: what ``auto`` means, and what is switched on where."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any, Literal

import torch

from regbench.errors import DeviceError

Precision = Literal["fp32", "bf16"]
PRECISIONS = ("auto", "fp32", "bf16")
DEVICES = ("auto", "cpu", "cuda", "mps")


def resolve_device(name: str, *, elsewhere: bool = False) -> torch.device:
    """``auto`` takes CUDA, then MPS, then the CPU. Raises ``DeviceError`` where ``name`` is not to be had.

    ``elsewhere``: on other machines than this one, of which only the kind can be said.
    """
    kind = name.partition(":")[0]
    if kind not in DEVICES:
        raise DeviceError(f"--device {name}: unknown", hint=f"one of {', '.join(DEVICES)}, or cuda:N")
    if elsewhere:
        if name not in ("cpu", "cuda"):
            raise DeviceError(
                f"--device {name}: cells run on other machines, so this one cannot tell what they have",
                hint="say --device cpu or --device cuda",
            )
        return torch.device(name)
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda")
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    if kind == "cuda" and not torch.cuda.is_available():
        built = "has no CUDA support" if torch.version.cuda is None else "finds no CUDA GPU or driver"
        raise DeviceError(f"--device {name}: this torch {built}", hint="use --device cpu, or --device auto")
    if kind == "mps" and not torch.backends.mps.is_available():
        raise DeviceError("--device mps: not available here", hint="use --device cpu, or --device auto")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise DeviceError(f"--device {name}: not a device", hint="for example cuda, or cuda:1") from error
    if kind == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {name}: there are {torch.cuda.device_count()} CUDA devices, counted from 0"
        )
    return device


def resolve_precision(name: str, device: torch.device) -> Precision:
    """``auto``: bf16 on CUDA GPUs that have it in hardware, fp32 elsewhere.

    On CPUs and MPS ``auto`` stays with fp32, so that a suite's cells are the same on every laptop.
    """
    native = False
    if device.type == "cuda":
        with torch.cuda.device(device):  # the question is put to the current device
            native = torch.cuda.is_bf16_supported(including_emulation=False)
    if name == "auto":
        return "bf16" if native else "fp32"
    if name == "bf16" and device.type == "cuda" and not native:
        raise DeviceError(
            "precision bf16: this GPU cannot compute in bfloat16", hint="use precision = 'fp32'"
        )
    if name not in ("fp32", "bf16"):
        raise DeviceError(f"precision {name!r}: unknown", hint=f"one of {', '.join(PRECISIONS)}")
    return "bf16" if name == "bf16" else "fp32"


def precision_elsewhere(name: str, device: torch.device) -> Precision:
    """The same for a machine that cannot be asked: ``auto`` is bf16 on CUDA, and its workers check that."""
    if name == "auto":
        return "bf16" if device.type == "cuda" else "fp32"
    return "bf16" if name == "bf16" else "fp32"


def autocast(device: torch.device, precision: Precision) -> Any:
    """A fresh autocast context for ``precision``; nothing for fp32."""
    if precision == "fp32":
        return nullcontext()
    return torch.autocast(device.type, dtype=torch.bfloat16)
