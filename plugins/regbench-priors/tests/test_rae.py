from __future__ import annotations

from typing import Any

import pytest
import torch

from regbench import Dims
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.regularizers import AE
from regbench.testing import assert_conforms, train
from regbench_priors import RAEL2

GREY = Dims(latent=256, features=4, channels=1, side=28)
COLOUR = Dims(latent=256, features=4, channels=3, side=32)


@pytest.mark.parametrize("options", [{}, {"beta": 0.0, "decay": 0.0, "components": 2}])
def test_conforms(options: dict[str, Any]) -> None:
    assert_conforms(RAEL2, **options)


def test_the_loss_is_that_of_a_loop_over_codes_and_kernels() -> None:
    shape = NetShape(channels=1, side=8, latent=3, features=6, widths=(4, 4))
    model = build_model(shape, RAEL2, {"beta": 0.3, "decay": 0.02}, seed=1)
    x_BCHW = torch.rand(5, 1, 8, 8)
    update = next(iter(model.regularizer.steps(model, x_BCHW)))
    code_BD, _ = model.features(x_BCHW)
    size = sum(z * z for row in code_BD.double().tolist() for z in row) / 5
    kernels = [
        module.weight.double().flatten().tolist()
        for module in model.decoder.modules()
        if isinstance(module, torch.nn.Conv2d | torch.nn.ConvTranspose2d)
    ]
    assert len(kernels) == 3
    decay = sum(w * w for kernel in kernels for w in kernel)
    expected = model.reconstruction_loss(code_BD, x_BCHW).item() + 0.3 * size + 0.02 * decay
    assert update.loss.item() == pytest.approx(expected, rel=1e-5)
    assert update.log["size"].item() == pytest.approx(0.3 * size, rel=1e-5)
    assert update.log["decay"].item() == pytest.approx(0.02 * decay, rel=1e-5)
    moved = {id(each) for module in update.updates for each in module.parameters()}
    assert moved == {id(each) for each in model.parameters()}


@pytest.mark.parametrize(
    ("dims", "beta", "decay"),
    [(GREY, 1e-4 * 784 / 256, 1e-7 * 784), (COLOUR, 1e-3 * 3072 / 256, 1e-6 * 3072)],
)
def test_published_weights_beside_means_are_converted_to_sums(dims: Dims, beta: float, decay: float) -> None:
    """N x (mean squared pixel error + b x mean z^2 + d x |w|^2) = sum + (b N / D) x |z|^2 + (d N) x |w|^2."""
    method = RAEL2(RAEL2.Options(), dims)
    assert method.weight == pytest.approx(beta)
    assert method.decay == pytest.approx(decay)
    set_by_hand = RAEL2(RAEL2.Options(beta=0.5, decay=0.25), dims)
    assert (set_by_hand.weight, set_by_hand.decay) == (0.5, 0.25)


def test_on_digits_codes_are_smaller_than_ae_s_and_samples_are_like_images() -> None:
    """Ex post: samples have the moments of the codes, and decoded those of the images; N(0, I) has neither."""
    trained = train(RAEL2, {"beta": 0.004}, epochs=30, warmup=15)
    codes_ND, free_ND = trained.codes(), train(AE, epochs=30, warmup=15).codes()
    assert codes_ND.square().sum(1).mean() < 0.7 * free_ND.square().sum(1).mean()
    torch.manual_seed(0)
    z_ND, normal_ND = trained.model.regularizer.sample(20_000), torch.randn(20_000, 16)

    def off(found: torch.Tensor, like: torch.Tensor) -> float:
        """Frobenius distance of the covariances, relative to the second."""
        return float((found.T.cov() - like.T.cov()).norm() / like.T.cov().norm())

    def decoded(z_ND: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return trained.model.decode(z_ND[:5000]).sigmoid().flatten(1)

    assert off(z_ND, codes_ND) < 0.1 < 0.5 < off(normal_ND, codes_ND)
    assert (z_ND.mean(0) - codes_ND.mean(0)).norm() < 0.1 * codes_ND.std(0).norm()
    x_NP = trained.images_NCHW.flatten(1)
    assert off(decoded(z_ND), x_NP) < 0.4 < 0.7 < off(decoded(normal_ND), x_NP)
