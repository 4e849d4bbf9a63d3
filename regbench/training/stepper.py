"""The optimizer steps of one batch: the same code for every method.

Shape suffixes: B batch, C channels, H height, W width, D latent units, F features.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regbench.api import AdamOptions
from regbench.errors import PluginError
from regbench.model import Model
from regbench.training.discover import PlannedUpdate, advance, discover, parameters_of, untouched
from regbench.training.meter import Meter
from regbench.training.precision import Precision, autocast

WARMUP = "warmup"
"""Name of the warm-up's update, and of its Adam where no method's Adam can serve."""

_LAUNCHED = ("fused", "capturable", "foreach")
"""Settings of an Adam that belong to the device and the way of launching, not to the training."""


@dataclass(frozen=True, slots=True)
class AdamSettings:
    """The suite's Adam."""

    lr: float = 1e-3
    betas: tuple[float, float] = (0.9, 0.999)
    fused: bool = True


class Stepper:
    """Owns the optimizers of a model and makes its steps, in the warm-up and after it.

    ``x_BCHW`` is an example batch for the dry run that finds the method's updates. ``capturable``: the Adams keep
    their step counts on the device, as a CUDA graph needs them.
    """

    def __init__(
        self,
        model: Model,
        adam: AdamSettings,
        precision: Precision,
        x_BCHW: Tensor,
        *,
        capturable: bool = False,
    ) -> None:
        self.model = model
        self.capturable = capturable
        self.precision = precision
        self.device = model.progress.device
        # In place from here on: a graph reads it where it is.
        model.index_B = torch.arange(len(x_BCHW), device=self.device)
        self.updates = discover(model, x_BCHW)
        if precision == "bf16":
            self._rehearse(x_BCHW)
        self._shared = parameters_of([*model.encoding, model.decoder])
        self._overrides = dict(model.regularizer.optimizers())
        self.optimizers = self._build(adam)
        self._warmup = self._warmup_optimizer(adam)

    def _rehearse(self, x_BCHW: Tensor) -> None:
        """One more dry run, in reduced precision: what fails there shall fail now, not after the warm-up."""
        name = self.model.regularizer.name
        with untouched(self.model):
            generator = self.model.regularizer.steps(self.model, x_BCHW)
            for planned in self.updates:
                with autocast(self.device, self.precision):
                    update = advance(generator, name)
                torch.autograd.grad(update.loss, planned.parameters)

    def _build(self, adam: AdamSettings) -> dict[str, torch.optim.Adam]:
        groups: dict[str, dict[int, nn.Parameter]] = {}
        for update in self.updates:
            groups.setdefault(update.optimizer, {}).update({id(p): p for p in update.parameters})
        unknown = sorted(set(self._overrides) - set(groups))
        if unknown:
            raise PluginError(
                f"{self.model.regularizer.name}: optimizers() names {', '.join(unknown)}, used by no update",
                hint=f"the updates use {', '.join(groups)}",
            )
        return {name: self._adam(parameters.values(), adam) for name, parameters in groups.items()}

    def _warmup_optimizer(self, adam: AdamSettings) -> torch.optim.Adam:
        """The Adam of the last update that trains all of the shared net, so that it lives on after the warm-up."""
        shared = {id(p) for p in self._shared}
        for update in reversed(self.updates):
            if shared <= {id(p) for p in update.parameters}:
                return self.optimizers[update.optimizer]
        self.optimizers[WARMUP] = self._adam(self._shared, adam)
        return self.optimizers[WARMUP]

    def _adam(self, parameters: Iterable[nn.Parameter], adam: AdamSettings) -> torch.optim.Adam:
        return torch.optim.Adam(
            list(parameters),
            lr=adam.lr,
            betas=adam.betas,
            fused=adam.fused and self.device.type in ("cpu", "cuda"),
            capturable=self.capturable,
        )

    def begin_regularization(self) -> None:
        """Give each Adam the method's own settings; the warm-up ran with the suite's, as for every method."""
        for name, override in self._overrides.items():
            _override(self.optimizers[name], override)

    def warmup_step(self, x_BCHW: Tensor, meter: Meter) -> None:
        """One step on the reconstruction alone, decoding the shared code."""
        model = self.model
        with autocast(self.device, self.precision):
            code_BD, h_BF = model.features(x_BCHW)
            loss = model.reconstruction_loss(model.regularizer.warmup_code(code_BD, h_BF), x_BCHW)
        self._apply(loss, self._shared, self._warmup)
        meter.add("losses", {WARMUP: loss})
        meter.end_batch()

    def regularized_step(self, x_BCHW: Tensor, meter: Meter) -> None:
        """All the steps that the method makes on one batch; its generator is run to its end."""
        name = self.model.regularizer.name
        generator = self.model.regularizer.steps(self.model, x_BCHW)
        for planned in self.updates:
            # Autocast is entered afresh for each advance: it caches cast weights, and one cache over the whole
            # batch would return the old encoding after an update.
            with autocast(self.device, self.precision):
                try:
                    update = advance(generator, name)
                except StopIteration:
                    raise PluginError(f"{name}: steps() ended before its update {planned.name!r}") from None
            self._check(update.name, planned)
            self._apply(update.loss, planned.parameters, self.optimizers[planned.optimizer])
            meter.add("losses", {planned.name: update.loss})
            meter.add("log", update.log)
            meter.maximum("log_max", update.log_max)
        with autocast(self.device, self.precision):
            try:
                extra = advance(generator, name)
            except StopIteration:
                meter.end_batch()
                return
        raise PluginError(
            f"{name}: steps() made an update {extra.name!r} that it did not make in the first batch"
        )

    @property
    def steps_per_batch(self) -> int:
        return len(self.updates)

    def _check(self, found: str, planned: PlannedUpdate) -> None:
        if found != planned.name:
            raise PluginError(
                f"{self.model.regularizer.name}: steps() made the update {found!r}, at first {planned.name!r}",
                hint="every batch must make the same updates in the same order",
            )

    def _apply(self, loss: Tensor, parameters: tuple[nn.Parameter, ...], optimizer: torch.optim.Adam) -> None:
        # backward(inputs=...) instead of grad(): it keeps each gradient in its parameter's memory layout, which
        # fused Adam relies on.
        torch.autograd.backward(loss, inputs=list(parameters))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    def state_dict(self) -> dict[str, Any]:
        return {name: optimizer.state_dict() for name, optimizer in self.optimizers.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over moments and settings; how an Adam is launched stays as it is here."""
        for name, optimizer in self.optimizers.items():
            own = [{key: group[key] for key in _LAUNCHED} for group in optimizer.param_groups]
            saved = state[name]
            groups = [{**group, **kept} for group, kept in zip(saved["param_groups"], own, strict=True)]
            optimizer.load_state_dict({**saved, "param_groups": groups})


def _override(optimizer: torch.optim.Adam, override: AdamOptions) -> None:
    for group in optimizer.param_groups:
        if override.lr is not None:
            group["lr"] = override.lr
        if override.betas is not None:
            group["betas"] = override.betas
        group["weight_decay"] = override.weight_decay
