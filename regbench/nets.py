"""The shared convolutional autoencoder: one network for every method.

Shape suffixes: B batch, C channels, H height, W width, D latent units, F features.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

SMALLEST_MAP = 4
"""An image is halved while its side is even and above this."""


@dataclass(frozen=True, slots=True)
class NetShape:
    """What the shared net is built from."""

    channels: int
    side: int
    latent: int
    features: int
    widths: tuple[int, ...]
    """Channels after each stride-2 block; one block per entry."""
    kernel: int = 4
    bottleneck_relu: bool = True

    @property
    def map_side(self) -> int:
        """Side of the smallest feature map."""
        return self.side >> len(self.widths)


def decoder_widths(widths: tuple[int, ...]) -> tuple[int, ...]:
    """Channels after each transposed convolution: halved twice from the encoder's last, then constant.

    >>> decoder_widths((128, 256)), decoder_widths((64, 128, 256))
    ((128, 64), (128, 64, 64))
    """
    last = widths[-1]
    return tuple(max(last >> (block + 1), last // 4, 1) for block in range(len(widths)))


def forward_flops(shape: NetShape) -> int:
    """Floating-point operations of reconstructing one image, a multiply-add counted as two."""
    taps, flops, channels, side = shape.kernel**2, 0, shape.channels, shape.side
    for width in shape.widths:
        side //= 2
        flops += side**2 * taps * channels * width
        channels = width
    map_values = channels * side**2
    flops += map_values * shape.features + shape.features * shape.latent + shape.latent * map_values
    for width in decoder_widths(shape.widths):
        flops += side**2 * taps * channels * width
        channels, side = width, 2 * side
    return 2 * (flops + side**2 * 9 * channels * shape.channels)


class Encoder(nn.Module):
    """Stride-2 convolutions with ReLU, then a dense layer: x_BCHW -> h_BF."""

    def __init__(self, shape: NetShape) -> None:
        super().__init__()
        blocks: list[nn.Module] = []
        channels = shape.channels
        for width in shape.widths:
            blocks += [
                nn.Conv2d(channels, width, shape.kernel, stride=2, padding=(shape.kernel - 1) // 2),
                nn.ReLU(),
            ]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.dense = nn.Linear(channels * shape.map_side**2, shape.features)
        self.activation = nn.ReLU() if shape.bottleneck_relu else nn.Identity()

    def forward(self, x_BCHW: Tensor) -> Tensor:
        h_BF: Tensor = self.activation(self.dense(self.blocks(x_BCHW).flatten(1)))
        return h_BF


class Decoder(nn.Module):
    """Dense layer, stride-2 transposed convolutions with ReLU, a last 3x3 convolution: z_BD -> logits_BCHW."""

    def __init__(self, shape: NetShape) -> None:
        super().__init__()
        self.start = (shape.widths[-1], shape.map_side, shape.map_side)
        self.dense = nn.Sequential(nn.Linear(shape.latent, shape.widths[-1] * shape.map_side**2), nn.ReLU())
        blocks: list[nn.Module] = []
        channels = shape.widths[-1]
        padding = (shape.kernel - 1) // 2
        # An odd kernel leaves the doubled map one pixel short; output_padding restores it.
        missing = shape.kernel % 2
        for width in decoder_widths(shape.widths):
            blocks += [
                nn.ConvTranspose2d(channels, width, shape.kernel, 2, padding, output_padding=missing),
                nn.ReLU(),
            ]
            channels = width
        self.blocks = nn.Sequential(*blocks)
        self.last = nn.Conv2d(channels, shape.channels, 3, padding=1)

    def forward(self, z_BD: Tensor) -> Tensor:
        logits_BCHW: Tensor = self.last(self.blocks(self.dense(z_BD).unflatten(1, self.start)))
        return logits_BCHW


class SharedAutoencoder(nn.Module):
    """Encoder, linear code layer and decoder. No batch normalisation: a method may encode a batch several times."""

    def __init__(self, shape: NetShape) -> None:
        super().__init__()
        self.shape = shape
        self.encoder = Encoder(shape)
        self.code = nn.Linear(shape.features, shape.latent)
        self.decoder = Decoder(shape)

    @property
    def compiled_as(self) -> NetShape:
        """What compiled code depends on besides the weights; see :func:`regbench.ops.compiled`."""
        return self.shape
