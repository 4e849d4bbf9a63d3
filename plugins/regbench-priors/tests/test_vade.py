from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from sklearn.mixture import GaussianMixture
from torch.distributions import Categorical, Independent, MixtureSameFamily, Normal, kl_divergence

import regbench
from regbench import Dims, Model
from regbench.testing import assert_conforms, train
from regbench_priors import VaDE

DIMS = Dims(latent=3, features=4, channels=1, side=8)


def method(dims: Dims = DIMS, **options: Any) -> VaDE:
    """With a prior that is not the initial one."""
    found = VaDE(VaDE.Options(**{"clusters": 4, **options}), dims)
    with torch.no_grad():
        found.logits_K.copy_(torch.randn(len(found.logits_K)))
        found.logvar_KD.copy_(torch.randn_like(found.logvar_KD))
    return found


@pytest.mark.parametrize("options", [{}, {"weight": 0.0, "lr": 0.002, "clusters": 3}])
def test_conforms(options: dict[str, Any]) -> None:
    assert_conforms(VaDE, **options)


def test_terms_are_those_of_the_paper_s_loop_in_float64() -> None:
    """The bound in closed form, with the responsibilities at the sample: sums over clusters and units."""
    vade = method(weight=0.4)
    h_BF, code_BD = torch.randn(6, 4), torch.randn(6, 3)
    torch.manual_seed(5)
    z_BD, terms = vade(code_BD, h_BF)
    shares = vade.logits_K.double().softmax(0).tolist()
    means, variances = vade.mu_KD.double().tolist(), vade.logvar_KD.double().exp().tolist()
    bound = 0.0
    for z, mu, logvar in zip(z_BD.tolist(), code_BD.tolist(), vade.logvar(h_BF).tolist(), strict=True):
        joint = [
            shares[k]
            * math.prod(
                math.exp(-((z[d] - means[k][d]) ** 2) / (2 * variances[k][d]))
                / math.sqrt(2 * math.pi * variances[k][d])
                for d in range(3)
            )
            for k in range(4)
        ]
        gamma = [each / sum(joint) for each in joint]
        for k in range(4):
            inner = sum(
                math.log(variances[k][d])
                + math.exp(logvar[d]) / variances[k][d]
                + (mu[d] - means[k][d]) ** 2 / variances[k][d]
                for d in range(3)
            )
            bound += -0.5 * gamma[k] * inner + gamma[k] * math.log(shares[k] / gamma[k])
        bound += 0.5 * sum(1 + v for v in logvar)
    assert sum(terms.values()).item() == pytest.approx(-0.4 * bound / 6, rel=1e-4)
    assert min(terms.values()) >= 0


def test_gradients_are_those_of_the_bound_in_float64_and_go_through_the_responsibilities() -> None:
    """By autograd of torch.distributions' KL of all pairs; the sample in the responsibilities moves with q."""
    vade = method(weight=0.4)
    h_BF, code_BD = torch.randn(6, 4), torch.randn(6, 3, requires_grad=True)
    torch.manual_seed(5)
    terms = vade(code_BD, h_BF)[1]
    leaves = [code_BD, vade.logvar.weight, vade.mu_KD, vade.logvar_KD, vade.logits_K]
    found = torch.autograd.grad(sum(terms.values()), leaves)

    copies = [leaf.detach().double().requires_grad_() for leaf in leaves]
    mu_BD, weight_DF, mu_KD, logvar_KD, logits_K = copies
    spread_BD = torch.exp(0.5 * (h_BF.double() @ weight_DF.T + vade.logvar.bias.detach().double()))
    torch.manual_seed(5)
    z_BD = mu_BD + spread_BD * torch.randn(6, 3).double()
    parts, shares = Independent(Normal(mu_KD, torch.exp(0.5 * logvar_KD)), 1), Categorical(logits=logits_K)
    gamma = Categorical(logits=parts.log_prob(z_BD[:, None]) + shares.logits)
    to_parts_BK = kl_divergence(Independent(Normal(mu_BD[:, None], spread_BD[:, None]), 1), parts)
    bound = (gamma.probs * to_parts_BK).sum(1) + kl_divergence(gamma, Categorical(logits=shares.logits))
    kl = 0.4 * (gamma.probs * to_parts_BK).sum(1).mean()
    assert terms["kl"].item() == pytest.approx(kl.item(), rel=1e-4)
    for gradient, expected in zip(found, torch.autograd.grad(0.4 * bound.mean(), copies), strict=True):
        torch.testing.assert_close(gradient.double(), expected, rtol=1e-3, atol=1e-5)


def test_one_cluster_at_the_origin_is_the_vae() -> None:
    vade = VaDE(VaDE.Options(clusters=1), DIMS)
    with torch.no_grad():
        vade.mu_KD.zero_()
    code_BD, h_BF = torch.randn(6, 3), torch.randn(6, 4)
    terms = vade(code_BD, h_BF)[1]
    torch.testing.assert_close(terms["kl"], regbench.ops.kl_to_standard_normal(code_BD, vade.logvar(h_BF)))
    assert terms["kl_clusters"].item() == 0


def test_responsibilities_do_not_underflow_at_256_units() -> None:
    vade = VaDE(VaDE.Options(clusters=3), Dims(latent=256, features=4, channels=1, side=8))
    with torch.no_grad():
        vade.mu_KD.copy_(10 * torch.eye(3, 256))
    z_BD = torch.randn(5, 256) * 30
    log_BK = vade.log_responsibilities(z_BD)
    mixture = MixtureSameFamily(
        Categorical(logits=torch.zeros(3).double()),
        Independent(Normal(vade.mu_KD.double(), torch.ones(3, 256).double()), 1),
    )
    parts_BK = mixture.component_distribution.log_prob(z_BD.double()[:, None])
    assert (parts_BK.exp() == 0).all()
    torch.testing.assert_close(log_BK.double(), parts_BK.log_softmax(1), rtol=1e-4, atol=0.1)
    assert torch.equal(vade.assign(z_BD), parts_BK.argmax(1))


class Codes:
    """In place of a model: its images are codes."""

    def codes(self, batches: list[torch.Tensor]) -> torch.Tensor:
        return torch.cat(batches)


def start(vade: VaDE, z_ND: torch.Tensor) -> None:
    with torch.no_grad():
        vade.on_regularization_start(Codes(), list(z_ND.split(1000)))  # type: ignore[arg-type]


def test_it_starts_at_the_mixture_that_the_codes_come_from() -> None:
    torch.manual_seed(0)
    means = torch.tensor([[-8.0, 0, 0], [8.0, 0, 3]])
    spreads = torch.tensor([[0.5, 1, 1], [1.0, 2, 0.3]])
    k_N = (torch.rand(6000) < 0.75).long()
    z_ND = means[k_N] + spreads[k_N] * torch.randn(6000, 3)
    vade = VaDE(VaDE.Options(clusters=2), DIMS)
    start(vade, z_ND)
    order = vade.mu_KD[:, 0].argsort()
    torch.testing.assert_close(vade.mu_KD[order].detach(), means, atol=0.1, rtol=0)
    torch.testing.assert_close(torch.exp(0.5 * vade.logvar_KD[order]).detach(), spreads, atol=0, rtol=0.05)
    torch.testing.assert_close(
        vade.logits_K.softmax(0)[order].detach(), torch.tensor([0.25, 0.75]), atol=0.02, rtol=0
    )

    drawn_ND = vade.sample(20_000)
    right_N = drawn_ND[:, 0] > 0
    assert right_N.float().mean().item() == pytest.approx(0.75, abs=0.02)
    torch.testing.assert_close(drawn_ND[right_N].std(0), spreads[1], atol=0, rtol=0.06)
    assert torch.equal(vade.sample_cluster(order, scale=0.0), vade.prototypes()[order])
    around_ND = vade.sample_cluster(order[:1].expand(20_000), scale=2.0)
    torch.testing.assert_close(around_ND.std(0), 2 * spreads[0], atol=0, rtol=0.06)
    assert (vade.assign(means) == order).all()


@pytest.mark.parametrize("seed", range(3))
def test_it_starts_at_the_likeliest_of_several_mixtures(seed: int) -> None:
    """Where no clusters are to be found, single starts differ."""
    torch.manual_seed(seed)
    z_ND = torch.rand(400, 3)
    vade = VaDE(VaDE.Options(clusters=8), DIMS)
    start(vade, z_ND)
    log_BK = regbench.ops.normal_log_densities(z_ND, vade.mu_KD, vade.logvar_KD) + vade.logits_K.log_softmax(
        0
    )
    singles = [
        GaussianMixture(8, covariance_type="diag", random_state=each).fit(z_ND.numpy()).score(z_ND.numpy())
        for each in range(20)
    ]
    assert log_BK.logsumexp(1).mean().item() > np.quantile(singles, 0.6)


def test_a_clump_of_equal_images_does_not_make_a_cluster_without_width() -> None:
    torch.manual_seed(0)
    z_ND = torch.cat([4 * torch.randn(500, 3), torch.full((500, 3), 30.0)])
    vade = VaDE(VaDE.Options(clusters=2), DIMS)
    start(vade, z_ND)
    assert vade.assign(z_ND).bincount().tolist() == [500, 500]
    assert torch.exp(0.5 * vade.logvar_KD).min() > 0.009 * z_ND.var(0).mean().sqrt()
    # Nor do the other codes' posteriors make the clump's far too wide: it would cost a thousand nats.
    assert sum(vade(z_ND, torch.randn(1000, 4))[1].values()).item() < 10


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e2])
def test_posteriors_start_as_wide_as_the_clusters_whatever_the_codes_scale(scale: float) -> None:
    """Then a code costs about half a nat per unit, and its cluster's log K: the warm-up is not undone."""
    torch.manual_seed(0)
    k_N = torch.arange(2000) % 2
    z_ND = scale * (torch.tensor([[-9.0, 0, 0], [9.0, 0, 0]])[k_N] + torch.randn(2000, 3))
    vade = VaDE(VaDE.Options(clusters=2), DIMS)
    start(vade, z_ND)
    h_BF = 5 * torch.randn(2000, 4)
    torch.testing.assert_close(
        torch.exp(0.5 * vade.logvar(h_BF)).detach() / scale, torch.ones(2000, 3), atol=0.1, rtol=0
    )
    terms = vade(z_ND, h_BF)[1]
    assert terms["kl"].item() == pytest.approx(1.5, abs=0.1)
    assert terms["kl_clusters"].item() == pytest.approx(math.log(2), abs=0.01)


@pytest.mark.filterwarnings("ignore:Number of distinct clusters")
def test_codes_that_are_all_equal_are_no_fault() -> None:
    vade = VaDE(VaDE.Options(clusters=2), DIMS)
    start(vade, torch.ones(10, 3))
    assert all(parameter.isfinite().all() for parameter in vade.parameters())


def test_its_learning_rate_is_the_suite_s_unless_set() -> None:
    assert method().optimizers() == {}
    assert method(lr=0.002).optimizers() == {"loss": regbench.AdamOptions(lr=0.002)}


def test_more_clusters_than_training_images_are_refused() -> None:
    dims = Dims(latent=3, features=4, channels=1, side=8, images=3)
    with pytest.raises(regbench.RegbenchError, match="clusters = 4: expected at most 3"):
        method(dims)


def accuracy(found_N: np.ndarray, labels_N: np.ndarray) -> float:
    """With the clusters named in the way that suits them best."""
    counts = np.zeros((10, 10))
    np.add.at(counts, (found_N, labels_N), 1)
    return float(counts[linear_sum_assignment(-counts)].sum() / len(labels_N))


def test_on_digits_clusters_follow_the_labels_and_a_cluster_s_samples_are_encoded_into_it() -> None:
    first: list[torch.Tensor] = []

    class Watched(VaDE):
        def on_regularization_start(self, model: Model, batches: Iterable[torch.Tensor]) -> None:
            seen = list(batches)
            super().on_regularization_start(model, seen)
            first.append(self.assign(model.codes(seen)))

    trained = train(Watched, {"weight": 0.1}, epochs=40, warmup=20)
    model, vade, labels_N = trained.model, trained.model.regularizer, trained.labels_N.numpy()
    with torch.no_grad(), model.sampling(False):
        last_N = vade.assign(trained.codes())
        k_N = torch.arange(10).repeat(50)
        drawn_BCHW = model.decode(vade.sample_cluster(k_N)).sigmoid()
        back = (vade.assign(model.encode(drawn_BCHW)) == k_N).float().mean().item()
    assert accuracy(last_N.numpy(), labels_N) > 0.65
    # The training keeps the clusters that it starts from: see the README.
    assert accuracy(last_N.numpy(), labels_N) > accuracy(first[0].numpy(), labels_N) - 0.02
    assert back > 0.9
