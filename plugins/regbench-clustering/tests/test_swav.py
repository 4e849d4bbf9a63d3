"""SwAV's swapped prediction against a loop in float64, its queue, and its codes of digits.

Shape suffixes: B batch, C channels, H height, W width, D latent units, K clusters, Q queue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import torch
from torch import Tensor

from regbench.testing import assert_conforms
from regbench_clustering import SwAV

if TYPE_CHECKING:
    from conftest import Make, Train

WHOLE = {"smallest_crop": 1.0, "shift": 0.0}
"""Both views are the image."""


@pytest.mark.parametrize(
    "options", [{}, {"queue": 40, "queue_start": 0.0, "flips": True}, {"clusters": 1, "queue": 3840}]
)
def test_conforms(options: dict[str, float]) -> None:
    assert_conforms(SwAV, **options)


def codes(scores_BK: Tensor) -> Tensor:
    """Eq. 3 to 5, as the paper's listing scales them: three times columns (clusters), then rows (images)."""
    q_BK = torch.exp(scores_BK / 0.05)
    for _ in range(3):
        q_BK = q_BK / q_BK.sum(0, keepdim=True)
        q_BK = q_BK / q_BK.sum(1, keepdim=True)
    return q_BK


def cosines(z_BD: Tensor, v_KD: Tensor) -> Tensor:
    """Of directions of length 1, whose gradient knows nothing of that, as in the authors' code."""
    return torch.stack([torch.stack([(z @ v) / z.norm() for v in v_KD]) for z in z_BD])


def swapped(scores: list[Tensor], queued: list[Tensor] | None = None) -> Tensor:
    """Eq. 1 and 2, the mean over both views."""
    total = torch.zeros((), dtype=torch.float64)
    for this, other in ((0, 1), (1, 0)):
        together = scores[this] if queued is None else torch.cat([queued[this], scores[this]])
        q_BK = codes(together.detach())[-len(scores[this]) :]
        for q_K, row_K in zip(q_BK, scores[other] / 0.1, strict=True):
            total = total - (q_K * (row_K - row_K.exp().sum().log())).sum() / len(q_BK) / 2
    return total


@pytest.mark.parametrize("full", [False, True])
def test_the_loss_and_its_gradient_are_the_papers_codes_held_fixed(
    full: bool, make: Make, digits: Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make(SwAV, clusters=4, weight=3.0, queue=32)
    method, x_BCHW = model.regularizer, digits[:12]
    views = [digits[100:112], digits[200:212]]
    left = iter(views)
    monkeypatch.setattr(type(method.options), "view", lambda options, x: next(left))
    queue_VQD = torch.nn.functional.normalize(torch.randn(2, 32, 8), dim=2)
    method.queue_VQD.copy_(queue_VQD)
    method.queued.fill_(32 if full else 31)
    update = next(method.steps(model, x_BCHW))
    v_KD = method.head.weight.detach().double().requires_grad_()
    torch.testing.assert_close(v_KD.norm(dim=1), torch.ones(4, dtype=torch.float64))
    scores = [cosines(model.encode(view).detach().double(), v_KD) for view in views]
    expected = swapped(scores, [cosines(q.double(), v_KD) for q in queue_VQD] if full else None)
    assert update.log["swapped"].item() == pytest.approx(expected.item(), rel=1e-4)
    assert update.loss.item() == pytest.approx(update.log["bce"].item() + 3 * expected.item(), rel=1e-5)
    [found_KD] = torch.autograd.grad(update.log["swapped"], [method.head.weight])
    [exact_KD] = torch.autograd.grad(expected, [v_KD])
    torch.testing.assert_close(found_KD.double(), exact_KD, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("queue", [0, 16])
def test_directions_have_length_one_after_every_step(queue: int, train: Train) -> None:
    before_KD, after_KD = (
        train(SwAV, queue=queue, queue_start=0.0, epochs=epochs).model.regularizer.head.weight.detach()
        for epochs in (0, 2)
    )
    assert (after_KD - before_KD).norm() > 0.1
    torch.testing.assert_close(after_KD.norm(dim=1), torch.ones(10))


def test_the_queue_holds_the_latest_codes_of_each_view_newest_first(make: Make, digits: Tensor) -> None:
    model = make(SwAV, queue=20, queue_start=0.5, **WHOLE)
    method, seen = model.regularizer, []
    for step, progress in enumerate((0.0, 0.4, 0.6, 0.9)):
        model.progress.fill_(progress)
        x_BCHW = digits[8 * step : 8 * step + 8]
        list(method.steps(model, x_BCHW))
        seen.append(torch.nn.functional.normalize(model.encode(x_BCHW).detach()))
        assert method.queued.item() == (0, 0, 8, 16)[step]
    expected_QD = torch.cat(seen[::-1])[:20]
    for queue_QD in method.queue_VQD:
        torch.testing.assert_close(queue_QD, expected_QD, rtol=1e-3, atol=1e-4)


def test_codes_of_digits_are_balanced_and_agree_between_views(
    train: Train,
) -> None:
    trained = train(SwAV, latent=32, epochs=14, warmup=2)
    rows, codes_ND = trained.history[2:], trained.codes()
    assigned_N = trained.model.regularizer.assign(codes_ND)
    sizes_K = torch.bincount(assigned_N, minlength=10) / len(codes_ND)
    # Codes that tell nothing leave the swapped prediction at log 10 = 2.30.
    assert rows[-1]["log"]["swapped"] < 2.0
    in_use = torch.special.entr(sizes_K).sum().exp()
    assert in_use > 7.5
