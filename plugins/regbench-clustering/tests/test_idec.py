"""IDEC's assignments and targets against the paper's equations in float64, and what they do to digits.

Shape suffixes: N images, B batch, C channels, H height, W width, D latent units, K clusters.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from sklearn.cluster import KMeans
from torch import Tensor

from regbench.evaluation.clusters import cluster_scores
from regbench.testing import assert_conforms
from regbench_clustering import IDEC

if TYPE_CHECKING:
    from conftest import Make, Train

    from regbench.testing import Trained


@pytest.mark.parametrize(
    "options", [{}, {"clusters": 3, "weight": 20.0, "refresh_steps": 1}, {"clusters": 1}]
)
def test_conforms(options: dict[str, float]) -> None:
    assert_conforms(IDEC, **options)


def assignments(z_ND: torch.Tensor, centres_KD: torch.Tensor) -> NDArray[np.float64]:
    """q_NK, eq. 2, one number at a time."""
    z, centres = z_ND.detach().double().numpy(), centres_KD.detach().double().numpy()
    q_NK = np.array([[1 / (1 + ((a - c) ** 2).sum()) for c in centres] for a in z])
    return np.array([row / row.sum() for row in q_NK])


def targets(q_NK: NDArray[np.float64]) -> NDArray[np.float64]:
    """p_NK, eq. 4, one number at a time."""
    images, clusters = q_NK.shape
    frequency = [sum(q_NK[i, k] for i in range(images)) for k in range(clusters)]
    p_NK = np.array([[q_NK[i, k] ** 2 / frequency[k] for k in range(clusters)] for i in range(images)])
    return np.array([row / row.sum() for row in p_NK])


@pytest.mark.parametrize("scale", [0.1, 1.0, 30.0])
def test_assignments_are_the_papers(scale: float, make: Make) -> None:
    method = make(IDEC, clusters=4).regularizer
    z_BD = scale * torch.randn(20, 8)
    expected_BK = torch.from_numpy(assignments(z_BD, method.centres_KD))
    torch.testing.assert_close(method.log_assignments(z_BD).exp().double(), expected_BK, rtol=1e-4, atol=1e-6)


def test_targets_are_the_papers_over_all_images_and_each_image_gets_its_own(
    make: Make, digits: Tensor
) -> None:
    model = make(IDEC, images=len(digits), clusters=5, weight=7.0)
    method = model.regularizer
    with torch.no_grad():
        model.net.code.weight.mul_(100)  # codes of an untrained net all lie together
        method.on_regularization_start(model, digits.split(500))
        method.on_epoch_start(model, digits.split(500))
    z_ND = model.codes(digits.split(200))
    p_NK = targets(assignments(z_ND, method.centres_KD))
    torch.testing.assert_close(method.target_NK.double(), torch.from_numpy(p_NK), rtol=1e-3, atol=1e-6)

    with torch.no_grad():
        method.centres_KD.mul_(1.1)  # the assignments have moved since
    model.index_B = torch.tensor([1700, 3, 3, 42])
    x_BCHW = digits[model.index_B]
    [update] = method.steps(model, x_BCHW)
    q_BK, p_BK = assignments(model.encode(x_BCHW), method.centres_KD), p_NK[model.index_B]
    kl = sum(p * np.log(p / q) for p, q in zip(p_BK.ravel(), q_BK.ravel(), strict=True)) / 4
    assert update.log["kl"].item() == pytest.approx(kl, rel=1e-3)
    assert update.loss.item() == pytest.approx(update.log["bce"].item() + 7 * kl, rel=1e-5)


def test_the_gradient_is_the_papers_the_target_held_fixed(make: Make, digits: Tensor) -> None:
    """Eq. 6 and 7: dL/dz_i = 2 sum_k (p_ik - q_ik) (z_i - c_k) / (1 + |z_i - c_k|^2), and minus its sum for c_k."""
    model = make(IDEC, images=len(digits), clusters=4)
    method = model.regularizer
    with torch.no_grad():
        model.net.code.weight.mul_(100)
        method.on_epoch_start(model, digits.split(500))
    model.index_B = torch.arange(30)
    [update] = method.steps(model, digits[model.index_B])
    [found_KD] = torch.autograd.grad(update.log["kl"], [method.centres_KD], retain_graph=True)
    z_BD, c_KD = model.encode(digits[model.index_B]).detach().double(), method.centres_KD.detach().double()
    q_BK = torch.from_numpy(assignments(z_BD, c_KD))
    apart_BKD = z_BD[:, None] - c_KD
    pull_BK = (method.target_NK[:30].double() - q_BK) / (1 + apart_BKD.square().sum(2))
    expected_KD = -2 * (pull_BK[:, :, None] * apart_BKD).sum(0) / 30
    torch.testing.assert_close(found_KD.double(), expected_KD, rtol=1e-3, atol=1e-7)


def test_the_default_weight_goes_with_a_summed_reconstruction(make: Make) -> None:
    assert make(IDEC).regularizer.weight == pytest.approx(0.1 * 64)
    assert make(IDEC, weight=0.1).regularizer.weight == 0.1


@pytest.mark.parametrize(("refresh_steps", "refreshed"), [(1, [1, 2, 3, 4]), (4, [1, 2, 3, 4]), (5, [1, 3])])
def test_targets_are_refreshed_once_enough_steps_have_gone_by(
    refresh_steps: int, refreshed: list[int], make: Make, digits: Tensor
) -> None:
    model = make(IDEC, images=128, refresh_steps=refresh_steps)
    method, x_BCHW = model.regularizer, digits[:128]
    model.index_B, found = torch.arange(128), []
    for epoch in range(1, 5):
        before_NK = method.target_NK.clone()
        with torch.no_grad():
            method.centres_KD.add_(0.1)
            method.on_epoch_start(model, x_BCHW.split(50))
        if not torch.equal(method.target_NK, before_NK):
            found.append(epoch)
        for _ in range(4):
            list(method.steps(model, x_BCHW))
    assert found == refreshed


def test_centres_start_from_kmeans_on_all_codes(make: Make, digits: Tensor) -> None:
    model = make(IDEC, images=len(digits))
    with torch.no_grad():
        model.regularizer.on_regularization_start(model, digits.split(500))
    z_ND = model.codes(digits.split(500))
    squares_NK = torch.cdist(z_ND, model.regularizer.prototypes()).square()
    best = KMeans(10, n_init=20, random_state=3).fit(z_ND.numpy()).inertia_
    assert squares_NK.amin(1).sum().item() == pytest.approx(best, rel=0.02)


def scores(trained: Trained) -> dict[str, float]:
    found_N = trained.model.regularizer.assign(trained.codes())
    return cluster_scores(found_N.numpy(), trained.labels_N.numpy())


def test_digits_cluster_better_than_their_pixels_do(
    train: Train,
) -> None:
    net = {"latent": 64, "features": 128, "width": 32}
    trained = train(IDEC, weight=64.0, refresh_steps=28, epochs=30, warmup=15, **net)
    pixels_NP = trained.images_NCHW.flatten(1).numpy()
    by_pixels_N = KMeans(10, n_init=20, random_state=0).fit_predict(pixels_NP)
    of_pixels, ours = cluster_scores(by_pixels_N, trained.labels_N.numpy()), scores(trained)
    assert ours["accuracy"] > of_pixels["accuracy"] + 0.01
    assert ours["nmi"] > of_pixels["nmi"] + 0.02


def test_digits_cluster_better_than_by_kmeans_on_the_codes_it_starts_from(train: Train) -> None:
    """In a net of 8 latent units, too, where neither is as good as k-means on the pixels."""
    before, after = (train(IDEC, weight=64.0, epochs=epochs, warmup=8) for epochs in (8, 18))
    with torch.no_grad():
        before.model.regularizer.on_regularization_start(before.model, before.images_NCHW.split(500))
    assert scores(after)["nmi"] > scores(before)["nmi"] + 0.02
