import math

import pytest
import torch

import regbench_beta_vae
from regbench import Dims
from regbench.regularizers import VAEKL
from regbench.testing import assert_conforms

BetaVAE = regbench_beta_vae.BetaVAE
DIMS = Dims(latent=3, features=4, channels=1, side=8)


@pytest.mark.parametrize("beta", [0.0, 1.0, 4.0])
def test_conforms(beta: float) -> None:
    assert_conforms(BetaVAE, beta=beta)


def test_term_is_beta_times_the_closed_form_in_float64() -> None:
    method = BetaVAE(BetaVAE.Options(beta=2.5), DIMS)
    mean_BD, h_BF = torch.randn(7, 3), torch.randn(7, 4)
    _, terms = method(mean_BD, h_BF)
    total = 0.0
    for mean, logvar in zip(mean_BD.tolist(), method.logvar(h_BF).tolist(), strict=True):
        total += sum(0.5 * (math.exp(v) + m * m - 1 - v) for m, v in zip(mean, logvar, strict=True))
    assert terms["kl"].item() == pytest.approx(2.5 * total / 7, rel=1e-5)


def test_beta_one_is_the_plain_vae() -> None:
    plain = VAEKL(VAEKL.Options(weight=1), DIMS)
    method = BetaVAE(BetaVAE.Options(beta=1), DIMS)
    method.load_state_dict(plain.state_dict())
    code_BD, h_BF = torch.randn(7, 3), torch.randn(7, 4)
    found = []
    for vae in (plain, method):
        torch.manual_seed(0)
        found.append(vae(code_BD, h_BF))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1]["kl"], found[1][1]["kl"])


def test_samples_in_training_and_decodes_the_mean_otherwise() -> None:
    method = BetaVAE(BetaVAE.Options(), DIMS)
    with torch.no_grad():
        method.logvar.weight.zero_()
        method.logvar.bias.fill_(2 * math.log(0.5))
    code_BD, h_BF = torch.randn(50_000, 3), torch.randn(50_000, 4)
    noise_BD = method(code_BD, h_BF)[0] - code_BD
    assert noise_BD.std().item() == pytest.approx(0.5, rel=0.02)
    method.sampling = False
    assert torch.equal(method(code_BD, h_BF)[0], code_BD)


def test_prior_samples_are_standard_normal() -> None:
    z_ND = BetaVAE(BetaVAE.Options(), DIMS).sample(50_000)
    assert z_ND.shape == (50_000, 3)
    assert z_ND.mean().item() == pytest.approx(0, abs=0.02)
    assert z_ND.std().item() == pytest.approx(1, rel=0.02)
