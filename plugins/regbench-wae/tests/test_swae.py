import math

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from regbench import Dims
from regbench.testing import assert_conforms
from regbench_wae import SWAE
from regbench_wae.swae import sliced_wasserstein

DIMS = Dims(latent=3, features=4, channels=1, side=8)
H_BF = torch.zeros(6, 4)


@pytest.mark.parametrize("options", [{"weight": 0.0}, {"projections": 3}])
def test_conforms(options: dict[str, float]) -> None:
    assert_conforms(SWAE, **options)


def test_term_is_the_squared_gap_of_sorted_projections() -> None:
    code_BD = 2 * torch.randn(6, 3) + 0.5
    torch.manual_seed(0)
    z_BD, terms = SWAE(SWAE.Options(weight=10, projections=4), DIMS)(code_BD, H_BF)
    assert torch.equal(z_BD, code_BD)
    torch.manual_seed(0)
    directions, drawn, total = torch.randn(4, 3).tolist(), torch.randn(6, 3).tolist(), 0.0
    for direction in directions:
        length = math.hypot(*direction)
        of_codes, of_draws = (
            sorted(sum(p * q for p, q in zip(point, direction, strict=True)) / length for point in points)
            for points in (code_BD.tolist(), drawn)
        )
        total += sum((p - q) ** 2 for p, q in zip(of_codes, of_draws, strict=True)) / 6
    assert terms["sliced_wasserstein"].item() == pytest.approx(10 * total / 4, rel=1e-5)


def test_a_shift_costs_its_squared_projections_and_an_order_nothing() -> None:
    x_BD, shift_D = torch.randn(40, 3).double(), torch.tensor([1.0, -2.0, 0.5]).double()
    directions_LD = torch.nn.functional.normalize(torch.randn(7, 3).double())
    moved_BD = (x_BD + shift_D)[torch.randperm(40)]
    expected = (directions_LD @ shift_D).square().mean()
    torch.testing.assert_close(sliced_wasserstein(x_BD, moved_BD, directions_LD), expected)
    assert sliced_wasserstein(x_BD, x_BD.flip(0), directions_LD) < 1e-20


def test_it_is_the_cheapest_matching_along_each_direction() -> None:
    x_BD, y_BD = torch.randn(9, 3).double() ** 3, torch.rand(9, 3).double() - 2
    directions_LD = torch.nn.functional.normalize(torch.randn(5, 3).double())
    costs = []
    for direction_D in directions_LD.numpy():
        cost_BB = np.subtract.outer(x_BD.numpy() @ direction_D, y_BD.numpy() @ direction_D) ** 2
        costs.append(cost_BB[linear_sum_assignment(cost_BB)].mean())
    assert sliced_wasserstein(x_BD, y_BD, directions_LD).item() == pytest.approx(np.mean(costs))


def test_gaussian_codes_cost_what_the_closed_form_says() -> None:
    # N(m, s^2 I) against N(0, I): |m|^2 / D + (s - 1)^2, whatever the dimension.
    method = SWAE(SWAE.Options(weight=1, projections=2000), Dims(latent=6, features=4, channels=1, side=8))
    torch.manual_seed(0)
    m_D = torch.tensor([2.0, -1.0, 0.0, 0.0, 1.0, 0.0])
    _, terms = method(m_D + 1.5 * torch.randn(1000, 6), torch.zeros(1000, 4))
    assert terms["sliced_wasserstein"].item() == pytest.approx(1 + 0.25, rel=0.06)


def test_each_code_is_drawn_to_the_draw_of_its_rank() -> None:
    code_BD = torch.tensor([[3.0], [-1.0], [0.5]], requires_grad=True)
    drawn_BD = torch.tensor([[0.2], [-0.4], [1.0]])
    sliced_wasserstein(code_BD, drawn_BD, torch.ones(1, 1)).backward()
    assert code_BD.grad is not None
    pairs_BD = torch.tensor([[1.0], [-0.4], [0.2]])
    torch.testing.assert_close(code_BD.grad, 2 / 3 * (code_BD.detach() - pairs_BD))


def test_half_precision_codes_are_compared_in_float32() -> None:
    code_BD, drawn_BD = torch.randn(64, 3).bfloat16(), torch.randn(64, 3)
    directions_LD = torch.nn.functional.normalize(torch.randn(5, 3))
    with torch.autocast("cpu", torch.bfloat16):
        found = sliced_wasserstein(code_BD, drawn_BD, directions_LD)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, sliced_wasserstein(code_BD.float(), drawn_BD, directions_LD))


def test_default_weight_is_the_notebooks_beside_a_pixel_mean() -> None:
    assert SWAE(SWAE.Options(), DIMS).weight == 10 * 64
    assert SWAE(SWAE.Options(weight=3), DIMS).weight == 3


def test_samples_are_standard_normal() -> None:
    z_ND = SWAE(SWAE.Options(), DIMS).sample(50_000)
    torch.testing.assert_close(z_ND.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(z_ND.T.cov(), torch.eye(3), atol=0.03, rtol=0)
