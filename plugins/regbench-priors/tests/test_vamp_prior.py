from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal

from regbench import Dims
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.regularizers import VAEKL
from regbench.testing import assert_conforms, train
from regbench_priors import VampPrior

DIMS = Dims(latent=3, features=4, channels=1, side=8)
SHAPE = NetShape(channels=1, side=8, latent=3, features=6, widths=(4,))


def prior(**options: Any) -> VampPrior:
    return VampPrior(VampPrior.Options(**{"pseudo_inputs": 5, **options}), DIMS)


@pytest.mark.parametrize(
    "options", [{"pseudo_inputs": 20}, {"pseudo_inputs": 7, "start": "data", "annealing": 0.5, "weight": 0.0}]
)
def test_conforms(options: dict[str, Any]) -> None:
    assert_conforms(VampPrior, **options)


def log_normal(z: Tensor, mu: Tensor, logvar: Tensor) -> float:
    each = zip(z.tolist(), mu.tolist(), logvar.tolist(), strict=True)
    return sum(-0.5 * ((a - m) ** 2 / math.exp(v) + v + math.log(2 * math.pi)) for a, m, v in each)


def test_kl_is_that_of_a_loop_over_codes_and_pseudo_inputs() -> None:
    z_BD, mu_BD, logvar_BD = (torch.randn(6, 3) for _ in range(3))
    mu_KD, logvar_KD = (torch.randn(5, 3) for _ in range(2))
    total = 0.0
    for z, mu, logvar in zip(z_BD.double(), mu_BD.double(), logvar_BD.double(), strict=True):
        pairs = zip(mu_KD.double(), logvar_KD.double(), strict=True)
        density = sum(math.exp(log_normal(z, m, v)) for m, v in pairs) / 5
        total += log_normal(z, mu, logvar) - math.log(density)
    found = prior().kl(z_BD, mu_BD, logvar_BD, mu_KD, logvar_KD)
    assert found.item() == pytest.approx(total / 6, rel=1e-5)


def test_kl_is_finite_where_every_density_underflows() -> None:
    """256 units, the smallest variances: exp(log p) is 0 in float64."""
    z_BD = torch.randn(4, 256)
    logvar_BD = torch.full((4, 256), -6.0)
    mu_KD = z_BD + torch.tensor([[3.0], [4.0], [5.0], [6.0]])
    found = prior().kl(z_BD, z_BD, logvar_BD, mu_KD[:1], logvar_BD[:1])
    expected = 0.5 * math.exp(6.0) * (z_BD - mu_KD[:1]).double().square().sum(dim=1).mean().item()
    assert found.item() == pytest.approx(expected, rel=1e-5)
    both = prior().kl(z_BD[:1], z_BD[:1], logvar_BD[:1], mu_KD, logvar_BD)
    assert both.item() == pytest.approx(0.5 * math.exp(6.0) * 9 * 256 + math.log(4), rel=1e-4)


def test_the_prior_that_is_the_posterior_costs_nothing() -> None:
    mu_BD, logvar_BD = torch.randn(1, 3), torch.randn(1, 3)
    z_BD = torch.randn(1, 3)
    assert prior().kl(z_BD, mu_BD, logvar_BD, mu_BD, logvar_BD).item() == pytest.approx(0, abs=1e-5)


def test_loss_and_gradients_are_those_of_the_reconstruction_and_the_weighted_kl_annealed() -> None:
    model = build_model(SHAPE, VampPrior, {"pseudo_inputs": 4, "weight": 0.7, "annealing": 0.5}, seed=1)
    method, x_BCHW = model.regularizer, torch.rand(5, 1, 8, 8)
    with torch.no_grad():  # the KL is then not small
        model.net.code.weight.mul_(1000)
        method.pixels_KCHW.copy_(torch.rand(4, 1, 8, 8))
    parameters = [*model.net.encoder.parameters(), *model.net.code.parameters(), *method.parameters()]
    for progress, factor in ((0.0, 0.0), (0.1, 0.2), (0.5, 1.0), (0.9, 1.0)):
        model.progress.fill_(progress)
        torch.manual_seed(5)
        update = next(iter(method.steps(model, x_BCHW)))
        torch.manual_seed(5)
        code_BD, h_BF = model.features(x_BCHW)
        logvar_BD = method.log_variance(h_BF)
        z_BD = code_BD + torch.exp(0.5 * logvar_BD) * torch.randn_like(code_BD)
        code_KD, h_KF = model.features(method.pseudo_inputs())
        kl = method.kl(z_BD, code_BD, logvar_BD, code_KD, method.log_variance(h_KF))
        bce = model.reconstruction_loss(z_BD, x_BCHW)
        assert kl.item() > 5
        torch.testing.assert_close(update.log["kl"], factor * 0.7 * kl)
        torch.testing.assert_close(update.loss, bce + factor * 0.7 * kl)
        found = torch.autograd.grad(update.loss, parameters)
        for gradient, expected in zip(
            found, torch.autograd.grad(bce + factor * 0.7 * kl, parameters), strict=True
        ):
            torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)
    moved = {id(each) for module in update.updates for each in module.parameters()}
    assert moved == {id(each) for each in model.parameters()}


def test_pseudo_inputs_learn_through_the_encoder() -> None:
    model = build_model(SHAPE, VampPrior, {"pseudo_inputs": 4}, seed=1)
    update = next(iter(model.regularizer.steps(model, torch.rand(5, 1, 8, 8))))
    (gradient_KCHW,) = torch.autograd.grad(update.loss, model.regularizer.pixels_KCHW)
    assert (gradient_KCHW.flatten(1).norm(dim=1) > 0).all()


def test_log_variances_stay_within_the_official_bounds() -> None:
    h_BF = 1000 * torch.randn(50, 4)
    logvar_BD = prior().log_variance(h_BF)
    assert (logvar_BD.amin().item(), logvar_BD.amax().item()) == (-6, 2)


@pytest.mark.parametrize(
    ("channels", "start", "from_data"),
    [(1, None, False), (3, None, True), (1, "data", True), (3, "noise", False)],
)
def test_pseudo_inputs_start_from_training_images_where_asked_or_in_colour(
    channels: int, start: str | None, from_data: bool
) -> None:
    shape = NetShape(channels=channels, side=8, latent=3, features=6, widths=(4,))
    model = build_model(shape, VampPrior, {"pseudo_inputs": 6, "start": start}, seed=1, images=12)
    x_NCHW = torch.rand(12, channels, 8, 8)
    with torch.no_grad():
        model.regularizer.on_regularization_start(model, iter(x_NCHW.split(5)))
        u_KCHW = model.regularizer.pseudo_inputs()
    assert torch.allclose(u_KCHW, x_NCHW[::2], atol=0.06) is from_data


@pytest.mark.parametrize(("count", "chosen"), [(5, [0, 2, 4, 7, 9]), (24, [i // 2 for i in range(24)])])
def test_pseudo_inputs_start_from_images_spread_over_all_batches(count: int, chosen: list[int]) -> None:
    """Also where they are more than the images: each noise is drawn anew."""
    model = build_model(SHAPE, VampPrior, {"pseudo_inputs": count, "start": "data"}, seed=1, images=12)
    x_NCHW = 0.1 + 0.8 * torch.rand(12, 1, 8, 8)
    with torch.no_grad():
        model.regularizer.on_regularization_start(model, iter(x_NCHW.split(5)))
    off_KCHW = model.regularizer.pseudo_inputs().detach() - x_NCHW[chosen]
    assert off_KCHW.std().item() == pytest.approx(0.01, rel=0.15)
    assert (off_KCHW.flatten(1).unique(dim=0).shape[0]) == count


@pytest.mark.parametrize(("channels", "mean", "spread"), [(1, 0.05, 0.01), (3, 0.4, 0.05)])
def test_pseudo_inputs_of_noise_are_the_official_ones(channels: int, mean: float, spread: float) -> None:
    dims = Dims(latent=3, features=4, channels=channels, side=16)
    u_KCHW = VampPrior(VampPrior.Options(pseudo_inputs=100), dims).pseudo_inputs().detach()
    assert u_KCHW.mean().item() == pytest.approx(mean, rel=0.02)
    assert u_KCHW.std().item() == pytest.approx(spread, rel=0.02)
    assert torch.equal(u_KCHW, u_KCHW.clamp(1e-6, 1 - 1e-6))  # none is clipped, so all learn


def test_pseudo_inputs_are_images() -> None:
    method = prior()
    with torch.no_grad():
        method.pixels_KCHW[0], method.pixels_KCHW[1] = -0.3, 1.7
    u_KCHW = method.pseudo_inputs()
    assert u_KCHW[:2].flatten(1).unique(dim=1).tolist() == [[0.0], [1.0]]
    assert torch.equal(u_KCHW[2:], method.pixels_KCHW[2:])


def test_samples_are_of_a_uniform_pseudo_inputs_posterior() -> None:
    method = prior(pseudo_inputs=2)
    z_ND = method.sample(20_000)  # nothing is trained yet: N(0, I)
    torch.testing.assert_close(z_ND.std(0), torch.ones(3), atol=0.03, rtol=0)
    method.mu_KD.copy_(torch.tensor([[-10.0, 0, 0], [10.0, 5, 0]]))
    method.logvar_KD.copy_(2 * torch.tensor([[0.5, 1, 1], [2.0, 1, 3]]).log())
    z_ND = method.sample(40_000)
    left_N = z_ND[:, 0] < 0
    assert left_N.float().mean().item() == pytest.approx(0.5, abs=0.02)
    for chosen_N, mean, spread in (
        (left_N, [-10.0, 0, 0], [0.5, 1, 1]),
        (~left_N, [10.0, 5, 0], [2.0, 1, 3]),
    ):
        torch.testing.assert_close(z_ND[chosen_N].mean(0), torch.tensor(mean), atol=0.08, rtol=0)
        torch.testing.assert_close(z_ND[chosen_N].std(0), torch.tensor(spread), atol=0.06, rtol=0)


def held_out(model: Any, draws: int = 10) -> tuple[float, float]:
    """Reconstruction and KL to the method's own prior on digits that it was not trained on, in nats per image."""
    method, bce, kl = model.regularizer, 0.0, 0.0
    x_BCHW = torch.from_numpy(load_digits().images[1000:, None] / 16).float()
    torch.manual_seed(0)
    with torch.no_grad():
        code_BD, h_BF = model.features(x_BCHW)
        if isinstance(method, VAEKL):
            logvar_BD, mixture = method.logvar(h_BF), Normal(torch.zeros(16), torch.ones(16))
        else:
            logvar_BD = method.log_variance(h_BF)
            parts = Independent(Normal(method.mu_KD, torch.exp(0.5 * method.logvar_KD)), 1)
            mixture = MixtureSameFamily(Categorical(logits=torch.zeros(len(method.mu_KD))), parts)
        posterior = Normal(code_BD, torch.exp(0.5 * logvar_BD))
        for _ in range(draws):
            z_BD = posterior.sample()
            densities = mixture.log_prob(z_BD)
            log_prior_B = densities if densities.ndim == 1 else densities.sum(1)
            kl += (posterior.log_prob(z_BD).sum(1) - log_prior_B).mean().item() / draws
            bce += model.reconstruction_loss(z_BD, x_BCHW).item() / draws
    return bce, kl


def test_on_digits_its_kl_is_below_the_vae_s_at_about_the_same_reconstruction() -> None:
    """The same net, schedule and weight; on held-out images, each KL by draws and to what the method samples from."""
    vae_bce, vae_kl = held_out(train(VAEKL, {"weight": 0.05}, epochs=15).model)
    for start, most_bce, most_kl in (("noise", 1.04, 0.7), ("data", 1.0, 0.8)):
        vamp = train(VampPrior, {"weight": 0.05, "pseudo_inputs": 50, "start": start}, epochs=15)
        bce, kl = held_out(vamp.model)
        assert kl < most_kl * vae_kl
        assert bce < most_bce * vae_bce
        recorded = vamp.history[-1]["log"]["kl"] / 0.05
        assert kl == pytest.approx(recorded, rel=0.2)
