"""ProtoVAE's three steps, against an oracle that computes each loss anew from the weights of the moment."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.spatial.distance import pdist
from torch import Tensor
from torch.nn import functional as F

from regbench import Dims, Update
from regbench.conformance.bench import HostSyncFinder
from regbench.model import Model
from regbench.regularizers import ProtoVAE
from tests.ops import oracles
from tests.regularizers.conftest import make, train

Batches = list[Tensor]


class Oracle:
    """Sees every update before its optimizer steps, and holds its loss and gradient to the paper's formulas.

    Codes are encoded by the model itself as it stands at that moment; all that follows is computed here.
    """

    def __init__(self, model: Model, x_BCHW: Tensor) -> None:
        self.model, self.x_BCHW = model, x_BCHW
        self.assignments: list[int] = []
        self.seen: list[str] = []

    def __call__(self, update: Update) -> None:
        self.seen.append(update.name)
        loss = {"prototypes": self._prototypes, "mmd": self._mmd, "reconstruction": self._reconstruction}[
            update.name
        ]()
        torch.testing.assert_close(update.loss.double(), loss.double(), rtol=1e-4, atol=1e-5)
        encoder = list(self.model.net.encoder.parameters())
        expected = torch.autograd.grad(loss, encoder)
        found = torch.autograd.grad(update.loss, encoder, retain_graph=True)
        for a, b in zip(found, expected, strict=True):
            assert F.cosine_similarity(a.flatten(), b.flatten(), dim=0) > 0.999
            assert a.norm() / b.norm() == pytest.approx(1, abs=0.02)
        if update.name == "mmd":
            prototypes = self.model.regularizer.head.weight
            assert torch.autograd.grad(update.loss, prototypes, retain_graph=True, allow_unused=True) == (
                None,
            )

    def _encode(self) -> Tensor:
        z_BD = self.model.features(self.x_BCHW)[0].double()
        return z_BD

    def _scores(self, z_BD: Tensor) -> Tensor:
        v_KD = self.model.regularizer.head.weight.double()
        if self.model.regularizer.options.scores == "cosine":
            z_BD, v_KD = z_BD / z_BD.norm(dim=1, keepdim=True), v_KD / v_KD.norm(dim=1, keepdim=True)
        # No matrix product: autocast would shorten it.
        return (z_BD[:, None] * v_KD[None]).sum(2)

    def _prototypes(self) -> Tensor:
        options = self.model.regularizer.options
        scores_BK = self._scores(self._encode())
        # Raw scores are iterated, and rounded, to the optimum; cosine ones take SwAV's three plain iterations.
        iterations = 2000 if options.scores == "raw" else 3
        codes_BK = torch.from_numpy(oracles.sinkhorn(scores_BK.detach().numpy(), options.epsilon, iterations))
        self.assignments = codes_BK.argmax(1).tolist()
        scaled_BK = scores_BK / options.temperature
        return -(codes_BK * (scaled_BK - scaled_BK.logsumexp(1, keepdim=True))).sum(1).mean()

    def _mmd(self) -> Tensor:
        """Expectations over the prior in closed form, cluster by cluster."""
        z_BD, v_KD = self._encode(), self.model.regularizer.head.weight.detach().double()
        dim = s = z_BD.shape[1]
        total = torch.zeros((), dtype=torch.float64)
        for k, v_D in enumerate(v_KD):
            members = [z for z, c in zip(z_BD, self.assignments, strict=True) if c == k]
            n = len(members)
            if n < 2:
                continue
            for i, z in enumerate(members):
                for j, other in enumerate(members):
                    if i != j:
                        total = total + oracles.gaussian(z, other, s) / (n * (n - 1))
                cross = (s / (1 + s)) ** (dim / 2) * torch.exp(-((z - v_D) ** 2).sum() / (2 * (1 + s)))
                total = total - 2 * cross / n
            total = total + (s / (2 + s)) ** (dim / 2)
        return self.model.regularizer.options.weight * total

    def _reconstruction(self) -> Tensor:
        logits = self.model.decode(self.model.features(self.x_BCHW)[0]).float()
        x = self.x_BCHW
        return -(x * F.logsigmoid(logits) + (1 - x) * F.logsigmoid(-logits)).sum((1, 2, 3)).mean()


@pytest.mark.parametrize("scores", ["raw", "cosine"])
@pytest.mark.parametrize(("precision", "fused"), [("fp32", False), ("fp32", True), ("bf16", True)])
def test_every_step_is_the_papers_at_the_weights_of_the_moment(
    scores: str, precision: str, fused: bool, batches: Batches
) -> None:
    # A large learning rate: codes from before an update would be far off.
    model, x = make(ProtoVAE, prototypes=4, scores=scores, closed_form=True), batches[0]
    train(model, batches, lr=0.01)
    oracle = Oracle(model, x)
    rows = train(model, [x], lr=0.01, precision=precision, fused=fused, inspect=oracle)
    # The first three come from the harness's dry run.
    assert oracle.seen == ["prototypes", "mmd", "reconstruction"]
    assert set(rows[0]["log"]) == {"assignment_agreement", "prototype_separation", "bce"}
    rounded = {"rounded_share"} if scores == "raw" else set()
    assert set(rows[0]["log_max"]) == {"prototype_mass_deviation"} | rounded


def _updates(model: Model, x_BCHW: Tensor) -> dict[str, Update]:
    return {update.name: update for update in model.regularizer.steps(model, x_BCHW)}


def test_each_step_moves_what_the_paper_says(batches: Batches) -> None:
    model = make(ProtoVAE, prototypes=3)
    updates = _updates(model, batches[0])
    encoding, head = list(model.encoding), model.regularizer.head
    assert list(updates["prototypes"].updates) == [*encoding, head]
    assert list(updates["mmd"].updates) == encoding
    assert list(updates["reconstruction"].updates) == [*encoding, model.decoder]
    optimizers = [update.optimizer or name for name, update in updates.items()]
    assert optimizers == ["prototypes", "mmd", "reconstruction"]


@pytest.mark.parametrize("closed_form", [False, True])
def test_the_mmd_step_holds_the_prototypes_fixed(closed_form: bool, batches: Batches) -> None:
    model = make(ProtoVAE, prototypes=3, closed_form=closed_form)
    mmd = _updates(model, batches[0])["mmd"].loss
    assert torch.autograd.grad(mmd, model.regularizer.head.weight, allow_unused=True) == (None,)


@pytest.mark.parametrize("biased", [False, True])
def test_the_sampled_mmd_is_the_loop_over_clusters(biased: bool, batches: Batches) -> None:
    model, x = make(ProtoVAE, prototypes=3, biased=biased, weight=2.0), batches[0]
    scores_BK = model.encode(x).detach().double() @ model.regularizer.head.weight.detach().double().T
    assignments = oracles.sinkhorn(scores_BK.numpy(), 0.05, 2000).argmax(1).tolist()
    torch.manual_seed(4)
    loss = _updates(model, x)["mmd"].loss
    torch.manual_seed(4)
    noise_BD = torch.randn(24, 8).double()
    z_BD, v_KD = model.encode(x).detach().double(), model.regularizer.head.weight.detach().double()
    expected = oracles.per_prototype_mmd(
        z_BD, v_KD, assignments, noise_BD, lambda a, b: oracles.gaussian(a, b, 8), biased=biased
    )
    assert loss.item() == pytest.approx(2 * expected.item(), abs=1e-5)


@pytest.mark.parametrize("scores", ["raw", "cosine"])
def test_one_prototype_never_moves(scores: str, batches: Batches) -> None:
    model = make(ProtoVAE, prototypes=1, scores=scores)
    v_KD = model.regularizer.head.weight
    loss = _updates(model, batches[0])["prototypes"].loss
    assert loss == 0
    gradients = torch.autograd.grad(loss, [v_KD, *model.net.encoder.parameters()])
    assert all((gradient == 0).all() for gradient in gradients)
    before = v_KD.detach().clone()
    rows = train(model, batches * 3, lr=0.01)
    assert torch.equal(v_KD, before)
    assert all(row["losses"]["prototypes"] == 0 for row in rows)
    assert all(row["log"]["prototype_separation"] == 0 for row in rows)
    assert all(row["log"]["assignment_agreement"] == 1 for row in rows)


def test_prototype_masses_hold_at_the_default_iterations(batches: Batches) -> None:
    model = make(ProtoVAE, prototypes=5)
    rows = train(model, batches * 10)
    assert max(row["log_max"]["prototype_mass_deviation"] for row in rows) < 1e-4
    assert max(row["log_max"]["rounded_share"] for row in rows) < 0.02


def test_separation_is_the_mean_distance_over_root_d() -> None:
    method = make(ProtoVAE, prototypes=6).regularizer
    v_KD = method.prototypes()
    expected = pdist(v_KD.numpy()).mean() / math.sqrt(v_KD.shape[1])
    assert method.separation().item() == pytest.approx(expected, rel=1e-5)


def test_evaluation_assigns_the_most_similar_prototype() -> None:
    z_BD = torch.randn(50, 8, generator=torch.Generator().manual_seed(0))
    for scores in ("raw", "cosine"):
        method = make(ProtoVAE, prototypes=6, scores=scores).regularizer
        with torch.no_grad():
            method.head.weight[0] *= 5
        v_KD = method.prototypes().double().numpy()
        if scores == "cosine":
            v_KD = v_KD / np.linalg.norm(v_KD, axis=1, keepdims=True)
        expected = (z_BD.double().numpy() @ v_KD.T).argmax(1)
        assert method.assign(z_BD).tolist() == expected.tolist()


def test_samples_lie_around_the_prototypes() -> None:
    method = make(ProtoVAE, prototypes=4).regularizer
    with torch.no_grad():
        method.head.weight.copy_(100 * torch.eye(4, 8))
    for scale in (1.0, 0.25):
        torch.manual_seed(0)
        drawn_from = torch.randint(4, (8000,))
        z_ND = method.sample(8000) if scale == 1 else method.sample_cluster(drawn_from, scale)
        k_N = method.assign(z_ND)
        shares = torch.bincount(k_N, minlength=4) / 8000
        torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)
        residual_ND = z_ND - method.prototypes()[k_N]
        assert residual_ND.std().item() == pytest.approx(scale, rel=0.02)
        assert residual_ND.mean().abs() < 0.02
    assert torch.equal(k_N, drawn_from)
    assert not z_ND.requires_grad
    assert torch.equal(method.sample_cluster(drawn_from, 0.0), method.prototypes()[drawn_from])


def test_prototypes_start_as_a_linear_layer(batches: Batches) -> None:
    method = make(ProtoVAE, prototypes=10).regularizer
    assert method.head.bias is None
    assert method.prototypes().abs().max() <= 1 / math.sqrt(8)
    before = method.prototypes().clone()
    method.on_regularization_start(make(ProtoVAE), batches)
    assert torch.equal(method.prototypes(), before)


def test_kmeans_seeding_finds_the_clusters_of_the_codes() -> None:
    centres_KD = 20 * torch.eye(3, 8)
    noise = torch.randn(90, 8, generator=torch.Generator().manual_seed(0))
    codes_ND = centres_KD.repeat(30, 1) + 0.1 * noise

    class Coded(torch.nn.Module):
        def encode(self, x_BD: Tensor) -> Tensor:
            return x_BD

    method = make(ProtoVAE, prototypes=3, seeding="kmeans").regularizer
    with torch.no_grad():
        method.on_regularization_start(Coded(), codes_ND.split(18))  # type: ignore[arg-type]
    found = method.prototypes()[method.prototypes().argmax(1).argsort()]
    torch.testing.assert_close(found, centres_KD, atol=0.1, rtol=0)


def test_kmeans_seeding_on_a_model_is_reproducible(batches: Batches) -> None:
    found = []
    for _ in range(2):
        model = make(ProtoVAE, prototypes=3, seeding="kmeans")
        torch.manual_seed(1)
        with torch.no_grad():
            model.regularizer.on_regularization_start(model, batches)
        found.append(model.regularizer.prototypes().clone())
    assert torch.equal(*found)
    assert not torch.equal(found[0], make(ProtoVAE, prototypes=3).regularizer.prototypes())


def test_one_adam_can_serve_all_steps(batches: Batches) -> None:
    shared = make(ProtoVAE, prototypes=3, shared_adam=True)
    assert {update.optimizer or name for name, update in _updates(shared, batches[0]).items()} == {
        "reconstruction"
    }
    with pytest.raises(ValueError, match="mmd_lr"):
        ProtoVAE.Options(shared_adam=True, mmd_lr=1e-4)


def _trained_code(batches: Batches, **options: Any) -> Tensor:
    model = make(ProtoVAE, prototypes=3, closed_form=True, **options)
    train(model, batches)
    return model.net.code.weight.detach()


def _moved_by_mmd(batches: Batches, **options: Any) -> float:
    """How far one MMD step moves the code layer."""
    model = make(ProtoVAE, prototypes=3, closed_form=True, **options)
    code = model.net.code.weight
    seen: dict[str, Tensor] = {}
    train(model, [batches[0]], inspect=lambda update: seen.update({update.name: code.detach().clone()}))
    return (seen["reconstruction"] - seen["mmd"]).norm().item()


def test_the_mmd_learning_rate_is_the_knob_and_the_weight_is_not(batches: Batches) -> None:
    usual = _moved_by_mmd(batches)
    assert _moved_by_mmd(batches, mmd_lr=1e-4) == pytest.approx(0.1 * usual, rel=0.01)
    assert _moved_by_mmd(batches, weight=100.0) == pytest.approx(usual, rel=0.01)
    separate, shared = (
        (_trained_code(batches, weight=100.0, **options) - _trained_code(batches, **options)).norm()
        for options in ({}, {"shared_adam": True})
    )
    assert shared > 20 * separate


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"scores": "cosine"},
        {"bandwidth": "median", "biased": True},
        {"closed_form": True},
        {"kernel": "imq"},
    ],
    ids=str,
)
def test_steps_wait_for_nothing(options: dict[str, Any], batches: Batches) -> None:
    model = make(ProtoVAE, prototypes=4, **options)
    with HostSyncFinder() as finder, torch.autocast("cpu", torch.bfloat16):
        for update in model.regularizer.steps(model, batches[0]):
            update.loss.backward()
            assert update.loss.dtype == torch.float32
    assert finder.found == []


def test_warns_where_prototype_masses_are_off() -> None:
    method = ProtoVAE(ProtoVAE.Options(prototypes=3), Dims(4, 8, 1, 8))
    rows: list[dict[str, Any]] = [
        {"log_max": {}},
        *({"log_max": {"prototype_mass_deviation": value}} for value in (0.01, 0.5, 0.03)),
    ]
    (warning,) = method.warnings(rows)
    assert "off by up to 50%" in warning
    assert "more than 2% in 2 of 3 regularized epochs, at 200 Sinkhorn iterations" in warning
    assert method.warnings(rows[:2]) == []
    assert method.warnings([]) == []
