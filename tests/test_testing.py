"""What ``regbench.testing.train`` gives to the authors of methods: a real training, in small and the same each time."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor

from regbench import Field, Model, Options, Regularizer
from regbench.errors import UsageError
from regbench.testing import Trained, train


class Traced(Regularizer):
    """Counts its calls, and pulls codes to the origin."""

    name = "traced"

    class Options(Options):
        weight: float = Field(1.0, ge=0, description="factor of |z|^2")

    def build(self, dims: Any) -> None:
        self.register_buffer("calls_3", torch.zeros(3))

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"size": self.options.weight * code_BD.square().sum(dim=1).mean()}

    def on_regularization_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        self.calls_3[0] += 1

    def on_epoch_start(self, model: Model, batches: Iterable[Tensor]) -> None:
        self.calls_3[1] += 1

    def on_training_end(self, model: Model, batches: Iterable[Tensor]) -> None:
        self.calls_3[2] += sum(len(x_BCHW) for x_BCHW in batches)


@pytest.fixture(scope="module")
def trained() -> Trained:
    return train(Traced, {"weight": 2.0}, epochs=4, warmup=2, images=200)


def weights(trained: Trained) -> Tensor:
    return torch.cat([weight.detach().flatten() for weight in trained.model.parameters()])


def test_the_whole_training_is_made_and_recorded(trained: Trained) -> None:
    assert [(row["epoch"], row["phase"]) for row in trained.history] == [
        (1, "warmup"),
        (2, "warmup"),
        (3, "regularized"),
        (4, "regularized"),
    ]
    assert trained.model.regularizer.calls_3.tolist() == [1, 2, 200]
    sizes = trained.codes().square().sum(dim=1).mean().item()
    third, fourth = (row["log"]["size"] for row in trained.history[2:])
    assert 0 < 2 * sizes < fourth < third
    assert trained.history[1]["losses"]["warmup"] < trained.history[0]["losses"]["warmup"]


def test_images_are_scikit_learn_s_digits_in_their_order(trained: Trained) -> None:
    digits = load_digits()
    both_NCHW = torch.cat([trained.images_NCHW, trained.heldout_NCHW])
    assert (len(trained.images_NCHW), len(both_NCHW), trained.images_NCHW.dtype) == (200, 1797, torch.float32)
    np.testing.assert_allclose(both_NCHW[:, 0].numpy(), digits.images / 16, atol=0.5 / 255)
    assert trained.labels_N.tolist() == digits.target[:200].tolist()
    every = train(Traced, epochs=0, images=1797)
    assert (len(every.images_NCHW), len(every.labels_N), len(every.heldout_NCHW)) == (1797, 1797, 0)


def test_codes_are_of_the_training_images_unless_others_are_given(trained: Trained) -> None:
    with torch.no_grad():
        expected_ND = trained.model.encode(trained.images_NCHW)
        of_others_ND = trained.model.encode(trained.heldout_NCHW[:30])
    torch.testing.assert_close(trained.codes(), expected_ND)
    torch.testing.assert_close(trained.codes(trained.heldout_NCHW[:30]), of_others_ND)
    assert not trained.codes().requires_grad


def test_the_same_arguments_give_the_same_numbers_and_random_stream(trained: Trained) -> None:
    first = torch.randn(3)  # wherever the stream is now
    again = train(Traced, {"weight": 2.0}, epochs=4, warmup=2, images=200)
    drawn = torch.randn(3)
    assert torch.equal(weights(again), weights(trained))
    torch.randn(len(first))
    train(Traced, {"weight": 2.0}, epochs=4, warmup=2, images=200)
    assert torch.equal(torch.randn(3), drawn)
    other = train(Traced, {"weight": 2.0}, epochs=4, warmup=2, images=200, seed=4)
    assert not torch.equal(weights(other), weights(trained))


def test_options_net_and_schedule_are_those_asked_for() -> None:
    small = train(
        Traced,
        epochs=2,
        warmup=0,
        images=50,
        latent=3,
        features=7,
        widths=(4, 6),
        bottleneck_relu=False,
        batch_size=25,
        lr=1e-4,
    )
    assert small.model.regularizer.options.weight == 1.0
    assert small.model.regularizer.dims.images == 50
    h_BF = small.model.features(small.images_NCHW)[1]
    assert small.codes().shape == (50, 3)
    assert h_BF.shape == (50, 7)
    assert h_BF.min() < 0  # no ReLU
    assert [row["phase"] for row in small.history] == ["regularized"] * 2
    start = train(Traced, epochs=0, images=50, latent=3, features=7, widths=(4, 6), bottleneck_relu=False)
    # Adam's step is at most its rate: two epochs of two batches.
    assert 0 < (weights(small) - weights(start)).abs().max() < 4.5e-4


def test_with_no_epochs_the_model_is_as_it_starts() -> None:
    start = train(Traced, epochs=0)
    assert start.history == []
    assert start.model.regularizer.calls_3.tolist() == [0, 0, 0]
    assert torch.equal(weights(start), weights(train(Traced, epochs=0, warmup=0)))


def test_the_number_of_threads_is_as_before() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        train(Traced, epochs=1, warmup=0, images=64)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"images": 0}, "images = 0: expected 1 to 1,797"),
        ({"images": 1798}, "images = 1798: expected 1 to 1,797"),
        ({"epochs": -1}, "epochs = -1"),
        ({"epochs": 4, "warmup": 5}, "epochs = 4, warmup = 5: the training ends within the warm-up"),
        ({"images": 10}, "batch_size = 32, but there are only 10"),
    ],
)
def test_what_does_not_go_together_is_refused(wrong: dict[str, int], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        train(Traced, **{"epochs": 1, "warmup": 0, **wrong})
