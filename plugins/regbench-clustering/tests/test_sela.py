"""SeLa's labels against the authors' iteration in numpy, and against linear programming; and its labels of digits.

Shape suffixes: N images, K clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from regbench.testing import assert_conforms
from regbench_clustering import SeLa
from regbench_clustering.sela import self_labels

if TYPE_CHECKING:
    from conftest import Make, Train


@pytest.mark.parametrize("options", [{}, {"clusters": 3, "flips": True, "labellings": 1}, {"clusters": 1}])
def test_conforms(options: dict[str, float]) -> None:
    assert_conforms(SeLa, **options)


@pytest.mark.parametrize("spread", [0.3, 1.0, 2.0])
def test_labels_are_those_of_the_authors_iteration(spread: float) -> None:
    """r and c as the paper's algorithm 1 scales them, with numbers that do not underflow."""
    log_p_NK = torch.log_softmax(spread * torch.randn(400, 6), 1)
    p_KN = log_p_NK.double().exp().numpy().T ** 25
    c_N, error, done = np.full(400, 1 / 400), 1.0, 0
    while error > 0.1:
        r_K = (1 / 6) / (p_KN @ c_N)
        before_N, c_N = c_N, (1 / 400) / (r_K @ p_KN)
        if done % 10 == 0:
            error = np.abs(before_N / c_N - 1).sum()
        done += 1
    assert done > 20
    expected_N = (r_K[:, None] * p_KN * c_N).argmax(0)
    assert self_labels(log_p_NK, 25.0).tolist() == expected_N.tolist()


def test_sharp_labels_are_the_optimal_balanced_assignment() -> None:
    log_p_NK = torch.log_softmax(3 * torch.randn(60, 4), 1)
    # Each cluster offers 15 places.
    images, places = linear_sum_assignment(-np.repeat(log_p_NK.numpy(), 15, axis=1))
    optimum = log_p_NK.numpy()[images, places // 15].sum()
    labels_N = self_labels(log_p_NK, 200.0)
    assert log_p_NK[torch.arange(60), labels_N].sum().item() == pytest.approx(optimum, rel=0.05)
    assert (torch.bincount(labels_N, minlength=4) - 15).abs().max() <= 2


def test_predictions_that_would_underflow_are_labelled_too() -> None:
    log_p_NK = torch.log_softmax(300 * torch.randn(100, 5), 1)
    assert (25 * log_p_NK).amin() < -10_000
    assert torch.bincount(self_labels(log_p_NK, 25.0), minlength=5).max() < 40


def test_a_label_that_nobody_predicts_gets_its_share() -> None:
    """Those images to which it is the least unlikely, though p^25 is 0 in float64 for all of them."""
    log_p_NK = torch.log_softmax(torch.stack([torch.zeros(90), torch.linspace(-50.0, -40.0, 90)], 1), 1)
    assert self_labels(log_p_NK, 25.0).tolist() == 45 * [0] + 45 * [1]


def test_each_image_gets_its_own_label(make: Make, digits: Tensor) -> None:
    model = make(SeLa, images=len(digits), weight=4.0, smallest_crop=1.0, shift=0.0)
    method = model.regularizer
    method.labels_N.copy_(torch.arange(len(digits)) % 10)
    model.index_B = torch.tensor([1700, 3, 3, 42])
    [update] = method.steps(model, digits[model.index_B])
    logits_BK = method.head(model.encode(digits[model.index_B])).double()
    expected = -sum(torch.log_softmax(row, 0)[k] for row, k in zip(logits_BK, [0, 3, 3, 2], strict=True)) / 4
    assert update.log["cross_entropy"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert update.loss.item() == pytest.approx(update.log["bce"].item() + 4 * expected.item(), rel=1e-5)


@pytest.mark.parametrize(
    ("labellings", "expected"), [(100, [1, 2, 3, 4]), (2, [1, 1, 2, 2]), (1, [1, 1, 1, 1])]
)
def test_labellings_are_spread_over_the_training(
    labellings: int, expected: list[int], make: Make, digits: Tensor
) -> None:
    model = make(SeLa, images=128, labellings=labellings)
    found = []
    for epoch in range(4):
        model.progress.fill_(max(0.0, epoch / 4))
        with torch.no_grad():
            model.regularizer.on_epoch_start(model, digits[:128].split(50))
        found.append(int(model.regularizer.labelled))
    assert found == expected


def test_labels_of_digits_are_balanced_and_learned(train: Train) -> None:
    trained = train(SeLa, epochs=10, warmup=2)
    rows, labels_N = trained.history, trained.model.regularizer.labels_N
    sizes_K = torch.bincount(labels_N, minlength=10) / len(labels_N)
    assert sizes_K.min() > 0.095
    assert sizes_K.max() < 0.105
    assert rows[-1]["log_max"]["label_mass_deviation"] == pytest.approx(
        (10 * sizes_K - 1).abs().max().item(), abs=1e-6
    )
    assert rows[-1]["log"]["label_agreement"] > 0.55 > 0.25 > rows[2]["log"]["label_agreement"]
