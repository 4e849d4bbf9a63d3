"""How the batches of an epoch reach the device: launched one after another, or replayed as one CUDA graph each.

Both make the same steps on the same batches, and neither waits for the device before the epoch ends.

Shape suffixes: B batch, C channels, H height, W width, S steps of an epoch.
"""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial

import torch
from torch import Tensor

from regbench.data.batches import Batches, epoch_order
from regbench.errors import PluginError
from regbench.modes import no_waiting
from regbench.training.discover import untouched
from regbench.training.meter import Meter
from regbench.training.stepper import WARMUP, Stepper

Pause = Callable[[], bool]
"""Looked at before every batch; where it says yes, the loop returns."""

REHEARSED_BATCHES = 3
"""Batches made before a capture, for what happens only at first: compilation, choice of kernels, workspaces."""


class Loop(ABC):
    """Runs epochs of a stepper's batches and records them in ``meter``."""

    def __init__(self, stepper: Stepper, batches: Batches, batch_size: int) -> None:
        self.stepper = stepper
        self.batches = batches
        self.batch_size = batch_size
        self.steps = len(batches) // batch_size
        self.meter = Meter()
        self.phase = ""
        self.done = 0
        """Batches of the epoch that have been made, or launched."""

    def prepare(self, phase: str) -> None:
        """Make ready for epochs of ``phase``: all that takes time only once. Weights and random streams stay."""
        if phase != self.phase:
            self.meter = Meter()  # another phase records other names
            self._prepare(phase)
            self.phase = phase

    def forget(self) -> None:
        """Weights or moments have been replaced: what was made ready is out of date."""
        self.phase = ""

    @abstractmethod
    def _prepare(self, phase: str) -> None: ...

    @abstractmethod
    def run(
        self, seed: int, epoch: int, progress_S: Tensor, first: int = 0, pause: Pause | None = None
    ) -> None:
        """Train on the batches of one epoch; ``progress_S`` is ``model.progress`` at each of them, float32.

        ``first``: the batch to begin with, as the meter has the earlier ones. At least one batch is made before
        ``pause`` is asked; ``done`` tells how far the loop came.
        """

    def _begin(self, first: int) -> None:
        self.done = first
        if not first:
            self.meter.reset()

    def _paused(self, first: int, pause: Pause | None) -> bool:
        return pause is not None and self.done > first and pause()

    def _order(self, seed: int, epoch: int) -> Tensor:
        """The images of each batch of an epoch, order_SB, on the device."""
        return self._sent(epoch_order(seed, epoch, len(self.batches), self.batch_size))

    def _sent(self, source: Tensor) -> Tensor:
        """``source`` on the device, without waiting for it: pageable memory would be waited for."""
        device = self.stepper.device
        return (
            source.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else source.to(device)
        )

    def _step(self, phase: str, x_BCHW: Tensor) -> None:
        if phase == WARMUP:
            self.stepper.warmup_step(x_BCHW, self.meter)
        else:
            self.stepper.regularized_step(x_BCHW, self.meter)


class EagerLoop(Loop):
    """Launches every operation from Python. For CPUs, where launching costs little, and for finding faults.

    ``rehearse``: make a batch before each phase and undo it, so that compilation is not timed with the epoch.
    """

    def __init__(
        self, stepper: Stepper, batches: Batches, batch_size: int, *, rehearse: bool = False
    ) -> None:
        super().__init__(stepper, batches, batch_size)
        self._rehearse = rehearse

    def _prepare(self, phase: str) -> None:
        if self._rehearse:
            with untouched(self.stepper.model, self.stepper.optimizers.values()):
                self._step(phase, next(self.batches.epoch(0, 0, self.batch_size)))

    def run(
        self, seed: int, epoch: int, progress_S: Tensor, first: int = 0, pause: Pause | None = None
    ) -> None:
        self._begin(first)
        points = progress_S.tolist()
        order_SB = self._order(seed, epoch)
        for x_BCHW in self.batches.epoch(seed, epoch, self.batch_size, first):
            if self._paused(first, pause):
                return
            self.stepper.model.progress.fill_(points[self.done])
            self.stepper.model.index_B.copy_(order_SB[self.done])
            self._step(self.phase, x_BCHW)
            self.done += 1


Replay = Callable[[], object]
Capture = Callable[[Callable[[], None], Callable[[], None]], Replay]
"""Runs the first function, records what the second does on the device, and returns what does it again."""


class GraphLoop(Loop):
    """Replays a batch, all optimizer steps of the method included, as one CUDA graph.

    Everything that changes from batch to batch is read from buffers on the device: the order of the images, the
    number of the batch, the progress. The graph picks its images from the resident uint8 ones itself; where these
    do not fit, each batch is copied into ``x_BCHW`` first.
    """

    def __init__(
        self, stepper: Stepper, batches: Batches, batch_size: int, capture: Capture | None = None
    ) -> None:
        """``capture`` stands in for a CUDA graph in tests."""
        super().__init__(stepper, batches, batch_size)
        device = stepper.device
        self._capture = capture or partial(cuda_graph, device, stepper.model.regularizer.name)
        self._replay: Replay | None = None
        self._order_SB = torch.zeros(self.steps, batch_size, dtype=torch.int64, device=device)
        self._progress_S = torch.zeros(self.steps, device=device)
        self._number = torch.zeros(1, dtype=torch.int64, device=device)
        self._x_BCHW = None if batches.resident else next(batches.epoch(0, 0, batch_size)).clone()

    def _prepare(self, phase: str) -> None:
        self._replay = None  # lets go of the memory of the graph before
        body = partial(self._batch, phase)

        def rehearse() -> None:
            for number in range(REHEARSED_BATCHES):
                self._number.zero_()
                # By the last one all is compiled. What waits for the device must be found now: a capture that
                # fails leaves torch's allocator and generator in disorder.
                last = number == REHEARSED_BATCHES - 1
                with no_waiting(self.stepper.device) if last else nullcontext():
                    body()
            self._number.zero_()

        with untouched(self.stepper.model, self.stepper.optimizers.values()), warnings.catch_warnings():
            # Adam wonders why it runs outside a graph when it was made for one.
            warnings.filterwarnings("ignore", message=".*capturable=True.*")
            self._replay = self._capture(rehearse, body)

    def forget(self) -> None:
        super().forget()
        self._replay = None

    def _batch(self, phase: str) -> None:
        index_B = self._order_SB.index_select(0, self._number)[0]
        x_BCHW = self.batches.gather(index_B) if self._x_BCHW is None else self._x_BCHW
        self.stepper.model.index_B.copy_(index_B)
        self.stepper.model.progress.copy_(self._progress_S.index_select(0, self._number)[0])
        self._step(phase, x_BCHW)
        self._number += 1

    def run(
        self, seed: int, epoch: int, progress_S: Tensor, first: int = 0, pause: Pause | None = None
    ) -> None:
        assert self._replay is not None, "prepare() comes first"
        self._begin(first)
        self._number.fill_(first)
        self._progress_S.copy_(self._sent(progress_S))
        self._order_SB.copy_(self._order(seed, epoch))
        if self._x_BCHW is None:
            while self.done < self.steps and not self._paused(first, pause):
                self._replay()
                self.done += 1
        else:
            for x_BCHW in self.batches.epoch(seed, epoch, self.batch_size, first):
                if self._paused(first, pause):
                    return
                self._x_BCHW.copy_(x_BCHW)
                self._replay()
                self.done += 1


def cuda_graph(
    device: torch.device, name: str, rehearse: Callable[[], None], body: Callable[[], None]
) -> Replay:
    """``body``, captured after a rehearsal; the capture executes nothing.

    Both are on one stream beside the current one: what autograd and cuBLAS keep per stream is then at hand.
    """
    with torch.cuda.device(device):
        stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        before = torch.cuda.current_stream()
        graph = torch.cuda.CUDAGraph()
        try:
            stream.wait_stream(before)
            with torch.cuda.stream(stream):
                rehearse()
            before.wait_stream(stream)
            with torch.cuda.graph(graph, stream=stream):
                body()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            torch.cuda.set_stream(before)  # some versions of torch stay on the capture's
            raise PluginError(
                f"{name}: its batch cannot be captured as a CUDA graph: {error}",
                hint="regbench check finds what waits for the device; --eager runs without graphs",
            ) from error
    return graph.replay
