"""Who is compared: each is made ready once, then trains one epoch per call on the same images.

All have the same networks, batch size and Adam, and see the same number of images per epoch.

Shape suffixes: N images, B batch, C channels, H height, W width, D latent units, F features.
"""

from __future__ import annotations

import contextlib
import logging
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.data.batches import Batches, epoch_order
from regbench.model import build_model
from regbench.modes import full_float32, retained_memory, threads
from regbench.nets import NetShape, SharedAutoencoder, forward_flops
from regbench.plugins import registry
from regbench.training.launch import Launch
from regbench.training.precision import Precision, autocast
from regbench.training.stepper import AdamSettings
from regbench.training.trainer import Trainer, TrainingSettings

FOR_GOOD = contextlib.ExitStack()
"""What is set for as long as this process lives."""
Epoch = Callable[[], object]
"""Trains one epoch."""
LATENT = FEATURES = 256
SHAPES = {
    "mnist": NetShape(channels=1, side=28, latent=LATENT, features=FEATURES, widths=(128, 256)),
    "cifar": NetShape(channels=3, side=32, latent=LATENT, features=FEATURES, widths=(64, 128, 256)),
}
"""The nets of the reference comparison."""
TINY_SHAPES = {
    "mnist": NetShape(channels=1, side=28, latent=8, features=16, widths=(4, 8)),
    "cifar": NetShape(channels=3, side=32, latent=8, features=16, widths=(4, 8, 8)),
}


@dataclass(frozen=True, slots=True)
class Arena:
    """What all contestants have in common."""

    shape: NetShape
    images_NCHW: NDArray[np.uint8]
    batch_size: int
    device: torch.device

    @classmethod
    def make(cls, shape: NetShape, images: int, batch_size: int, device: torch.device) -> Arena:
        """Images of noise: how long a step takes does not depend on what is on them."""
        size = (images, shape.channels, shape.side, shape.side)
        return cls(shape, np.random.default_rng(0).integers(0, 256, size, np.uint8), batch_size, device)

    @property
    def images(self) -> int:
        """Images trained on in an epoch; whole batches only."""
        return len(self.images_NCHW) // self.batch_size * self.batch_size


def regbench_trainer(
    arena: Arena,
    method: str,
    options: Mapping[str, Any] | None = None,
    *,
    precision: Precision = "fp32",
    compile: bool = False,
    deterministic: bool = False,
    eager: bool = False,
) -> Trainer:
    """A trainer of regbench as ``regbench run`` makes it, with threads and memory as it sets them for its process."""
    device = arena.device
    graphs = device.type == "cuda" and not eager
    launch = Launch(graphs=graphs, compile=compile, deterministic=deterministic)
    flops = 3.0 * forward_flops(arena.shape) * arena.batch_size
    for mode in (threads(device, flops), retained_memory(device)):
        FOR_GOOD.enter_context(mode)
    model = build_model(arena.shape, registry().regularizer(method).cls, options, seed=0, device=device)
    settings = TrainingSettings(
        epochs=10**9,
        warmup=0,
        batch_size=arena.batch_size,
        adam=AdamSettings(),
        precision=precision,
        launch=launch,
    )
    return Trainer(model, Batches(arena.images_NCHW, device), settings, seed=0)


def regbench_epochs(
    arena: Arena, method: str, options: Mapping[str, Any] | None = None, **settings: Any
) -> Epoch:
    """regbench's epochs, one after another; ``settings`` are those of :func:`regbench_trainer`."""
    trainer = regbench_trainer(arena, method, options, **settings)
    epochs = iter(range(1, trainer.settings.epochs + 1))
    return lambda: trainer.run_epoch(next(epochs))


def bare_loop(arena: Arena, precision: Precision = "fp32") -> Epoch:
    """A plain autoencoder trained by a hand-written loop without records, checks or phases: the limit for a harness.

    It has the process to itself as regbench has, with threads and memory set alike.
    """
    torch.manual_seed(0)
    flops = 3.0 * forward_flops(arena.shape) * arena.batch_size
    for mode in (threads(arena.device, flops), retained_memory(arena.device)):
        FOR_GOOD.enter_context(mode)
    net = SharedAutoencoder(arena.shape).to(arena.device, memory_format=torch.channels_last)
    adam = torch.optim.Adam(net.parameters(), lr=1e-3, fused=True)
    images_NCHW = torch.from_numpy(arena.images_NCHW).to(arena.device)

    def epoch() -> None:
        order_SB = epoch_order(0, 1, len(images_NCHW), arena.batch_size).to(arena.device)
        for index_B in order_SB:
            x_BCHW = images_NCHW[index_B].to(torch.float32, memory_format=torch.channels_last).div_(255)
            with autocast(arena.device, precision):
                logits_BCHW = net.decoder(net.code(net.encoder(x_BCHW)))
                loss = F.binary_cross_entropy_with_logits(logits_BCHW.float(), x_BCHW, reduction="sum")
            (loss / arena.batch_size).backward()
            adam.step()
            adam.zero_grad(set_to_none=True)

    def run() -> None:
        with full_float32():
            epoch()

    return run


def pythae_epochs(
    arena: Arena,
    method: str,
    *,
    efficient_mmd: bool = False,
    amp: bool = False,
    retain: bool = False,
) -> Epoch:
    """pythae's own trainer with its defaults, apart from batch size and learning rate; ``train_step`` is its epoch.

    What it does after an epoch (copying the best model, saving) is not counted. ``efficient_mmd`` puts a kernel
    through the Gram matrix in the place of its own, which forms a B x B x D tensor. ``retain`` sets the memory of
    its process as regbench does.
    """
    from pythae.data.datasets import BaseDataset
    from pythae.trainers import BaseTrainer, BaseTrainerConfig

    torch.manual_seed(0)
    if retain:
        FOR_GOOD.enter_context(retained_memory(arena.device))
    images = torch.from_numpy(arena.images_NCHW[: arena.images].astype(np.float32) / 255)
    config = BaseTrainerConfig(
        output_dir=tempfile.mkdtemp(prefix="pythae-"),
        per_device_train_batch_size=arena.batch_size,
        learning_rate=1e-3,
        num_epochs=10**9,
        no_cuda=arena.device.type != "cuda",
        amp=amp,
    )
    with _quiet():
        trainer = BaseTrainer(
            _pythae_model(arena, method, efficient_mmd),
            BaseDataset(images, torch.zeros(len(images))),
            training_config=config,
        )
        trainer.prepare_training()

    def epoch() -> None:
        with _quiet():
            trainer.train_step(1)

    return epoch


def _pythae_model(arena: Arena, method: str, efficient_mmd: bool) -> nn.Module:
    from pythae.models import AE, INFOVAE_MMD, VAE, AEConfig, INFOVAE_MMD_Config, VAEConfig
    from pythae.models.base.base_utils import ModelOutput
    from pythae.models.nn import BaseDecoder, BaseEncoder

    shape = arena.shape
    net = SharedAutoencoder(shape)

    class Encoder(BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.encoder, self.code = net.encoder, net.code
            self.logvar = None if method == "ae" else nn.Linear(shape.features, shape.latent)

        def forward(self, x_BCHW: Tensor) -> Any:
            h_BF = self.encoder(x_BCHW)
            if self.logvar is None:
                return ModelOutput(embedding=self.code(h_BF))
            return ModelOutput(embedding=self.code(h_BF), log_covariance=self.logvar(h_BF))

    class Decoder(BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.decoder = net.decoder

        def forward(self, z_BD: Tensor) -> Any:
            return ModelOutput(reconstruction=self.decoder(z_BD).sigmoid())

    class EfficientMMD(INFOVAE_MMD):  # type: ignore[misc]
        def imq_kernel(self, z1: Tensor, z2: Tensor) -> Tensor:
            squares = torch.cdist(z1, z2, compute_mode="use_mm_for_euclid_dist").square()
            base = 2.0 * self.model_config.latent_dim * self.model_config.kernel_bandwidth**2
            return torch.stack([s * base / (s * base + squares) for s in self.scales]).sum(dim=0)

    kinds = {
        "ae": (AE, AEConfig, {}),
        "vae-kl": (VAE, VAEConfig, {"reconstruction_loss": "bce"}),
        "infovae-mmd": (
            EfficientMMD if efficient_mmd else INFOVAE_MMD,
            INFOVAE_MMD_Config,
            {"reconstruction_loss": "bce"},
        ),
    }
    model, config, options = kinds[method]
    size = (shape.channels, shape.side, shape.side)
    return model(config(input_dim=size, latent_dim=shape.latent, **options), Encoder(), Decoder())  # type: ignore[no-any-return]


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """pythae prints a progress bar and logs."""
    logging.disable(logging.INFO)
    with (
        Path(os.devnull).open("w") as nowhere,
        contextlib.redirect_stderr(nowhere),
        contextlib.redirect_stdout(nowhere),
    ):
        yield
