"""Random views of images, made on the device without waiting for it.

Shape suffixes: B batch, C channels, H height, W width, S side.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

import regbench
from regbench import Field


class Augmentation(regbench.Options):
    """What the views of an image may differ in."""

    smallest_crop: float = Field(
        0.75, gt=0, le=1, description="smallest side of a random crop, as a share of the image's side"
    )
    shift: float = Field(
        0.1, ge=0, le=1, description="how far a crop may reach beyond the image, as a share of its side"
    )
    flips: bool = Field(
        False, description="mirror left and right at random: for objects, not for digits or letters"
    )

    def view(self, x_BCHW: Tensor) -> Tensor:
        """A random square crop of each image, resized to its size, perhaps mirrored; edges are repeated outside."""
        batch, side, device = len(x_BCHW), x_BCHW.shape[-1], x_BCHW.device
        # In units of half a side, as grid_sample counts: the image reaches from -1 to 1.
        size_B1 = self.smallest_crop + (1 - self.smallest_crop) * torch.rand(batch, 1, device=device)
        reach_B1 = 1 - size_B1 + 2 * self.shift
        across_BS, down_BS = (
            size_B1 * _pixel_centres(side, device) + reach_B1 * (2 * torch.rand(batch, 1, device=device) - 1)
            for _ in range(2)
        )
        grid_BHW2 = torch.stack(
            [across_BS[:, None, :].expand(-1, side, -1), down_BS[:, :, None].expand(-1, -1, side)], dim=3
        )
        view_BCHW = F.grid_sample(x_BCHW, grid_BHW2, padding_mode="border", align_corners=False)
        if self.flips:
            mirrored_B111 = torch.rand(batch, 1, 1, 1, device=device) < 0.5
            view_BCHW = torch.where(mirrored_B111, view_BCHW.flip(3), view_BCHW)
        return view_BCHW.contiguous(memory_format=torch.channels_last)


def _pixel_centres(side: int, device: torch.device) -> Tensor:
    return (2 * torch.arange(side, device=device) + 1) / side - 1
