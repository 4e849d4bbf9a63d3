"""OT clustering's cost and gradient against optimal transport in float64, and what it does to digits.

Shape suffixes: B batch, D latent units, K clusters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from regbench.testing import assert_conforms
from regbench_clustering import DeepKMeans, OTClustering

if TYPE_CHECKING:
    from conftest import Make, Train


@pytest.mark.parametrize("options", [{}, {"clusters": 3, "epsilon": 0.01}, {"clusters": 50, "epsilon": 50.0}])
def test_conforms(options: dict[str, float]) -> None:
    assert_conforms(OTClustering, **options)


def transport_cost(z_BD: Tensor, centres_KD: Tensor, epsilon: float) -> Tensor:
    """<P, |z - c|^2>, P minimising that + epsilon KL(P || 1/B 1/K): by iterating the dual potentials."""
    squares_BK = (z_BD[:, None] - centres_KD).square().sum(2)
    batch, clusters = squares_BK.shape
    g_K = torch.zeros(clusters, dtype=torch.float64)
    for _ in range(3000):
        f_B = -epsilon * (torch.logsumexp((g_K - squares_BK) / epsilon, 1) - math.log(clusters))
        g_K = -epsilon * (torch.logsumexp((f_B[:, None] - squares_BK) / epsilon, 0) - math.log(batch))
    plan_BK = torch.exp((f_B[:, None] + g_K - squares_BK) / epsilon) / (batch * clusters)
    return (plan_BK * squares_BK).sum()


@pytest.mark.parametrize("epsilon", [2.0, 5.0, 50.0])
def test_cost_and_gradient_are_those_of_optimal_transport_plan_included(
    epsilon: float, make: Make, digits: Tensor
) -> None:
    """The oracle differentiates through all of its iterations."""
    model = make(OTClustering, clusters=4, epsilon=epsilon, weight=2.0, iterations=2000)
    method, x_BCHW = model.regularizer, digits[:24]
    with torch.no_grad():
        method.centres_KD.mul_(3)
    z_BD = (20 * model.encode(x_BCHW)).detach().requires_grad_()
    model.encode = lambda x_BCHW: z_BD  # type: ignore[method-assign]
    [update] = method.steps(model, x_BCHW)
    exact_BD = z_BD.detach().double().requires_grad_()
    centres_KD = method.centres_KD.detach().double().requires_grad_()
    cost = transport_cost(exact_BD, centres_KD, epsilon)
    assert update.log["transport_cost"].item() == pytest.approx(cost.item(), rel=1e-4)
    bce = update.log["bce"]
    assert update.loss.item() == pytest.approx(bce.item() + 2 * cost.item(), rel=1e-4)
    found = torch.autograd.grad(update.loss - bce, [z_BD, method.centres_KD])
    for ours, exact in zip(found, torch.autograd.grad(2 * cost, [exact_BD, centres_KD]), strict=True):
        torch.testing.assert_close(ours.double(), exact, rtol=1e-3, atol=1e-4 * exact.abs().max().item())


def test_where_any_sizes_do_the_gradient_is_that_of_deep_kmeans(make: Make, digits: Tensor) -> None:
    """The paper generalises it: with codes to which the constraint is no constraint, the losses are one."""
    ours, theirs = (
        make(cls, clusters=2, **options)
        for cls, options in (
            (OTClustering, {"epsilon": 2.0, "iterations": 2000}),
            (DeepKMeans, {"temperature": "annealed"}),
        )
    )
    theirs.regularizer.inverse_temperature_S.fill_(1 / 2.0)
    z_BD = torch.randn(12, 8)
    z_BD = torch.cat([z_BD, -z_BD])  # mirrored, as are the centres: softmax assigns equal masses already
    losses = {}
    for model in (ours, theirs):
        method = model.regularizer
        with torch.no_grad():
            method.centres_KD.copy_(torch.stack([torch.ones(8), -torch.ones(8)]) / 2)
        code_BD = z_BD.clone().requires_grad_()
        model.encode = lambda x_BCHW, code_BD=code_BD: code_BD
        [update] = method.steps(model, digits[:24])
        term = update.loss - update.log["bce"]
        losses[model] = (term, *torch.autograd.grad(term, [code_BD, method.centres_KD]))
    for one, other in zip(losses[ours], losses[theirs], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_every_centre_receives_the_same_mass_whatever_the_codes(make: Make, digits: Tensor) -> None:
    model = make(OTClustering, clusters=7)
    with torch.no_grad():
        model.regularizer.centres_KD[1:] += 100.0  # plain k-means would leave all but one empty
    [update] = model.regularizer.steps(model, digits[:64])
    assert update.log_max["cluster_mass_deviation"].item() < 1e-4


def test_too_few_iterations_for_equal_sizes_are_warned_of(train: Train) -> None:
    few, enough = train(OTClustering, epsilon=0.1, iterations=2, epochs=3), train(OTClustering, epochs=3)
    [found] = few.model.regularizer.warnings(few.history)
    assert "in 2 of 2 regularized epochs, at 2 Sinkhorn iterations" in found
    assert enough.model.regularizer.warnings(enough.history) == []


def test_clusters_of_digits_are_nearer_equal_size_than_without_the_constraint(
    train: Train,
) -> None:
    sizes_K = {}
    for method in (OTClustering, DeepKMeans):
        trained = train(method, weight=3.0, epochs=9, warmup=3)
        if method is OTClustering:
            assert max(row["log_max"]["cluster_mass_deviation"] for row in trained.history[3:]) < 0.05
        assigned_N = trained.model.regularizer.assign(trained.codes())
        sizes_K[method] = torch.bincount(assigned_N, minlength=10).double()
    assert sizes_K[OTClustering].std() < 0.7 * sizes_K[DeepKMeans].std()
