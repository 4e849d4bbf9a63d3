"""What the checks work with: real images, a small shared net, and short trainings of the method and of AE.

Shape suffixes: B batch, C channels, H height, W width, D latent units.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from regbench.api import Options, Regularizer
from regbench.data.batches import Batches
from regbench.model import Model, build_model
from regbench.modes import threads
from regbench.nets import NetShape
from regbench.training.meter import Meter
from regbench.training.precision import Precision
from regbench.training.stepper import AdamSettings, Stepper
from regbench.training.trainer import Trainer, TrainingSettings

SHAPE = NetShape(channels=1, side=8, latent=12, features=24, widths=(8,))
BATCH = 32
BATCHES = 4
WARMUP = 2
EPOCHS = 4
SEED = 7


def small_digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """scikit-learn's 1,797 digits as they come, 8 x 8 pixels: images_NCHW, and which digit each is."""
    digits = load_digits()
    return np.rint(digits.images[:, None] * (255 / 16)).astype(np.uint8), digits.target.astype(np.int64)


def one_thread() -> AbstractContextManager[None]:
    """Tensors as small as these are slower on several threads than on one."""
    return threads(torch.device("cpu"), 0.0)


class Plain(Regularizer):
    """The unregularized autoencoder that methods are compared with."""

    name = "plain-autoencoder"


@dataclass(frozen=True)
class Bench:
    """One method with one set of options, ready to be tried out."""

    method: type[Regularizer]
    given: Mapping[str, Any]
    device: torch.device

    @cached_property
    def options(self) -> Options:
        return self.method.Options(**self.given)

    @cached_property
    def batches(self) -> Batches:
        return Batches(small_digits()[0][: BATCH * BATCHES], self.device)

    @cached_property
    def x_BCHW(self) -> Tensor:
        return next(iter(self.batches.sequential(BATCH)))

    def model(self, method: type[Regularizer] | None = None, **changed: Any) -> Model:
        chosen = method or self.method
        options = {} if method is not None else {**self.given, **changed}
        return build_model(SHAPE, chosen, options, seed=SEED, device=self.device, images=BATCH * BATCHES)

    def trainer(
        self,
        method: type[Regularizer] | None = None,
        *,
        warmup: int = WARMUP,
        epochs: int = EPOCHS,
        precision: Precision = "fp32",
        fused: bool = False,
        **changed: Any,
    ) -> Trainer:
        settings = TrainingSettings(epochs, warmup, BATCH, AdamSettings(fused=fused), precision)
        return Trainer(self.model(method, **changed), self.batches, settings, SEED)

    def trained(self, method: type[Regularizer] | None = None, **settings: Any) -> Trainer:
        """A trainer after all its epochs."""
        trainer = self.trainer(method, **settings)
        for epoch in range(1, trainer.settings.epochs + 1):
            trainer.run_epoch(epoch)
        trainer.finish()
        return trainer


class RecordingStepper(Stepper):
    """Notes which parameters each update moved, and which gradients it saw."""

    def watch(self) -> None:
        self.moved: list[tuple[str, set[str], set[str], set[str]]] = []
        """Per update: name, declared, moved, declared with a gradient that is not zero."""
        self.unfinite: list[str] = []

    def _apply(self, loss: Tensor, parameters: Any, optimizer: torch.optim.Adam) -> None:
        named = dict(self.model.named_parameters())
        names = {id(parameter): name for name, parameter in named.items()}
        declared = {names.get(id(parameter), "a parameter outside the model") for parameter in parameters}
        before = {name: parameter.detach().clone() for name, parameter in named.items()}
        update = self.updates[len(self.moved)].name
        gradients = torch.autograd.grad(loss, list(parameters), retain_graph=True)
        pulled = {
            names.get(id(p), "a parameter outside the model")
            for p, g in zip(parameters, gradients, strict=True)
            if bool((g != 0).any())
        }
        bad = [
            names.get(id(p), "?")
            for p, g in zip(parameters, gradients, strict=True)
            if not bool(g.isfinite().all())
        ]
        if bad or not bool(loss.isfinite()):
            self.unfinite.append(
                f"update {update!r}: " + (f"gradient of {', '.join(bad)}" if bad else "loss")
            )
        super()._apply(loss, parameters, optimizer)
        moved = {name for name, parameter in named.items() if not torch.equal(parameter, before[name])}
        self.moved.append((update, declared, moved, pulled))


class HostSyncFinder(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes operations that make the host wait for the device, or whose output size depends on data."""

    SYNCING = frozenset(
        {
            "_local_scalar_dense",
            "nonzero",
            "masked_select",
            "_unique2",
            "unique_dim",
            "unique_consecutive",
            "equal",
            "is_nonzero",
            "bincount",
        }
    )

    LEAVING = ("tolist", "cpu", "numpy", "__array__")

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: list[str] = []

    def __enter__(self) -> Self:
        # These leave the device without an operation that a dispatch mode would see.
        self._originals = {name: getattr(Tensor, name) for name in self.LEAVING}
        for name, original in self._originals.items():
            setattr(Tensor, name, self._noting(name, original))
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        super().__exit__(*exception)  # type: ignore[no-untyped-call]
        for name, original in self._originals.items():
            setattr(Tensor, name, original)

    def _noting(self, name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def noted(*args: Any, **kwargs: Any) -> Any:
            self.found.append(f".{name}()")
            return original(*args, **kwargs)

        return noted

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        masks = args[1] if name in ("index", "index_put", "index_put_") else ()
        if name in self.SYNCING or any(isinstance(m, Tensor) and m.dtype is torch.bool for m in masks):
            self.found.append("boolean indexing" if masks else name)
        return func(*args, **(kwargs or {}))


def one_batch(stepper: Stepper, x_BCHW: Tensor) -> None:
    stepper.regularized_step(x_BCHW, Meter())


def shared_state(trainer: Trainer) -> Iterator[tuple[str, Tensor]]:
    """Weights of the shared net, by name."""
    yield from trainer.model.net.state_dict().items()


def differing(left: Trainer, right: Trainer) -> list[str]:
    """Names of the shared net's weights that are not bit for bit the same."""
    others = dict(shared_state(right))
    return [name for name, value in shared_state(left) if not torch.equal(value, others[name])]
