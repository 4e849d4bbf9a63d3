"""The dry run finds a method's updates, wipes its traces, and names every trap that a method steps into."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from regbench import Model, Regularizer, Update
from regbench.errors import PluginError
from regbench.model import build_model
from regbench.nets import NetShape
from regbench.training.discover import discover, parameters_of

SHAPE = NetShape(channels=1, side=8, latent=4, features=8, widths=(4,))


def model_of(method: type[Regularizer]) -> Model:
    return build_model(SHAPE, method, seed=0)


def images(n: int = 6) -> Tensor:
    return torch.rand(n, 1, 8, 8, generator=torch.Generator().manual_seed(0))


class Good(Regularizer):
    name = "good"

    def build(self, dims: Any) -> None:
        self.scale = nn.Parameter(torch.ones(()))
        self.register_buffer("seen", torch.zeros(()))

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        yield Update(
            "size", self.scale * z_BD.pow(2).mean(), [*model.encoding, self.scale], log={"a": z_BD.mean()}
        )
        bce = model.reconstruction_loss(model.encode(x_BCHW), x_BCHW)
        yield Update("reconstruction", bce, [*model.encoding, model.decoder], optimizer="shared")
        self.seen += torch.randn(())  # runs once per batch, after the last update


def test_finds_names_optimizers_and_parameters() -> None:
    model = model_of(Good)
    size, reconstruction = discover(model, images())
    assert (size.name, size.optimizer, size.logged) == ("size", "size", ("a",))
    assert (reconstruction.name, reconstruction.optimizer) == ("reconstruction", "shared")
    method = model.regularizer
    assert size.parameters == parameters_of([*model.encoding, method.scale])
    assert set(map(id, reconstruction.parameters)) == set(map(id, model.net.parameters()))


def test_leaves_no_trace() -> None:
    model = model_of(Good)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    expected = torch.randn(3)
    torch.manual_seed(5)
    discover(model, images())
    assert torch.equal(torch.randn(3), expected), "the random stream has moved"
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert all(parameter.grad is None for parameter in model.parameters())


class Stale(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        z_BD = model.encode(x_BCHW)
        yield Update("first", z_BD.pow(2).mean(), model.encoding)
        yield Update("second", model.reconstruction_loss(z_BD, x_BCHW), [*model.encoding, model.decoder])


class LeakyGradMode(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        loss = model.encode(x_BCHW).mean()
        with torch.no_grad():
            yield Update("loss", loss, model.encoding)


class LeakyAutocast(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            yield Update("loss", model.encode(x_BCHW).float().mean(), model.encoding)


class Counting(Good):
    def build(self, dims: Any) -> None:
        super().build(dims)
        self.calls = 0

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        self.calls += 1
        yield Update("loss", model.encode(x_BCHW).mean(), model.encoding)


class Unused(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("loss", model.encode(x_BCHW).mean(), [*model.encoding, model.decoder])


class Remembering(Good):
    def build(self, dims: Any) -> None:
        super().build(dims)
        self.last = [torch.zeros(6, 4)]

    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        self.last[0] = model.encode(x_BCHW).detach()
        yield from super().steps(model, x_BCHW)


class Recurrent(Good):
    """A layer that keeps its weights in a list, too."""

    def build(self, dims: Any) -> None:
        super().build(dims)
        self.recurrent = nn.GRU(2, 3)


class Twice(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("loss", model.encode(x_BCHW).mean(), model.encoding)
        yield Update("loss", model.encode(x_BCHW).mean(), model.encoding)


class NotScalar(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("loss", model.encode(x_BCHW).mean(0), model.encoding)


class LogsNumber(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("loss", model.encode(x_BCHW).mean(), model.encoding, log={"n": 3.0})  # type: ignore[dict-item]


class Nothing(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        return iter(())


class NoParameters(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("loss", model.encode(x_BCHW).mean(), [])


class NoGradient(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield Update("loss", model.encode(x_BCHW).detach().mean(), model.encoding)


class WrongType(Good):
    def steps(self, model: Model, x_BCHW: Tensor) -> Iterator[Update]:
        yield model.encode(x_BCHW).mean()  # type: ignore[misc]


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (Stale, "update 'second' uses a tensor from before an earlier update"),
        (LeakyGradMode, "grad mode or autocast was changed"),
        (LeakyAutocast, "grad mode or autocast was changed"),
        (Counting, "changed the attribute calls"),
        (Remembering, "changed the attribute last"),
        (Unused, "which its loss does not depend on"),
        (Twice, "update 'loss' appears twice"),
        (NotScalar, r"loss of shape \(4,\)"),
        (LogsNumber, "logs 'n' as float"),
        (Nothing, "yielded no update"),
        (NoParameters, "moves no parameter"),
        (NoGradient, "its loss has no gradient"),
        (WrongType, "yielded Tensor, expected regbench.Update"),
    ],
)
def test_traps_are_named(method: type[Regularizer], message: str) -> None:
    with pytest.raises(PluginError, match=message):
        discover(model_of(method), images())
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")


def test_tensors_in_containers_are_no_trap_while_they_are_the_same() -> None:
    assert len(discover(model_of(Recurrent), images())) == 2
