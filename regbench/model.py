"""The shared autoencoder together with one regularizer: what a method's ``steps`` work on.

Shape suffixes: B batch, C channels, H height, W width, D latent units, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, Literal

import psutil
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regbench.api import Dims, Regularizer
from regbench.errors import DeviceError
from regbench.modes import forked
from regbench.nets import Decoder, NetShape, SharedAutoencoder
from regbench.ops.compilation import compilable
from regbench.seeding import derive

LossScale = Literal["sum", "mean"]


class Model(nn.Module):
    """What a regularizer sees: the shared nets, its own code, and the reconstruction loss."""

    progress: Tensor
    """0-d, from 0 to 1 over the regularized part of the training; for annealing."""
    index_B: Tensor
    """In a step: which training images the batch is made of, int64, counted as ``on_epoch_start`` gets them."""

    def __init__(
        self, net: SharedAutoencoder, regularizer: Regularizer, loss_scale: LossScale = "sum"
    ) -> None:
        super().__init__()
        self.net = net
        self.regularizer = regularizer
        self.loss_scale = loss_scale
        self.register_buffer("progress", torch.zeros(()))
        self.register_buffer("index_B", torch.zeros(0, dtype=torch.int64), persistent=False)

    @property
    def encoding(self) -> tuple[nn.Module, ...]:
        """The encoder with its code layer, for an update's ``updates``."""
        return (self.net.encoder, self.net.code)

    @property
    def decoder(self) -> Decoder:
        return self.net.decoder

    @property
    def pixels(self) -> int:
        """Values in one image."""
        return self.regularizer.dims.pixels

    def features(self, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
        """The shared code and features of a batch: (code_BD, h_BF)."""
        return _features(self.net, x_BCHW)

    def encode_with_terms(self, x_BCHW: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        """z_BD and the method's weighted loss terms (0-d)."""
        code_BD, h_BF = self.features(x_BCHW)
        z_BD, terms = self.regularizer(code_BD, h_BF)
        return z_BD, terms

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """z_BD, sampled or not as ``regularizer.sampling`` says."""
        return self.encode_with_terms(x_BCHW)[0]

    def codes(self, batches: Iterable[Tensor]) -> Tensor:
        """The mean codes of all images of ``batches``: z_ND in float32 on the CPU, without gradients."""
        with torch.no_grad(), self.sampling(False):
            return torch.cat([self.encode(x_BCHW).float().cpu() for x_BCHW in batches])

    def decode(self, z_BD: Tensor) -> Tensor:
        """Logits of the reconstruction, logits_BCHW."""
        logits_BCHW: Tensor = self.net.decoder(z_BD)
        return logits_BCHW

    def reconstruction_loss(self, z_BD: Tensor, x_BCHW: Tensor) -> Tensor:
        """Binary cross-entropy on logits in nats (eq. 2): summed over an image's values, mean over the batch.

        With ``loss_scale = "mean"`` it is the mean over values as well, as many papers print it.
        """
        bce = _summed_bce(self.net, z_BD, x_BCHW)
        values = x_BCHW.numel() if self.loss_scale == "mean" else len(x_BCHW)
        return bce / values

    @contextmanager
    def sampling(self, enabled: bool) -> Iterator[None]:
        """Sampled codes on or off inside the block."""
        before = self.regularizer.sampling
        self.regularizer.sampling = enabled
        try:
            yield
        finally:
            self.regularizer.sampling = before


@compilable(SharedAutoencoder)
def _features(net: SharedAutoencoder, x_BCHW: Tensor) -> tuple[Tensor, Tensor]:
    h_BF = net.encoder(x_BCHW)
    return net.code(h_BF), h_BF


@compilable(SharedAutoencoder)
def _summed_bce(net: SharedAutoencoder, z_BD: Tensor, x_BCHW: Tensor) -> Tensor:
    logits_BCHW = net.decoder(z_BD)
    # float32 whatever the precision: a sum over thousands of bfloat16 values loses its digits.
    return F.binary_cross_entropy_with_logits(logits_BCHW.float(), x_BCHW.float(), reduction="sum")


def build_model(
    shape: NetShape,
    regularizer: type[Regularizer],
    options: Mapping[str, Any] | None = None,
    *,
    seed: int,
    loss_scale: LossScale = "sum",
    device: torch.device | str = "cpu",
    images: int = 0,
) -> Model:
    """A freshly initialised model, its weights a pure function of ``seed``.

    ``images``: how many it will be trained on, for methods that keep something for each of them.

    The shared net has a random stream of its own, so that every method of a seed starts from the same one.
    Weights are drawn on the CPU: they do not depend on the device. Raises ``DeviceError`` for a net that cannot be
    trained in all the memory that the device has.
    """
    dims = Dims(
        latent=shape.latent,
        features=shape.features,
        channels=shape.channels,
        side=shape.side,
        images=images,
    )
    _check_memory(shape, torch.device(device))
    with forked(torch.device("cpu"), derive(seed, "weights")):
        net = SharedAutoencoder(shape)
        torch.manual_seed(derive(seed, "regularizer"))
        method = regularizer(regularizer.Options(**(options or {})), dims)
    model = Model(net, method, loss_scale)
    return model.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


BYTES_PER_WEIGHT = 16
"""A float32 weight, its gradient and Adam's two moments."""


def _check_memory(shape: NetShape, device: torch.device) -> None:
    """Refuse what could only end with the system killing the process; activations come on top, and are not counted."""
    with torch.device("meta"):
        count = sum(weight.numel() for weight in SharedAutoencoder(shape).parameters())
    needed = count * BYTES_PER_WEIGHT
    if device.type == "cuda":
        memory = torch.cuda.mem_get_info(device)[1]
    else:
        memory = psutil.virtual_memory().total + psutil.swap_memory().total
    if needed > memory:
        raise DeviceError(
            f"the net has {count:,} weights: {needed / 1e9:,.0f} GB with their gradients and Adam's moments, and "
            f"{device} has {memory / 1e9:,.0f} GB",
            hint="lower widths, features or latent in [model]",
        )
