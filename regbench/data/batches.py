"""Images as batches on a device.

Shape suffixes: N images, B batch, C channels, H height, W width, S steps of an epoch.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from regbench.errors import UsageError
from regbench.seeding import derive

RESIDENT_SHARE = 0.5
"""Images stay on a CUDA device where they take at most this share of its free memory."""


def epoch_order(seed: int, epoch: int, n: int, batch_size: int) -> Tensor:
    """Indices of every batch of one epoch: int64 of shape (S, B) on the CPU, with S = n // batch_size.

    A pure function of its arguments, whatever the device: each epoch is a permutation of 0..n-1 whose last
    n mod B entries are dropped, so that other images are left out each time. Raises ``UsageError`` for n < B.
    """
    _at_least_one("batch_size", batch_size)
    if n < batch_size:
        raise UsageError(
            f"batch_size = {batch_size}, but there are only {n} training images",
            hint=f"choose a batch_size of at most {n}, or more images",
        )
    generator = torch.Generator().manual_seed(derive(seed, "batch order", epoch))
    steps = n // batch_size
    return torch.randperm(n, generator=generator)[: steps * batch_size].view(steps, batch_size)


class Batches:
    """Images of one split, handed out as float32 batches x_BCHW in [0, 1] on ``device``, channels last.

    ``images`` is uint8 of shape (N, C, H, W). Resident images lie on the device as uint8 and are gathered
    there; otherwise they stay in the host's memory, and each batch is copied over while the one before it
    is in use. Both give the same bits.
    """

    def __init__(
        self, images: NDArray[np.uint8] | Tensor, device: torch.device | str, resident: bool | None = None
    ) -> None:
        host_NCHW = _as_tensor(images)
        self.device = torch.device(device)
        self.resident = _fits(host_NCHW, self.device) if resident is None else resident
        self._images_NCHW = host_NCHW.to(self.device) if self.resident else host_NCHW.cpu()
        # A tensor, because CUDA turns division by a Python number into another rounding.
        self._white = torch.tensor(255.0, device=self.device)

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images_NCHW)

    def epoch(self, seed: int, epoch: int, batch_size: int, first: int = 0) -> Iterator[Tensor]:
        """The batches of one epoch, from number ``first`` on, in the order of :func:`epoch_order`."""
        return self._gather_each(epoch_order(seed, epoch, len(self), batch_size)[first:].unbind())

    def sequential(self, batch_size: int) -> Iterator[Tensor]:
        """All images in their order; the last batch may be smaller."""
        _at_least_one("batch_size", batch_size)
        starts = range(0, len(self), batch_size)
        return self._gather_each([torch.arange(i, min(i + batch_size, len(self))) for i in starts])

    def gather(self, index_B: Tensor) -> Tensor:
        """The resident images with these indices, as a batch. Nothing is checked and nothing waits for the device.

        ``index_B``: int64 on the device of the images.
        """
        return self._to_float(self._images_NCHW.index_select(0, index_B))

    def at(self, indices: Tensor | NDArray[Any] | Sequence[int]) -> Tensor:
        """The images with these indices, as one batch. Raises ``UsageError`` for an index out of range."""
        index_B = torch.as_tensor(indices, device="cpu")
        if index_B.ndim != 1 or index_B.dtype == torch.bool or index_B.is_floating_point():
            raise UsageError(
                f"indices must be integers of shape (B,), not {index_B.dtype} of {tuple(index_B.shape)}"
            )
        index_B = index_B.to(torch.int64)
        if len(index_B) and not 0 <= int(index_B.min()) <= int(index_B.max()) < len(self):
            raise UsageError(
                f"indices run from {int(index_B.min())} to {int(index_B.max())}; "
                f"there are {len(self)} images, counted from 0"
            )
        return next(self._gather_each((index_B,)))

    def _gather_each(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        if self.resident:
            return self._from_device(orders)
        if self.device.type == "cuda":
            return self._from_pinned(orders)
        return self._from_host(orders)

    def _from_device(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        if not orders:
            return
        # One copy of all indices, from pinned memory: no batch waits for the host, and the host for nothing.
        indices = torch.cat(tuple(orders))
        if self.device.type == "cuda":
            indices = indices.pin_memory()
        indices = indices.to(self.device, non_blocking=True)
        end = 0
        for order in orders:
            start, end = end, end + len(order)
            yield self.gather(indices[start:end])

    def _from_host(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        for index_B in orders:
            yield self._to_float(self._images_NCHW.index_select(0, index_B).to(self.device))

    def _from_pinned(self, orders: Sequence[Tensor]) -> Iterator[Tensor]:
        """Copy batch i + 1 on a stream of its own while batch i is in use, through two pinned buffers."""
        largest = max((len(index_B) for index_B in orders), default=0)
        shape = (largest, *self._images_NCHW.shape[1:])
        buffers = [torch.empty(shape, dtype=torch.uint8, pin_memory=True) for _ in range(2)]
        copied = [torch.cuda.Event() for _ in range(2)]  # type: ignore[no-untyped-call]
        stream = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

        def start(step: int) -> Tensor:
            slot, index_B = step % 2, orders[step]
            copied[slot].synchronize()  # the copy of two steps ago has left the buffer
            buffer_BCHW = buffers[slot][: len(index_B)]
            torch.index_select(self._images_NCHW, 0, index_B, out=buffer_BCHW)
            with torch.cuda.stream(stream):
                on_device_BCHW = buffer_BCHW.to(self.device, non_blocking=True)
                copied[slot].record(stream)
            return on_device_BCHW

        coming = start(0) if orders else None
        for step in range(len(orders)):
            ready_BCHW = coming
            assert ready_BCHW is not None
            using = torch.cuda.current_stream(self.device)
            using.wait_event(copied[step % 2])
            coming = start(step + 1) if step + 1 < len(orders) else None
            ready_BCHW.record_stream(using)
            yield self._to_float(ready_BCHW)

    def _to_float(self, pixels_BCHW: Tensor) -> Tensor:
        return pixels_BCHW.to(torch.float32, memory_format=torch.channels_last).div_(self._white)


def _as_tensor(images: NDArray[np.uint8] | Tensor) -> Tensor:
    if isinstance(images, np.ndarray):
        with warnings.catch_warnings():
            # Read-only arrays (memory maps) are fine: nothing here writes to them.
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            images = torch.from_numpy(np.ascontiguousarray(images))
    if images.dtype != torch.uint8 or images.ndim != 4:
        raise UsageError(
            f"images must be uint8 of shape (N, C, H, W), not {images.dtype} of {tuple(images.shape)}"
        )
    return images


def _fits(images: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True  # host and device share their memory
    free, _ = torch.cuda.mem_get_info(device)
    return images.nbytes <= RESIDENT_SHARE * free


def _at_least_one(name: str, value: int) -> None:
    if value < 1:
        raise UsageError(f"{name} = {value}: expected at least 1")
