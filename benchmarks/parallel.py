"""Several cells at once on one device: processes, streams, or the seeds of one method stacked into one model.

    python -m benchmarks.parallel --device cuda

All train plain autoencoders; what counts is the images per second of all cells together.

Shape suffixes: N cells, S steps, B batch, C channels, H height, W width.
"""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated

import torch
import typer
from torch import Tensor, nn
from torch.func import functional_call, grad, stack_module_state, vmap
from torch.nn import functional as F

from benchmarks.common import Table, write
from benchmarks.contest import Entry, Work, contestants
from benchmarks.contestants import FOR_GOOD, SHAPES, TINY_SHAPES, Arena, regbench_epochs, regbench_trainer
from benchmarks.training import IMAGES, precisions
from regbench.data.batches import epoch_order
from regbench.modes import full_float32, retained_memory
from regbench.nets import NetShape, SharedAutoencoder
from regbench.training.precision import Precision, autocast


class Plain(nn.Module):
    """The shared net as one function of the images."""

    def __init__(self, shape: NetShape) -> None:
        super().__init__()
        self.net = SharedAutoencoder(shape)

    def forward(self, x_BCHW: Tensor) -> Tensor:
        logits_BCHW: Tensor = self.net.decoder(self.net.code(self.net.encoder(x_BCHW)))
        return logits_BCHW


def stacked(arena: Arena, cells: int, precision: Precision) -> Work:
    """The cells' weights as one tensor with a further axis: their convolutions become grouped ones."""
    FOR_GOOD.enter_context(retained_memory(arena.device))
    device, plain = arena.device, Plain(arena.shape)
    models = [Plain(arena.shape).to(device) for _ in range(cells)]
    stacked_state, _ = stack_module_state(models)  # type: ignore[arg-type]
    weights = {name: value.detach().requires_grad_() for name, value in stacked_state.items()}
    adam = torch.optim.Adam(weights.values(), lr=1e-3, fused=True, capturable=device.type == "cuda")
    images_NCHW = torch.from_numpy(arena.images_NCHW).to(device)
    x_NBCHW = torch.zeros(cells, arena.batch_size, *images_NCHW.shape[1:], device=device)

    def loss(weights: dict[str, Tensor], x_BCHW: Tensor) -> Tensor:
        logits_BCHW = functional_call(plain, weights, (x_BCHW,))
        return F.binary_cross_entropy_with_logits(logits_BCHW.float(), x_BCHW, reduction="sum")

    def step() -> None:
        with autocast(device, precision), full_float32():
            gradients = vmap(grad(loss))(weights, x_NBCHW)
        for name, value in weights.items():
            value.grad = gradients[name]
        adam.step()
        adam.zero_grad(set_to_none=True)

    replay = _captured(step, device)

    def epoch() -> None:
        orders = [epoch_order(cell, 1, len(images_NCHW), arena.batch_size) for cell in range(cells)]
        for index_NB in torch.stack(orders, dim=1).to(device):
            x_NBCHW.copy_(images_NCHW[index_NB].float().div_(255))
            replay()

    return epoch


def _captured(step: Work, device: torch.device) -> Work:
    if device.type != "cuda":
        return step
    stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=stream):
        step()
    return graph.replay


def streams(arena: Arena, cells: int, precision: Precision) -> Work:
    """The cells as threads of one process, each on a stream of its own."""
    trainers = [regbench_trainer(arena, "ae", precision=precision) for _ in range(cells)]
    for trainer in trainers:
        trainer.run_epoch(1)  # captures, which must not happen side by side
    queues = [torch.cuda.Stream() for _ in range(cells)]  # type: ignore[no-untyped-call]
    pool = ThreadPoolExecutor(cells)
    progress_S = torch.zeros(trainers[0].loop.steps)

    def one(cell: int) -> None:
        with torch.cuda.stream(queues[cell]):
            trainers[cell].loop.run(0, 2, progress_S)

    def work() -> None:
        for done in [pool.submit(one, cell) for cell in range(cells)]:
            done.result()

    return work


def single_thread(arena: Arena, precision: Precision) -> Work:
    """One cell on one CPU thread, as two of them share two cores."""
    torch.set_num_threads(1)
    return regbench_epochs(arena, "ae", precision=precision)


def together(entry: Entry, processes: int, rounds: int, device: torch.device) -> float:
    """Median seconds until all of ``processes`` contestants of one kind have worked once, side by side."""
    with contestants({str(n): entry for n in range(processes)}, device) as ready:
        seconds = []
        for _ in range(rounds):
            for contestant in ready.values():
                contestant.begin()
            seconds.append(max(contestant.answer() for contestant in ready.values()))
    return statistics.median(seconds)


def rates(arena: Arena, precision: Precision, counts: tuple[int, ...], rounds: int) -> Table:
    """Images per second of all cells together, for each way and number."""
    device, plain = arena.device, Entry(regbench_epochs, (arena, "ae"), {"precision": precision})
    ways: dict[str, tuple[Entry, int, int]] = {"one cell": (plain, 1, 1)}
    for n in counts:
        ways[f"{n} processes"] = (plain, n, n)
        if device.type == "cpu":
            ways[f"{n} processes, one thread each"] = (Entry(single_thread, (arena, precision)), n, n)
        else:
            ways[f"{n} streams of one process"] = (Entry(streams, (arena, n, precision)), 1, n)
        ways[f"{n} seeds stacked into one model"] = (Entry(stacked, (arena, n, precision)), 1, n)
    found = {
        name: cells * arena.images / together(entry, processes, rounds, device)
        for name, (entry, processes, cells) in ways.items()
    }
    rows = tuple((name, f"{rate:.0f}", f"{rate / found['one cell']:.2f}") for name, rate in found.items())
    title = f"{arena.shape.channels} x {arena.shape.side} x {arena.shape.side}, widths {arena.shape.widths}"
    return Table(f"{title}, {precision}", ("way", "images/s of all cells", "over one cell"), rows)


def main(
    device: Annotated[str, typer.Option(help="cpu or cuda.")] = "cpu",
    rounds: Annotated[int, typer.Option(help="Turns of each way.")] = 3,
    tiny: Annotated[bool, typer.Option(help="Seconds instead of minutes, to see that it runs.")] = False,
    out: Annotated[Path | None, typer.Option(help="Folder for the page.")] = None,
) -> None:
    """Write benchmarks/results/parallel-<device>.md."""
    where = torch.device(device)
    narrow = NetShape(channels=1, side=28, latent=64, features=64, widths=(16, 32))
    nets = [TINY_SHAPES["mnist"]] if tiny else [SHAPES["cifar"], narrow]
    counts = (2,) if tiny or device == "cpu" else (2, 4)
    batch = 16 if tiny else 256
    tables = []
    for shape in nets:
        images = 2 * batch if tiny else IMAGES[device] * (4 if shape is narrow and device == "cpu" else 1)
        arena = Arena.make(shape, images, batch, where)
        tables.append(rates(arena, precisions(where)[-1], counts, rounds))
    typer.echo(write(f"parallel-{device}", f"Several cells at once on one {device}", where, tables, out))


if __name__ == "__main__":
    typer.run(main)
