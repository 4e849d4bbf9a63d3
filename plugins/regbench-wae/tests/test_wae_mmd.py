import math

import pytest
import torch
from scipy.special import exp1

from regbench import Dims
from regbench.regularizers import InfoVAEMMD
from regbench.testing import assert_conforms
from regbench_wae import WAEMMD

DIMS = Dims(latent=3, features=4, channels=1, side=8)
H_BF = torch.zeros(6, 4)
SCALES = (0.1, 0.2, 0.5, 1, 2, 5, 10)


@pytest.mark.parametrize("weight", [0.0, 400.0])
def test_conforms(weight: float) -> None:
    assert_conforms(WAEMMD, weight=weight)


def multiquadratic(a: list[float], b: list[float]) -> float:
    square = sum((p - q) ** 2 for p, q in zip(a, b, strict=True))
    return sum(6 * s / (6 * s + square) for s in SCALES)


def test_term_is_the_u_statistic_of_algorithm_2_pair_by_pair() -> None:
    code_BD = 2 * torch.randn(6, 3) + 0.5
    torch.manual_seed(0)
    _, terms = WAEMMD(WAEMMD.Options(weight=10), DIMS)(code_BD, H_BF)
    torch.manual_seed(0)
    drawn, codes, n = torch.randn(6, 3).tolist(), code_BD.tolist(), 6
    expected = 0.0
    for i in range(n):
        for j in range(n):
            if i != j:
                within = multiquadratic(drawn[i], drawn[j]) + multiquadratic(codes[i], codes[j])
                expected += within / (n * (n - 1))
            expected -= 2 * multiquadratic(drawn[i], codes[j]) / n**2
    assert terms["mmd"].item() == pytest.approx(10 * expected, rel=1e-4)


def test_codes_get_the_gradient_of_the_term() -> None:
    method = WAEMMD(WAEMMD.Options(), DIMS)

    def term(code_BD: torch.Tensor) -> torch.Tensor:
        torch.manual_seed(0)
        return method(code_BD, H_BF)[1]["mmd"]

    assert torch.autograd.gradcheck(term, torch.randn(6, 3).double().requires_grad_())


def test_it_is_infovae_mmd_with_a_deterministic_encoder_and_this_kernel() -> None:
    same = InfoVAEMMD(InfoVAEMMD.Options(weight=400, encoder="deterministic", kernel="imq"), DIMS)
    code_BD = torch.randn(6, 3)
    terms = []
    for method in (WAEMMD(WAEMMD.Options(), DIMS), same):
        torch.manual_seed(0)
        z_BD, found = method(code_BD, H_BF)
        assert torch.equal(z_BD, code_BD)
        terms.append(found["mmd"])
    assert torch.equal(*terms)


def test_codes_that_are_draws_of_the_prior_cost_nothing_on_average() -> None:
    torch.manual_seed(0)
    method = WAEMMD(WAEMMD.Options(weight=1), DIMS)
    costs = torch.stack([method(method.sample(32), H_BF)[1]["mmd"] for _ in range(400)])
    assert costs.mean().abs() < 4 * costs.std() / 20
    shifted = torch.stack([method(method.sample(32) + 1, H_BF)[1]["mmd"] for _ in range(400)])
    assert shifted.mean() > 20 * costs.std() / 20


def test_codes_that_all_sit_at_the_origin_cost_what_the_kernel_expects() -> None:
    # k(0, 0) + E k(y, y') - 2 E k(0, y), with |y|^2 ~ chi^2(2) and |y - y'|^2 / 2 likewise: E s / (s + q) is e^s E1(s).
    def expected(spread: float) -> float:
        return sum(s * math.exp(s) * exp1(s) for s in (4 * c / (2 * spread) for c in SCALES))

    method = WAEMMD(WAEMMD.Options(weight=1), Dims(latent=2, features=4, channels=1, side=8))
    torch.manual_seed(0)
    costs = torch.stack([method(torch.zeros(200, 2), torch.zeros(200, 4))[1]["mmd"] for _ in range(60)])
    closed = len(SCALES) + expected(2) - 2 * expected(1)
    assert costs.mean().item() == pytest.approx(closed, rel=0.02)


def test_samples_are_standard_normal() -> None:
    z_ND = WAEMMD(WAEMMD.Options(), DIMS).sample(50_000)
    torch.testing.assert_close(z_ND.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(z_ND.T.cov(), torch.eye(3), atol=0.03, rtol=0)
