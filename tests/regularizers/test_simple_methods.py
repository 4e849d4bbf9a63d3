"""AE, VAE-KL and InfoVAE-MMD: the methods of one kind of step."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor
from torch.distributions import Normal, kl_divergence

import regbench
from regbench import Dims, Regularizer, ops
from regbench.conformance.bench import HostSyncFinder
from regbench.regularizers import AE, VAEKL, InfoVAEMMD, ProtoVAE, regbench_regularizers
from tests.regularizers.conftest import SHAPE, make, train

Batches = list[Tensor]


def _same_net(left: torch.nn.Module, right: torch.nn.Module) -> bool:
    pairs = zip(left.state_dict().values(), right.state_dict().values(), strict=True)
    return all(torch.equal(a, b) for a, b in pairs)


def test_the_hook_offers_the_four_methods() -> None:
    assert [method.name for method in regbench_regularizers()] == ["ae", "vae-kl", "infovae-mmd", "proto-vae"]


@pytest.mark.parametrize("method", [AE, VAEKL, InfoVAEMMD, ProtoVAE])
def test_every_option_is_described(method: Any) -> None:
    for name, field in method.Options.model_fields.items():
        assert field.description, name
        assert not field.is_required(), name


@pytest.mark.parametrize("method", [VAEKL, InfoVAEMMD])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_step_waits_for_nothing_and_stays_finite(method: Any, precision: str, batches: Batches) -> None:
    model = make(method)
    with HostSyncFinder() as finder:
        for update in model.regularizer.steps(model, batches[0]):
            update.loss.backward()
    assert finder.found == []
    rows = train(model, batches, precision=precision, fused=True)
    assert all(torch.tensor(list(row["losses"].values())).isfinite().all() for row in rows)


# AE


def test_ae_has_no_prior_and_returns_the_code() -> None:
    model = make(AE)
    code, h = torch.randn(3, 8), torch.randn(3, 12)
    z, terms = model.regularizer(code, h)
    assert z is code
    assert terms == {}
    assert model.regularizer.sample(4) is None
    assert not model.regularizer.prior


def test_ae_with_three_updates_takes_three_fresh_steps_of_one_adam(batches: Batches) -> None:
    x = batches[0]
    matched, plain = make(AE, updates_per_batch=3), make(AE)
    names: list[tuple[str, str]] = []
    train(matched, [x], inspect=lambda update: names.append((update.name, update.optimizer)))
    assert names == [
        ("reconstruction", "reconstruction"),
        ("reconstruction-2", "reconstruction"),
        ("reconstruction-3", "reconstruction"),
    ]
    train(plain, [x, x, x])
    assert _same_net(matched.net, plain.net)


@pytest.mark.parametrize(("precision", "fused"), [("fp32", False), ("bf16", True)])
def test_ae_encodes_again_for_each_update(precision: str, fused: bool, batches: Batches) -> None:
    model, losses = make(AE, updates_per_batch=3), []

    def inspect(update: Any) -> None:
        fresh = model.reconstruction_loss(model.encode(batches[0]), batches[0])
        assert torch.equal(update.loss, fresh)
        losses.append(fresh.item())

    train(model, [batches[0]], lr=0.01, precision=precision, fused=fused, inspect=inspect)
    assert len(set(losses)) == 3


# VAE-KL


@pytest.mark.parametrize("weight", [0.0, 1.0, 2.5])
def test_vae_loss_is_the_negative_elbo(weight: float, batches: Batches) -> None:
    model, x = make(VAEKL, weight=weight), batches[0]
    mu, h = model.features(x)
    logvar = model.regularizer.logvar(h)
    torch.manual_seed(3)
    (update,) = model.regularizer.steps(model, x)
    torch.manual_seed(3)
    z = mu + torch.exp(logvar / 2) * torch.randn_like(mu)
    q = Normal(mu.double(), torch.exp(logvar.double() / 2))
    kl = kl_divergence(q, Normal(torch.zeros(8).double(), 1.0)).sum(1).mean()
    expected = model.reconstruction_loss(z, x).double() + weight * kl
    torch.testing.assert_close(update.loss.double(), expected, rtol=1e-5, atol=1e-5)


def test_vae_samples_by_the_flag_alone() -> None:
    method = make(VAEKL).regularizer
    code, h = torch.randn(3, 8), torch.randn(3, 12)
    for training in (True, False):
        method.train(training)
        method.sampling = False
        assert torch.equal(method(code, h)[0], code)
        method.sampling = True
        assert not torch.equal(method(code, h)[0], code)
    assert method.stochastic


@pytest.mark.parametrize("method", [VAEKL, InfoVAEMMD])
def test_samples_are_standard_normal(method: Any) -> None:
    regularizer = make(method).regularizer
    torch.manual_seed(0)
    z = regularizer.sample(20_000)
    assert z.shape == (20_000, 8)
    torch.testing.assert_close(z.mean(0), torch.zeros(8), atol=0.03, rtol=0)
    torch.testing.assert_close(torch.cov(z.T), torch.eye(8), atol=0.04, rtol=0)
    torch.manual_seed(0)
    assert torch.equal(z, regularizer.sample(20_000))


# InfoVAE-MMD


def test_infovae_weight_defaults_to_the_number_of_pixels() -> None:
    assert make(InfoVAEMMD).regularizer.weight == SHAPE.channels * SHAPE.side**2
    assert make(InfoVAEMMD, weight=3).regularizer.weight == 3


@pytest.mark.parametrize("encoder", ["stochastic", "deterministic"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"kernel": "imq"},
        {"bandwidth": "median"},
        {"bandwidth": 1.5, "biased": True},
        {"closed_form": True},
    ],
    ids=str,
)
def test_infovae_loss_is_reconstruction_and_mmd(
    encoder: str, options: dict[str, Any], batches: Batches
) -> None:
    model, x = make(InfoVAEMMD, encoder=encoder, weight=7.0, **options), batches[0]
    torch.manual_seed(3)
    (update,) = model.regularizer.steps(model, x)
    torch.manual_seed(3)
    z, h = model.features(x)
    if encoder == "stochastic":
        z = z + torch.exp(model.regularizer.logvar(h) / 2) * torch.randn_like(z)
    kernel = ops.kernel(options.get("kernel", "gaussian"), options.get("bandwidth"))
    if "closed_form" in options:
        mmd = ops.mmd_to_standard_normal(z, kernel, closed_form=True)
    else:
        mmd = ops.mmd(z, torch.randn_like(z), kernel, biased=options.get("biased", False))
    torch.testing.assert_close(update.loss, model.reconstruction_loss(z, x) + 7.0 * mmd)
    torch.testing.assert_close(update.log["mmd"], 7.0 * mmd)


def test_infovae_encoders_differ_in_the_layer_they_own() -> None:
    assert make(InfoVAEMMD).regularizer.stochastic
    assert [name for name, _ in make(InfoVAEMMD).regularizer.named_parameters()] == [
        "logvar.weight",
        "logvar.bias",
    ]
    deterministic = make(InfoVAEMMD, encoder="deterministic").regularizer
    assert not deterministic.stochastic
    assert not deterministic.state_dict()


def test_infovae_takes_a_batch_of_one() -> None:
    z, terms = make(InfoVAEMMD).regularizer(torch.randn(1, 8), torch.randn(1, 12))
    assert z.shape == (1, 8)
    assert terms["mmd"] == 0


@pytest.mark.parametrize(
    "options",
    [
        {"kernel": "imq", "bandwidth": 1.0},
        {"kernel": "imq", "closed_form": True},
        {"kernel": "laplace"},
        {"bandwidth": 0.0},
        {"bandwidth": "mean"},
        {"weight": -1.0},
        {"lambda": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("method", [InfoVAEMMD, ProtoVAE])
def test_options_that_do_not_fit_are_refused(method: Any, options: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        method.Options(**options)


@pytest.mark.parametrize(
    ("method", "options"), [(InfoVAEMMD, {"encoder": "deterministic"}), (ProtoVAE, {"mmd_lr": 1e-4})]
)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_at_weight_zero_deterministic_methods_are_the_ae_bit_for_bit(
    method: Any, options: dict[str, Any], precision: str, batches: Batches
) -> None:
    regularized, plain = make(method, weight=0, **options), make(AE)
    for model in (regularized, plain):
        train(model, batches * 3, precision=precision, fused=True)
    assert _same_net(regularized.net, plain.net)


def test_a_method_that_the_sizes_rule_out_cannot_be_built() -> None:
    class Halved(Regularizer):
        name = "halved"

        class Options(regbench.Options):
            part: int = regbench.Field(2, description="divides the code")

        @classmethod
        def misfits(cls, options: Options, dims: Dims) -> dict[str, str]:
            return {"part": f"expected a divisor of {dims.latent}"} if dims.latent % options.part else {}

    Halved(Halved.Options(), Dims(latent=4, features=4, channels=1, side=8))
    with pytest.raises(regbench.RegbenchError, match="halved: part = 2: expected a divisor of 5"):
        Halved(Halved.Options(), Dims(latent=5, features=4, channels=1, side=8))
