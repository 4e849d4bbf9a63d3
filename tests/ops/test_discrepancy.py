from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist, pdist

from regbench import ops
from tests.ops import oracles


def _normal(seed: int, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _kernels(dim: int) -> dict[str, tuple[ops.Kernel, object]]:
    """Each kernel, and the same as a function of two points."""
    return {
        "default": (ops.GaussianKernel(), partial(oracles.gaussian, variance=dim)),
        "narrow": (ops.GaussianKernel(0.7), partial(oracles.gaussian, variance=0.49)),
        "imq": (ops.InverseMultiquadraticKernel(), oracles.multiquadratic),
    }


KERNELS = ["default", "narrow", "imq"]


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9), st.integers(1, 6))
def test_squared_distances_are_scipys(seed: int, n: int, m: int, dim: int) -> None:
    x, y = _normal(seed, n, dim), _normal(seed + 1, m, dim) + 50
    found = ops.squared_distances(x.float() + 50, y.float())
    np.testing.assert_allclose(found.numpy(), cdist(x + 50, y, "sqeuclidean"), rtol=1e-3, atol=1e-3)
    within = ops.squared_distances(x.float())
    np.testing.assert_allclose(within.numpy(), cdist(x, x, "sqeuclidean"), rtol=1e-4, atol=1e-5)
    assert (within.diagonal() == 0).all()


def test_squared_distances_are_never_negative() -> None:
    x = (1000 + 1e-4 * _normal(0, 64, 32)).float()
    assert ops.squared_distances(x, x.clone()).min() >= 0


@pytest.mark.parametrize("biased", [False, True])
@pytest.mark.parametrize("name", KERNELS)
@pytest.mark.parametrize("seed", range(4))
def test_mmd_is_the_loop(seed: int, name: str, biased: bool) -> None:
    n, m, dim = [(2, 2, 1), (5, 3, 4), (4, 7, 3), (6, 6, 9)][seed]
    x, y = _normal(seed, n, dim), 1.5 * _normal(seed + 100, m, dim) + 0.3
    kernel, k = _kernels(dim)[name]
    expected = oracles.mmd(x, y, k, biased=biased)
    torch.testing.assert_close(ops.mmd(x, y, kernel, biased=biased), expected, rtol=1e-10, atol=1e-12)
    single = ops.mmd(x.float(), y.float(), kernel, biased=biased)
    torch.testing.assert_close(single.double(), expected, rtol=1e-4, atol=1e-5)


def test_unbiased_mmd_of_equal_distributions_has_mean_zero_and_the_biased_one_has_not() -> None:
    draws = [(_normal(seed, 6, 4), _normal(seed + 10_000, 6, 4)) for seed in range(800)]
    unbiased = torch.stack([ops.mmd(x, y) for x, y in draws])
    biased = torch.stack([ops.mmd(x, y, biased=True) for x, y in draws])
    error = unbiased.std() / len(draws) ** 0.5
    assert unbiased.mean().abs() < 4 * error
    assert biased.min() >= 0
    assert biased.mean() > 10 * error


@pytest.mark.parametrize(
    ("shapes", "biased", "named"),
    [
        (((4, 3), (4, 2)), False, "shapes"),
        (((1, 3), (4, 3)), False, "at least 2"),
        (((0, 3), (4, 3)), True, "1"),
    ],
)
def test_unfit_samples_are_named(shapes: tuple[tuple[int, int], ...], biased: bool, named: str) -> None:
    x, y = (torch.zeros(shape) for shape in shapes)
    with pytest.raises(ValueError, match=named):
        ops.mmd(x, y, biased=biased)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**32 - 1),
    assignments=st.lists(st.integers(0, 4), min_size=1, max_size=12),
    dim=st.integers(1, 5),
    biased=st.booleans(),
    name=st.sampled_from(KERNELS),
)
def test_per_prototype_mmd_and_its_gradient_are_the_loops(
    seed: int, assignments: list[int], dim: int, biased: bool, name: str
) -> None:
    # Five prototypes and few codes: clusters of 0 and of 1 occur all the time.
    z, v = _normal(seed, len(assignments), dim).requires_grad_(), _normal(seed + 1, 5, dim)
    noise = _normal(seed + 2, len(assignments), dim)
    kernel, k = _kernels(dim)[name]
    expected = oracles.per_prototype_mmd(z, v, assignments, noise, k, biased=biased)
    gradient = torch.zeros_like(z) if not expected.requires_grad else torch.autograd.grad(expected, z)[0]

    for dtype, tolerance in ((torch.float64, 1e-10), (torch.float32, 3e-4)):
        codes = z.detach().to(dtype).requires_grad_()
        found = ops.per_prototype_mmd(
            codes, v.to(dtype), torch.tensor(assignments), kernel, biased=biased, noise_BD=noise.to(dtype)
        )
        assert found.dtype == dtype
        assert found.shape == ()
        torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)
        found_gradient = torch.autograd.grad(found, codes)[0]
        torch.testing.assert_close(found_gradient.double(), gradient, rtol=tolerance, atol=tolerance)


def test_per_prototype_mmd_at_the_reference_size() -> None:
    batch, count, dim = 128, 10, 256
    z, v, noise = _normal(0, batch, dim), 0.8 * _normal(1, count, dim), _normal(2, batch, dim)
    assignments = torch.randint(count, (batch,), generator=torch.Generator().manual_seed(3))
    expected = torch.zeros((), dtype=torch.float64)
    for prototype in range(count):
        members = (assignments == prototype).nonzero().flatten()
        y = v[prototype] + noise[members]
        n = len(members)

        def k(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
            return torch.from_numpy(np.exp(-cdist(a, b, "sqeuclidean") / (2 * dim)))

        within = (k(z[members], z[members]).sum() - n + k(y, y).sum() - n) / (n * (n - 1))
        expected += within - 2 * k(z[members], y).mean()
    found = ops.per_prototype_mmd(z.float(), v.float(), assignments, noise_BD=noise.float())
    assert found.item() == pytest.approx(expected.item(), abs=1e-5)


def test_clusters_below_two_contribute_nothing_and_get_no_gradient() -> None:
    z = _normal(0, 3, 4).requires_grad_()
    for biased in (False, True):
        for closed_form in (False, True):
            loss = ops.per_prototype_mmd(
                z, _normal(1, 5, 4), torch.tensor([0, 2, 4]), biased=biased, closed_form=closed_form
            )
            assert loss == 0
            assert (torch.autograd.grad(loss, z)[0] == 0).all()


@pytest.mark.parametrize("closed_form", [False, True])
def test_prototypes_are_constants(closed_form: bool) -> None:
    z, v = _normal(0, 6, 3).requires_grad_(), _normal(1, 2, 3).requires_grad_()
    loss = ops.per_prototype_mmd(z, v, torch.tensor([0, 0, 0, 1, 1, 1]), closed_form=closed_form)
    for_z, for_v = torch.autograd.grad(loss, [z, v], allow_unused=True)
    assert for_z.abs().max() > 0
    assert for_v is None


@pytest.mark.parametrize("bandwidth", [None, 0.8, "median"])
def test_closed_form_is_the_mean_over_draws(bandwidth: float | None) -> None:
    z, v = _normal(0, 7, 3), _normal(1, 3, 3)
    assignments = torch.tensor([0, 0, 0, 1, 1, 2, 0])
    kernel = ops.GaussianKernel(bandwidth)
    if bandwidth == "median":
        # The median heuristic sees the codes alone here, and codes and draws in the estimate below.
        kernel = ops.GaussianKernel(float(np.sqrt(0.5 * np.median(pdist(z, "sqeuclidean")))))
    exact = ops.per_prototype_mmd(z, v, assignments, kernel, closed_form=True)
    # Copies of the clusters with prototypes of their own: each call sums that many independent draws.
    copies = 40
    many = z.repeat(copies, 1), v.repeat(copies, 1)
    own = (assignments + len(v) * torch.arange(copies)[:, None]).flatten()
    torch.manual_seed(0)
    draws = torch.stack([ops.per_prototype_mmd(*many, own, kernel) / copies for _ in range(100)])
    error = draws.std() / len(draws) ** 0.5
    assert (draws.mean() - exact).abs() < 4 * error
    assert error < 0.02


def test_closed_form_expectations_match_numerical_integration() -> None:
    rng = np.random.default_rng(0)
    y, y2 = rng.standard_normal((2, 400_000, 3))
    z = np.array([0.5, -1.0, 2.0])
    variance = torch.tensor(1.7, dtype=torch.float64)
    k_zy = np.exp(-((z - y) ** 2).sum(1) / 3.4)
    k_yy = np.exp(-((y - y2) ** 2).sum(1) / 3.4)
    square = torch.tensor([(z**2).sum()])
    assert ops.GaussianKernel.expected(square, variance, 3).item() == pytest.approx(k_zy.mean(), rel=0.01)
    assert ops.GaussianKernel.expected_within(variance, 3).item() == pytest.approx(k_yy.mean(), rel=0.01)


def test_biased_closed_form_differs_by_the_pairs_of_codes_alone() -> None:
    z, v, assignments = _normal(0, 6, 3), _normal(1, 2, 3), torch.tensor([0, 0, 0, 1, 1, 1])
    k_BB = torch.exp(-ops.squared_distances(z) / 6)
    difference = sum(block.mean() - (block.sum() - 3) / 6 for block in (k_BB[:3, :3], k_BB[3:, 3:]))
    exact, biased = (
        ops.per_prototype_mmd(z, v, assignments, closed_form=True, biased=biased) for biased in (False, True)
    )
    torch.testing.assert_close(biased - exact, torch.as_tensor(difference))


@pytest.mark.parametrize("biased", [False, True])
def test_mmd_to_the_standard_normal_is_the_mmd_to_its_draws(biased: bool) -> None:
    z = 2 * _normal(0, 8, 3)
    torch.manual_seed(5)
    found = ops.mmd_to_standard_normal(z, biased=biased)
    torch.manual_seed(5)
    expected = ops.mmd(z, torch.randn_like(z), biased=biased)
    torch.testing.assert_close(found, expected)


def test_mmd_to_the_standard_normal_has_its_minimum_there() -> None:
    torch.manual_seed(0)
    scales = torch.linspace(0.6, 1.4, 9).tolist()
    losses = [
        torch.stack([ops.mmd_to_standard_normal(s * _normal(i, 200, 4), closed_form=True) for i in range(10)])
        for s in scales
    ]
    best = int(torch.stack([loss.mean() for loss in losses]).argmin())
    assert scales[best] == pytest.approx(1.0, abs=0.11)
    assert ops.mmd_to_standard_normal(_normal(0, 1, 4)) == 0


@pytest.mark.parametrize("count", [2, 3, 8, 9])
def test_median_heuristic_is_the_median_of_pairwise_distances(count: int) -> None:
    x = _normal(count, count, 4)
    squares = np.sort(pdist(x, "sqeuclidean"))
    # The lower of the two middle values where the number of pairs is even.
    median = squares[(len(squares) - 1) // 2]
    found = ops.GaussianKernel("median").variance(ops.squared_distances(x), 4)
    assert 2 * found.item() == pytest.approx(median)


def test_median_heuristic_is_constant_to_the_gradient_and_survives_collapse() -> None:
    kernel = ops.GaussianKernel("median")
    collapsed = torch.ones(6, 3, requires_grad=True)
    k = kernel(ops.squared_distances(collapsed), 3)
    assert (k == 1).all()
    assert torch.autograd.grad(k.sum(), collapsed)[0].isfinite().all()
    x = _normal(0, 6, 3).requires_grad_()
    assert not kernel.variance(ops.squared_distances(x), 3).requires_grad
    assert ops.mmd_to_standard_normal(x, kernel).isfinite()


@pytest.mark.parametrize(
    ("arguments", "options", "named"),
    [
        (("laplace",), {}, "unknown"),
        (("gaussian", -1.0), {}, "positive"),
        (("gaussian", float("inf")), {}, "positive"),
        (("gaussian", "mean"), {}, "median"),
        (("imq", 2.0), {}, "bandwidth"),
        (("imq",), {"closed_form": True}, "closed form"),
    ],
)
def test_unknown_kernels_are_refused(
    arguments: tuple[object, ...], options: dict[str, bool], named: str
) -> None:
    with pytest.raises(ValueError, match=named):
        ops.kernel(*arguments, **options)  # type: ignore[arg-type]


def test_closed_form_of_another_kernel_is_refused() -> None:
    with pytest.raises(ValueError, match="closed_form"):
        ops.mmd_to_standard_normal(torch.zeros(4, 2), ops.kernel("imq"), closed_form=True)


def test_gradcheck() -> None:
    z, v, noise = _normal(0, 5, 3).requires_grad_(), _normal(1, 2, 3), _normal(2, 5, 3)
    c = torch.tensor([0, 1, 0, 1, 1])
    loss = partial(ops.per_prototype_mmd, prototypes_KD=v, assignments_B=c, noise_BD=noise)
    assert torch.autograd.gradcheck(loss, [z])
    assert torch.autograd.gradgradcheck(ops.matmul, [_normal(0, 2, 3).requires_grad_(), _normal(1, 3, 2)])
