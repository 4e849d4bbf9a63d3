from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import linear_sum_assignment

from regbench import ops
from regbench.conformance.bench import HostSyncFinder
from regbench.ops import transport
from tests.ops import oracles


def _scores(seed: int, batch: int, count: int, spread: float = 1.0) -> torch.Tensor:
    return spread * torch.randn(batch, count, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None, max_examples=40)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 20),
    st.integers(1, 12),
    st.floats(0.1, 6),
    st.integers(1, 50),
)
def test_codes_are_those_of_a_float64_reference(
    seed: int, batch: int, count: int, spread: float, iterations: int
) -> None:
    scores = _scores(seed, batch, count, spread)
    codes = ops.sinkhorn(scores, epsilon=0.05, iterations=iterations)
    expected = oracles.sinkhorn(scores.numpy(), 0.05, iterations)
    assert codes.dtype == torch.float32
    np.testing.assert_allclose(codes.numpy(), expected, atol=2e-3)
    np.testing.assert_allclose(codes.sum(1).numpy(), 1, atol=1e-5)
    deviation = np.abs(expected.sum(0) * count / batch - 1).max()
    assert ops.prototype_mass_deviation(codes).item() == pytest.approx(deviation, abs=5e-3 * count)


@pytest.mark.parametrize(("batch", "count"), [(256, 10), (64, 50), (5, 12)])
def test_both_marginals_hold_after_enough_iterations(batch: int, count: int) -> None:
    codes = ops.sinkhorn(_scores(1, batch, count, 0.3), epsilon=0.05, iterations=500)
    np.testing.assert_allclose(codes.sum(1).numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(codes.sum(0).numpy(), batch / count, rtol=1e-3)
    assert ops.prototype_mass_deviation(codes) < 1e-3


def test_codes_prefer_similar_pairs() -> None:
    scores = torch.eye(4).repeat(3, 1)
    codes = ops.sinkhorn(scores, epsilon=0.05, iterations=3)
    assert torch.equal(codes.argmax(1), scores.argmax(1))
    assert codes.max(1).values.min() > 0.99


def test_small_epsilon_gives_the_optimal_matching() -> None:
    scores = _scores(3, 8, 8)
    _, best = linear_sum_assignment(scores.numpy(), maximize=True)
    codes = ops.sinkhorn(scores, epsilon=0.01, iterations=2000)
    assert codes.argmax(1).tolist() == best.tolist()


def test_one_prototype_takes_all() -> None:
    codes = ops.sinkhorn(_scores(0, 7, 1, 50.0))
    assert torch.equal(codes, torch.ones(7, 1))
    assert ops.prototype_mass_deviation(codes) == 0


def test_scores_beyond_the_range_of_exp_stay_finite() -> None:
    codes = ops.sinkhorn(_scores(0, 32, 5, 300.0), epsilon=0.01, iterations=200)
    assert codes.isfinite().all()
    torch.testing.assert_close(codes.sum(1), torch.ones(32))


def test_no_gradient_flows() -> None:
    assert not ops.sinkhorn(_scores(0, 6, 3).requires_grad_()).requires_grad


@settings(deadline=None, max_examples=12)
@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(1, 12), st.floats(0.05, 0.6))
def test_equipartition_is_the_optimum_that_long_plain_iterations_reach(
    seed: int, batch: int, count: int, spread: float
) -> None:
    scores = _scores(seed, batch, count, spread)
    codes, moved = ops.equipartition(scores)
    expected = oracles.sinkhorn(scores.numpy(), 0.05, 2000)
    assert moved < 0.05
    np.testing.assert_allclose(codes.numpy(), expected, atol=0.03 + 2 * moved.item())


@settings(deadline=None, max_examples=30)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 60),
    st.floats(0, 1000),
    st.integers(1, 200),
    st.floats(0.01, 1),
)
def test_equipartition_holds_both_marginals_whatever_the_scores(
    seed: int, batch: int, count: int, spread: float, iterations: int, epsilon: float
) -> None:
    codes, moved = ops.equipartition(
        _scores(seed, batch, count, spread), epsilon=epsilon, iterations=iterations
    )
    assert codes.min() >= 0
    np.testing.assert_allclose(codes.sum(1).numpy(), 1, atol=1e-5)
    np.testing.assert_allclose(codes.sum(0).numpy(), batch / count, rtol=1e-4, atol=1e-6)
    assert 0 <= moved <= 1


@settings(deadline=None, max_examples=25)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 40),
    st.integers(1, 12),
    st.sampled_from([0.1, 2.0, 30.0, 1000.0]),
    st.integers(1, 60),
    st.sampled_from([0.05, 1.0]),
)
def test_equipartition_is_the_float64_loop_on_a_cpu_and_elsewhere(
    seed: int, batch: int, count: int, spread: float, iterations: int, epsilon: float
) -> None:
    scores = _scores(seed, batch, count, spread)
    expected, share = oracles.equipartition(scores.numpy(), epsilon, iterations)
    # Scores are rounded to float32 before they are divided by epsilon, several times over.
    tolerance = 1e-4 + 100 * 2**-24 * spread / epsilon
    found = ops.equipartition(scores, epsilon=epsilon, iterations=iterations)
    with HostSyncFinder() as finder:
        potentials = transport._potentials(scores, epsilon, iterations)
        elsewhere = transport._rounded(torch.softmax((scores + potentials) / epsilon, dim=1))
    assert finder.found == []
    for codes, moved in (found, elsewhere):
        np.testing.assert_allclose(codes.numpy(), expected, atol=tolerance)
        assert moved.item() == pytest.approx(share, abs=tolerance)


@pytest.mark.parametrize("spread", [0.5, 2.0, 6.0, 60.0])
@pytest.mark.parametrize("count", [10, 50])
def test_equipartition_reaches_the_best_transport_at_its_default_iterations(
    spread: float, count: int
) -> None:
    """The value of the linear programme, solved by copies of the prototypes, is out of reach by epsilon log K only."""
    batch = 4 * count
    scores = _scores(5, batch, count, spread)
    codes, moved = ops.equipartition(scores)
    copies = np.repeat(scores.double().numpy(), 4, axis=1)
    rows, columns = linear_sum_assignment(copies, maximize=True)
    best = copies[rows, columns].sum()
    found = (codes.double() * scores.double()).sum().item()
    assert found <= best + 1e-3 * abs(best)
    assert best - found <= batch * 0.05 * np.log(count) + 0.01 * best
    assert moved < 0.02


def test_rounding_moves_what_the_iterations_left_over() -> None:
    scores = _scores(2, 64, 8, 6.0)
    shares = [ops.equipartition(scores, iterations=n)[1].item() for n in (1, 20, 200, 2000)]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] > 0.05
    assert shares[-1] < 0.002


def test_mass_deviation_is_relative() -> None:
    codes = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]])
    assert ops.prototype_mass_deviation(codes) == pytest.approx(0.5)


@pytest.mark.parametrize(
    ("scores", "options", "named"),
    [
        (torch.zeros(3), {}, "shape"),
        (torch.zeros(3, 2), {"epsilon": 0.0}, "epsilon"),
        (torch.zeros(3, 2), {"iterations": 0}, "iterations"),
    ],
)
def test_wrong_arguments_are_named(scores: torch.Tensor, options: dict[str, float], named: str) -> None:
    for function in (ops.sinkhorn, ops.equipartition):
        with pytest.raises(ValueError, match=named):
            function(scores, **options)  # type: ignore[operator]
