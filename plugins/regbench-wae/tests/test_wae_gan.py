from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from regbench import AdamOptions, Dims, Model
from regbench.conformance.bench import Bench, Plain, differing
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.testing import assert_conforms
from regbench_wae import WAEGAN

SHAPE = NetShape(channels=1, side=8, latent=3, features=8, widths=(4,))
SMALL = {"adversary_layers": 2, "adversary_width": 8}


def make(**options: Any) -> Model:
    model = build_model(SHAPE, WAEGAN, {**SMALL, **options}, seed=0)
    with torch.no_grad():
        # Out of its small initialisation, so that the logits differ.
        for parameter in model.regularizer.adversary.parameters():
            parameter.add_(0.5 * torch.randn_like(parameter))
    return model


@pytest.fixture
def x_BCHW() -> Tensor:
    return torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    "options", [SMALL, {**SMALL, "weight": 0.0}, {"adversary_layers": 1, "adversary_width": 32}]
)
def test_conforms(options: dict[str, Any]) -> None:
    assert_conforms(WAEGAN, **options)


def test_weight_zero_at_the_suites_beta1_trains_the_plain_autoencoder() -> None:
    bench = Bench(WAEGAN, {"weight": 0.0, "beta1": 0.9, **SMALL}, torch.device("cpu"))
    assert differing(bench.trained(), bench.trained(Plain)) == []


def test_both_adams_have_the_authors_beta1_after_the_warmup() -> None:
    trainer = Bench(WAEGAN, SMALL, torch.device("cpu")).trained()
    adams = trainer.stepper.optimizers
    settings = {
        name: (adam.param_groups[0]["lr"], adam.param_groups[0]["betas"]) for name, adam in adams.items()
    }
    assert settings == {"autoencoder": (1e-3, (0.5, 0.999)), "adversary": (5e-4, (0.5, 0.999))}


def test_warns_where_the_adversary_has_won_at_the_end() -> None:
    method = WAEGAN(WAEGAN.Options(**SMALL), Dims(latent=3, features=8, channels=1, side=8))
    warmup, won, even = (
        {"log": log} for log in ({}, {"adversary_accuracy": 0.993}, {"adversary_accuracy": 0.6})
    )
    (warning,) = method.warnings([warmup, even, won])
    assert "99%" in warning
    assert method.warnings([warmup, won, even]) == []
    assert method.warnings([warmup]) == []


def adversary(model: Model, z_BD: Tensor) -> np.ndarray:
    """Its logits in float64, layer by layer."""
    layers = [layer for layer in model.regularizer.adversary if isinstance(layer, torch.nn.Linear)]
    h = z_BD.detach().double().numpy()
    for number, layer in enumerate(layers):
        h = h @ layer.weight.detach().double().numpy().T + layer.bias.detach().double().numpy()
        h = h if number == len(layers) - 1 else np.maximum(h, 0)
    return h[:, 0]


def cross_entropy(logits: np.ndarray, label: int) -> float:
    p = 1 / (1 + np.exp(-logits))
    return float(-np.log(p if label else 1 - p).mean())


def test_both_losses_are_the_papers_at_the_weights_of_the_moment(x_BCHW: Tensor) -> None:
    model = make(weight=10)
    steps = model.regularizer.steps(model, x_BCHW)
    first = next(steps)
    z_BD = model.encode(x_BCHW)
    bce = model.reconstruction_loss(z_BD, x_BCHW).item()
    fooling = 10 * cross_entropy(adversary(model, z_BD), 1)
    assert first.loss.item() == pytest.approx(bce + fooling, rel=1e-5)
    assert first.log["fooling"].item() == pytest.approx(fooling, rel=1e-5)

    with torch.no_grad():
        model.net.code.weight.add_(torch.randn_like(model.net.code.weight))
    torch.manual_seed(0)
    second = next(steps)
    torch.manual_seed(0)
    drawn_B = adversary(model, torch.randn(6, 3))
    coded_B = adversary(model, model.encode(x_BCHW))
    assert second.loss.item() == pytest.approx(
        cross_entropy(drawn_B, 1) + cross_entropy(coded_B, 0), rel=1e-5
    )
    told = ((drawn_B > 0).sum() + (coded_B < 0).sum()) / 12
    assert second.log["adversary_accuracy"].item() == pytest.approx(told)


def test_each_step_moves_its_own_net_alone(x_BCHW: Tensor) -> None:
    model = make()
    first, second = model.regularizer.steps(model, x_BCHW)
    assert list(first.updates) == [*model.encoding, model.decoder]
    assert list(second.updates) == [model.regularizer.adversary]
    shared = list(model.net.parameters())
    assert all(g is None for g in torch.autograd.grad(second.loss, shared, allow_unused=True))
    code = model.net.code.weight
    assert torch.autograd.grad(first.log["fooling"], code)[0].abs().max() > 0


def test_fooling_a_certain_adversary_has_a_full_gradient() -> None:
    model = make()
    with torch.no_grad():
        last = model.regularizer.adversary[-1]
        last.weight.zero_()
        last.bias.fill_(-30.0)
    x_BCHW = torch.rand(4, 1, 8, 8)
    first = next(model.regularizer.steps(model, x_BCHW))
    (gradient,) = torch.autograd.grad(first.log["fooling"], last.bias)
    # That of log(1 - D(z)) would be 1e-13.
    assert gradient.item() == pytest.approx(-model.regularizer.weight)


def test_the_adversary_learns_the_log_odds() -> None:
    # Of N(0, I) against N(m, I) they are |m|^2 / 2 - <m, z>.
    torch.manual_seed(0)
    method = WAEGAN(WAEGAN.Options(adversary_layers=1, adversary_width=64), Dims(2, 4, 1, 8))
    m_D = torch.tensor([1.5, 0.0])
    adam = torch.optim.Adam(method.adversary.parameters(), lr=5e-3, betas=(0.5, 0.999))

    class Coded:
        """A model whose codes are draws of N(m, I)."""

        encoding, decoder = (), None

        def encode(self, x_BCHW: Tensor) -> Tensor:
            return m_D + torch.randn(len(x_BCHW), 2)

        def reconstruction_loss(self, z_BD: Tensor, x_BCHW: Tensor) -> Tensor:
            return torch.zeros(())

    for _ in range(400):
        _, update = method.steps(Coded(), torch.empty(512))  # type: ignore[arg-type]
        adam.zero_grad()
        update.loss.backward()
        adam.step()
    z_ND = torch.tensor([[0.0, 0.0], [1.5, 0.0], [0.75, 1.0], [0.75, -1.0]])
    expected_N = m_D.square().sum() / 2 - z_ND @ m_D
    torch.testing.assert_close(method.logits(z_ND).detach(), expected_N, atol=0.25, rtol=0)


def test_the_adversary_is_the_authors() -> None:
    method = WAEGAN(WAEGAN.Options(), Dims(latent=8, features=4, channels=1, side=8))
    layers = [layer for layer in method.adversary if isinstance(layer, torch.nn.Linear)]
    assert [layer.out_features for layer in layers] == [512, 512, 512, 512, 1]
    assert all(layer.weight.std().item() == pytest.approx(0.01, rel=0.2) for layer in layers)
    assert all((layer.bias == 0).all() for layer in layers)
    assert method.optimizers()["adversary"] == AdamOptions(lr=5e-4, betas=(0.5, 0.999))


def test_logits_are_float32_under_autocast() -> None:
    method = WAEGAN(WAEGAN.Options(), Dims(latent=8, features=4, channels=1, side=8))
    with torch.autocast("cpu", torch.bfloat16):
        assert F.softplus(method.logits(torch.randn(4, 8).bfloat16())).dtype == torch.float32


def test_samples_are_standard_normal() -> None:
    z_ND = make().regularizer.sample(50_000)
    torch.testing.assert_close(z_ND.mean(0), torch.zeros(3), atol=0.02, rtol=0)
    torch.testing.assert_close(z_ND.T.cov(), torch.eye(3), atol=0.03, rtol=0)
