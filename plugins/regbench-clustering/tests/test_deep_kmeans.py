"""Deep k-means' loss against a loop in float64, its annealing, and what it does to digits.

Shape suffixes: B batch, D latent units, K clusters.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from regbench.testing import assert_conforms
from regbench_clustering import DeepKMeans

if TYPE_CHECKING:
    from conftest import Make, Train


@pytest.mark.parametrize("options", [{}, {"temperature": "annealed", "clusters": 3}, {"clusters": 1}])
def test_conforms(options: dict[str, float | str]) -> None:
    assert_conforms(DeepKMeans, **options)


@pytest.mark.parametrize("progress", [0.0, 0.3, 0.999])
def test_the_loss_and_its_gradient_are_the_papers(progress: float, make: Make, digits: Tensor) -> None:
    model = make(DeepKMeans, clusters=4, weight=3.0, temperature="annealed")
    method = model.regularizer
    model.progress.fill_(progress)
    x_BCHW = digits[:16]
    [update] = method.steps(model, x_BCHW)
    inverse = update.log["inverse_temperature"].item()
    z_BD = model.encode(x_BCHW).detach().double()
    centres_KD = method.centres_KD.detach().double().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    for z_D in z_BD:
        squares = [(z_D - c_D).square().sum() for c_D in centres_KD]
        nearest = min(squares).detach()
        parts = [torch.exp(-inverse * (square - nearest)) for square in squares]
        total = total + sum(p * square for p, square in zip(parts, squares, strict=True)) / sum(parts) / 16
    assert update.log["distance"].item() == pytest.approx(total.item(), rel=1e-4)
    assert update.loss.item() == pytest.approx(update.log["bce"].item() + 3 * total.item(), rel=1e-5)
    [found_KD] = torch.autograd.grad(update.loss, [method.centres_KD], retain_graph=True)
    [expected_KD] = torch.autograd.grad(3 * total, [centres_KD])
    torch.testing.assert_close(found_KD.double(), expected_KD, rtol=1e-3, atol=1e-4)


def test_the_softmax_sharpens_in_the_authors_stages(make: Make) -> None:
    method = make(DeepKMeans, temperature="annealed").regularizer
    found = [method.inverse_temperature(torch.tensor((s + 0.5) / 40)).item() for s in range(40)]
    assert found[0] == pytest.approx(0.1)
    for n in range(1, 40):
        assert found[n] / found[n - 1] == pytest.approx(2 ** (1 / math.log(n + 1) ** 2), rel=1e-5)
    assert method.inverse_temperature(torch.tensor(1.0)).item() == pytest.approx(found[-1])


def test_after_pretraining_it_is_sharp_throughout(make: Make) -> None:
    method = make(DeepKMeans).regularizer
    assert {method.inverse_temperature(torch.tensor(p)).item() for p in (0.0, 0.5, 1.0)} == {1000.0}


def test_digits_gather_around_the_centres_while_the_softmax_sharpens(train: Train) -> None:
    left = {}
    for weight in (0.0, 1.0):
        trained = train(DeepKMeans, weight=weight, temperature="annealed", epochs=8, warmup=3)
        z_ND = trained.codes()
        inner = torch.cdist(z_ND, trained.model.regularizer.prototypes()).square().amin(1).mean()
        left[weight] = (inner / (z_ND - z_ND.mean(0)).square().sum(1).mean()).item()
        inverse = [row["log"]["inverse_temperature"] for row in trained.history[3:]]
        assert inverse == sorted(set(inverse))
    # The share of the codes' variance around the nearest centres.
    assert left[1.0] < 0.5 * left[0.0]
