"""Random views: where their pixels come from. Shape suffixes: B batch, C channels, H height, W width."""

from __future__ import annotations

import math

import pytest
import torch

from regbench_clustering.views import Augmentation


def ramps(batch: int, side: int) -> torch.Tensor:
    """Images whose two channels are each pixel's column and row, from 0 to 1 between the outermost centres."""
    position_S = torch.linspace(0, 1, side)
    across_HW, down_HW = position_S.expand(side, side), position_S[:, None].expand(side, side)
    return torch.stack([across_HW, down_HW]).repeat(batch, 1, 1, 1)


def test_a_view_of_the_whole_image_is_the_image() -> None:
    x_BCHW = torch.rand(5, 3, 8, 8)
    view_BCHW = Augmentation(smallest_crop=1.0, shift=0.0).view(x_BCHW)
    torch.testing.assert_close(view_BCHW, x_BCHW, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("size", "across", "down"), [(0.5, 0.0, 0.0), (0.3, 0.9, 0.2), (1.0, 1.0, 0.0)])
def test_a_crop_is_interpolated_between_pixels_and_repeats_the_edge(
    size: float, across: float, down: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """``size``, ``across`` and ``down`` as the random numbers say: 0 smallest, leftmost and topmost; 1 the opposite."""
    left = iter((size, across, down))
    monkeypatch.setattr(torch, "rand", lambda *shape, device: torch.full(shape, next(left)))
    x_BCHW = torch.arange(2 * 8 * 8.0).sin().view(1, 2, 8, 8)
    view_BCHW = Augmentation(smallest_crop=0.5, shift=0.25).view(x_BCHW)
    side = 8 * (0.5 + 0.5 * size)  # in pixels
    first = [
        -2 + share * (8 + 4 - side) for share in (down, across)
    ]  # edges of the crop, 2 pixels outside at most

    def weights(place: float) -> list[tuple[int, float]]:
        below = math.floor(place)
        return [(min(max(p, 0), 7), 1 - abs(place - p)) for p in (below, below + 1)]

    for row in range(8):
        for column in range(8):
            rows, columns = (
                weights(edge + (p + 0.5) * side / 8 - 0.5)
                for edge, p in zip(first, (row, column), strict=True)
            )
            expected_C = sum(a * b * x_BCHW[0, :, i, j] for i, a in rows for j, b in columns)
            torch.testing.assert_close(view_BCHW[0, :, row, column], expected_C, atol=1e-5, rtol=0)


def test_a_plain_image_stays_as_it_is() -> None:
    x_BCHW = torch.linspace(0, 1, 50)[:, None, None, None].expand(-1, 3, 8, 8)
    view_BCHW = Augmentation(smallest_crop=0.3, shift=0.5, flips=True).view(x_BCHW)
    torch.testing.assert_close(view_BCHW, x_BCHW, atol=1e-6, rtol=0)


def test_crops_are_squares_of_random_size_inside_the_image() -> None:
    view_BCHW = Augmentation(smallest_crop=0.5, shift=0.0).view(ramps(2000, 32))
    assert (view_BCHW.diff(dim=3)[:, 0] >= 0).all()
    size_BC = view_BCHW[:, :, -1, -1] - view_BCHW[:, :, 0, 0]
    torch.testing.assert_close(size_BC[:, 0], size_BC[:, 1], atol=0.02, rtol=0)
    assert 0.48 < size_BC.min() < 0.53 < 0.97 < size_BC.max() < 1.01
    centre_BC = (view_BCHW[:, :, 0, 0] + view_BCHW[:, :, -1, -1]) / 2
    assert abs(centre_BC.mean().item() - 0.5) < 0.01
    assert (centre_BC - 0.5).abs().amax().item() > 0.2
    assert abs(torch.corrcoef(centre_BC.T)[0, 1].item()) < 0.1


def test_a_shift_reaches_beyond_the_image_and_repeats_its_edge() -> None:
    view_BCHW = Augmentation(smallest_crop=1.0, shift=0.25).view(ramps(2000, 32))
    moved_BC = view_BCHW[:, :, 16, 16] - ramps(1, 32)[:, :, 16, 16]
    assert 0.24 < moved_BC.abs().max() < 0.27
    assert view_BCHW.min() == 0
    assert view_BCHW.max() == 1


def test_flips_mirror_half_of_the_images_and_only_where_asked() -> None:
    x_BCHW = ramps(2000, 8)
    flipped_B = Augmentation(flips=True).view(x_BCHW).diff(dim=3)[:, 0].sum((1, 2)) < 0
    assert 0.45 < flipped_B.float().mean().item() < 0.55
    assert not (Augmentation().view(x_BCHW).diff(dim=3)[:, 0].sum((1, 2)) < 0).any()


def test_views_of_a_batch_differ() -> None:
    x_BCHW = torch.rand(1, 1, 8, 8).repeat(2, 1, 1, 1)
    view_BCHW = Augmentation().view(x_BCHW)
    assert not torch.allclose(view_BCHW[0], view_BCHW[1])
    assert view_BCHW.is_contiguous(memory_format=torch.channels_last)
