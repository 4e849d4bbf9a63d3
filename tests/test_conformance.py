"""The conformance kit: it passes the bundled methods, and each of its checks catches what it is there for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

import regbench
from regbench import Field, Model, Regularizer, Update
from regbench.plugins import registry
from regbench.testing import assert_conforms, check

BUNDLED: list[tuple[str, dict[str, Any]]] = [
    ("ae", {}),
    ("ae", {"updates_per_batch": 3}),
    ("vae-kl", {}),
    ("infovae-mmd", {}),
    ("infovae-mmd", {"encoder": "deterministic"}),
    ("proto-vae", {"sinkhorn_iterations": 20}),
    ("proto-vae", {"scores": "cosine"}),
    ("proto-vae", {"prototypes": 1, "shared_adam": True}),
]


@pytest.mark.parametrize(("name", "options"), BUNDLED)
def test_bundled_methods_conform(name: str, options: dict[str, Any]) -> None:
    assert_conforms(registry().regularizers[name].cls, **options)


class L2(Regularizer):
    """Passes every check; the others below break one thing each."""

    name = "l2"

    class Options(regbench.Options):
        weight: float = Field(0.1, ge=0, description="factor")

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"size": self.options.weight * code_BD.pow(2).sum(1).mean()}


class NoDefault(L2):
    class Options(regbench.Options):
        weight: float = Field(ge=0, description="factor")


class NoDescription(L2):
    class Options(regbench.Options):
        weight: float = Field(0.1, ge=0)


class TakesAnything(L2):
    class Options(regbench.Options):
        model_config: ClassVar[Any] = {"extra": "allow"}
        weight: float = Field(0.1, ge=0, description="factor")


class InfiniteGradient(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"root": self.options.weight * (code_BD * 0).sum(1).sqrt().mean()}


class MovesByHand(L2):
    def build(self, dims: Any) -> None:
        self.codebook = nn.Parameter(torch.zeros(3))

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("loss", bce, [*model.encoding, model.decoder])
        with torch.no_grad():
            self.codebook += 1


class AlwaysSamples(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD + torch.randn_like(code_BD), {"size": self.options.weight * code_BD.pow(2).mean()}


class BatchStatistics(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD - code_BD.mean(0), {"size": self.options.weight * code_BD.pow(2).mean()}


class SaysStochastic(L2):
    @property
    def stochastic(self) -> bool:
        return True


class OwnWarmup(L2):
    def warmup_code(self, code_BD: Tensor, h_BF: Tensor) -> Tensor:
        return code_BD * 2


class WeightForgotten(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"size": 0.1 * code_BD.pow(2).sum(1).mean()}


class ForeignState(L2):
    count: ClassVar[list[int]] = [0]

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.count[0] += 1
        return code_BD, {"size": self.options.weight * self.count[0] * code_BD.pow(2).sum(1).mean()}


class HiddenState(L2):
    """Keeps a tensor that no checkpoint holds."""

    def build(self, dims: Any) -> None:
        self.average = torch.zeros(dims.latent)

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self.average = 0.9 * self.average + 0.1 * code_BD.detach().float().mean(0)
        return code_BD, {"size": self.options.weight * (code_BD - self.average).pow(2).sum(1).mean()}


class Waits(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        scale = code_BD.pow(2).mean().item()
        return code_BD, {"size": self.options.weight * scale * code_BD.pow(2).sum(1).mean()}


class Branches(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        large = code_BD[code_BD > 0]
        return code_BD, {"size": self.options.weight * large.pow(2).sum()}


class Lists(L2):
    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        first = code_BD[0].detach().tolist()[0]
        return code_BD, {"size": self.options.weight * first**2 * code_BD.pow(2).sum(1).mean()}


class CountsInPrivate(L2):
    def build(self, dims: Any) -> None:
        self._calls = 0

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        self._calls += 1
        return code_BD, {"size": self.options.weight * code_BD.pow(2).sum(1).mean()}


class EndsTwice(L2):
    def build(self, dims: Any) -> None:
        self.register_buffer("total", torch.zeros(()))

    def on_training_end(self, model: Any, batches: Any) -> None:
        self.total += 1


class Contracts(L2):
    """A penalty on the gradient of the code by the image."""

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        x_BCHW = x_BCHW.clone().requires_grad_()
        z_BD = model.encode(x_BCHW)
        (slope_BCHW,) = torch.autograd.grad(z_BD.sum(), x_BCHW, create_graph=True)
        loss = (
            model.reconstruction_loss(z_BD, x_BCHW.detach()) + self.options.weight * slope_BCHW.square().sum()
        )
        yield Update("loss", loss, [*model.encoding, model.decoder])


class ContractsAndSaysSo(Contracts):
    compilable = False


class UnnamedPrior(L2):
    def sample(self, n: int) -> Tensor:
        return torch.randn(n, self.dims.latent)


class NoSamples(L2):
    prior = "N(0, I)"


class NoFittedSamples(L2):
    ex_post = "Gaussian fitted to the codes"


class TwoSources(L2):
    prior = "N(0, I)"
    ex_post = "Gaussian fitted to the codes"

    def sample(self, n: int) -> Tensor:
        return self.standard_normal(n)


class WrongSamples(L2):
    prior = "N(0, I)"

    def sample(self, n: int) -> Tensor:
        return torch.randn(n, 2)


class FloatClusters(L2):
    def assign(self, z_BD: Tensor) -> Tensor:
        return z_BD[:, 0]


class NotInBfloat16(L2):
    """Refuses what autocast hands it."""

    def forward(self, code_BD: Tensor, h_BF: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
        return code_BD, {"size": self.options.weight * torch.linalg.matrix_norm(code_BD, ord=2)}


@pytest.mark.parametrize(
    ("method", "broken", "message"),
    [
        (NoDefault, "options", "no default for weight"),
        (NoDescription, "options", "no description for weight"),
        (TakesAnything, "options", "an unknown option is accepted"),
        (InfiniteGradient, "losses and gradients are finite", "not finite: update 'loss': gradient of"),
        (
            MovesByHand,
            "each update moves exactly",
            "steps() itself changed the parameter regularizer.codebook",
        ),
        (AlwaysSamples, "the mean code is the same twice", "two encodings of the same images differ"),
        (AlwaysSamples, "`stochastic` says", "codes are sampled, but `stochastic` is False"),
        (BatchStatistics, "the mean code is the same twice", "changes with the other images"),
        (SaysStochastic, "`stochastic` says", "two samples are equal"),
        (OwnWarmup, "at the end of the warm-up", "after the warm-up encoder"),
        (WeightForgotten, "with weight 0", "weight 0 trains another network than AE"),
        (ForeignState, "the same seed", "two trainings with the same seed differ"),
        (HiddenState, "a training that is saved", "after saving and loading, training went on differently"),
        (EndsTwice, "on_training_end begins anew", "a second call changed regularizer.total"),
        (Waits, "a step never makes the host wait", ".item()"),
        (Branches, "a step never makes the host wait", "boolean indexing"),
        (Lists, "a step never makes the host wait", ".tolist()"),
        (CountsInPrivate, "losses and gradients", "changed the attribute _calls"),
        (Contracts, "a method that takes gradients of", "gradients of gradients"),
        (UnnamedPrior, "sample(n) gives", "neither `prior` nor `ex_post` says"),
        (NoSamples, "sample(n) gives", "prior is 'N(0, I)', but sample() gives nothing"),
        (NoFittedSamples, "sample(n) gives", "ex_post is 'Gaussian fitted to the codes', but"),
        (TwoSources, "sample(n) gives", "sample() draws from one of them"),
        (WrongSamples, "sample(n) gives", "sample(5) has shape (5, 2)"),
        (FloatClusters, "prototypes() and assign()", "expected integers (B,)"),
        (NotInBfloat16, "trains in bf16", "Low precision"),
    ],
)
def test_each_check_catches_what_it_is_there_for(
    method: type[Regularizer], broken: str, message: str
) -> None:
    failures = {finding.check: finding for finding in check(method).failures}
    (finding,) = [each for title, each in failures.items() if title.startswith(broken)]
    assert message in finding.message
    assert finding.mend or finding.traceback or "expected" in finding.message


def test_a_method_that_is_not_compiled_may_take_gradients_of_gradients() -> None:
    assert not [each for each in check(ContractsAndSaysSo).failures if "gradients of gradients" in each.check]


def test_a_sound_method_passes() -> None:
    report = check(L2)
    assert not report.failures, str(report)
    assert "0 of 15 checks failed" in str(report)
    with pytest.raises(AssertionError, match="no description for weight"):
        assert_conforms(NoDescription)
