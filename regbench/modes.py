"""The process's global state, set aside and put back: random streams, arithmetic, kernels, threads, memory."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import cache
from typing import Any

import torch

WORTH_SHARING = 5e9
"""Operations of a training step from which on several CPU threads help."""


@contextmanager
def forked(device: torch.device, seed: int | None = None) -> Iterator[None]:
    """Random numbers drawn inside the block, on the CPU or any accelerator in use, leave no trace outside it.

    With ``seed`` the block's own streams start there. ``device`` is the one that the block works on.
    """
    mps = torch.mps.get_rng_state() if device.type == "mps" else None
    # All of them: torch.manual_seed reseeds every device that is in use, not only this one.
    devices = list(range(torch.cuda.device_count())) if torch.cuda.is_initialized() else []  # type: ignore[no-untyped-call]
    if device.type == "cuda" and not devices:
        devices = [device.index or 0]
    with torch.random.fork_rng(devices=devices):
        try:
            if seed is not None:
                torch.manual_seed(seed)
            yield
        finally:
            if mps is not None:
                torch.mps.set_rng_state(mps)


@contextmanager
def full_float32() -> Iterator[None]:
    """No TF32 (CUDA; cuDNN's default) and no bfloat16 (oneDNN) inside float32 products, convolutions and RNNs."""
    backends: Any = torch.backends  # the types of some of these are missing
    places = (
        backends.cuda.matmul,
        backends.cudnn.conv,
        backends.cudnn.rnn,
        backends.mkldnn.matmul,
        backends.mkldnn.conv,
    )
    before = [place.fp32_precision for place in places]
    try:
        for place in places:
            place.fp32_precision = "ieee"
        yield
    finally:
        for place, precision in zip(places, before, strict=True):
            place.fp32_precision = precision


def deterministic_convolutions() -> AbstractContextManager[None]:
    """cuDNN takes the same, deterministic kernel each time inside the block; elsewhere they are so anyway."""
    return _convolutions(deterministic=True)


def fastest_convolutions() -> AbstractContextManager[None]:
    """cuDNN times its kernels for each new shape and takes the fastest: sums may be rounded otherwise each time."""
    return _convolutions(deterministic=False)


@contextmanager
def _convolutions(*, deterministic: bool) -> Iterator[None]:
    before = (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = deterministic, not deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = before


@contextmanager
def deterministic_algorithms() -> Iterator[None]:
    """Every operation gives the same bits each time inside the block, or raises a ``RuntimeError``.

    torch asks for ``CUBLAS_WORKSPACE_CONFIG`` on GPUs, which is set here unless it is; cuBLAS itself reads it with the
    process's first product.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    fills: Any = torch.utils.deterministic  # its type is missing
    before = (torch.are_deterministic_algorithms_enabled(), fills.fill_uninitialized_memory)
    torch.use_deterministic_algorithms(True)
    # Only for finding faults, and it costs a pass over every new tensor.
    fills.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0])
        fills.fill_uninitialized_memory = before[1]


# Of glibc's malloc.h.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_MMAP_MAX = -1, -3, -4
_DEFAULT_MMAP_MAX = 65536
# Setting a threshold ends glibc's own adjusting of them; this is where it would have arrived with large tensors.
_LARGEST_MMAP_THRESHOLD = 32 * 2**20


@contextmanager
def retained_memory(device: torch.device) -> Iterator[None]:
    """Memory that is freed inside the block stays with the process, to be used again; afterwards it is given back.

    A training step on the CPU allocates and frees the same large tensors over and over. glibc asks the system for
    each of more than 32 MiB, and the system clears every page again: a fifth of the step, and more. Nothing
    happens on other devices and with other C libraries.
    """
    malloc = _glibc() if device.type == "cpu" else None
    if malloc is None:
        yield
        return
    malloc.mallopt(_M_MMAP_MAX, 0)
    malloc.mallopt(_M_TRIM_THRESHOLD, -1)
    try:
        yield
    finally:
        malloc.mallopt(_M_MMAP_MAX, _DEFAULT_MMAP_MAX)
        malloc.mallopt(_M_MMAP_THRESHOLD, _LARGEST_MMAP_THRESHOLD)
        malloc.mallopt(_M_TRIM_THRESHOLD, 2 * _LARGEST_MMAP_THRESHOLD)
        malloc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if platform.libc_ver()[0] != "glibc":
        return None
    return ctypes.CDLL(None)


@contextmanager
def threads(device: torch.device, flops: float) -> Iterator[None]:
    """One CPU thread inside the block where a training step's ``flops`` are too few to be shared.

    Several threads then wait for each other longer than they work, ten times longer where another process is
    busy. It also makes the numbers of small nets independent of the number of cores.
    """
    before = torch.get_num_threads()
    if device.type == "cpu" and flops < WORTH_SHARING:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@contextmanager
def no_waiting(device: torch.device) -> Iterator[None]:
    """What makes the host wait for a CUDA device inside the block raises a ``RuntimeError``; nothing elsewhere."""
    if device.type != "cuda":
        yield
        return
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode(before)


def synchronize(device: torch.device) -> None:
    """Wait until ``device`` has done all it was given; for timing."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()
