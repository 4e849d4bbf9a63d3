"""Which optimizer steps a method makes: found by one dry run, whose traces are wiped.

The dry run also closes the traps that a method can step into without noticing: a graph from before an
update, a declared parameter that the loss does not reach, grad mode leaking out of a ``yield``, and Python
state that changes from batch to batch.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from regbench.api import Update
from regbench.errors import PluginError
from regbench.model import Model
from regbench.modes import forked

_OWN = frozenset(vars(nn.Module()))
"""What every module has."""
_PLAIN = (bool, int, float, str, bytes, type(None), tuple, list, dict, set)


@dataclass(frozen=True, slots=True)
class PlannedUpdate:
    """One optimizer step of every batch."""

    name: str
    optimizer: str
    parameters: tuple[nn.Parameter, ...]
    logged: tuple[str, ...]
    """Names in ``log``, then in ``log_max``."""


def parameters_of(updates: Iterable[nn.Module | nn.Parameter]) -> tuple[nn.Parameter, ...]:
    """All parameters of modules and parameters, each once, those that take gradients only."""
    found: dict[int, nn.Parameter] = {}
    for part in updates:
        for parameter in part.parameters() if isinstance(part, nn.Module) else (part,):
            if parameter.requires_grad:
                found[id(parameter)] = parameter
    return tuple(found.values())


def discover(model: Model, x_BCHW: Tensor) -> tuple[PlannedUpdate, ...]:
    """Run ``steps`` once without stepping any optimizer, and say which updates it makes.

    Weights, buffers and random streams are as before afterwards. Raises ``PluginError`` where the method
    breaks the contract of :meth:`regbench.Regularizer.steps`.
    """
    method = model.regularizer
    plain = _plain_state(method)
    planned: list[PlannedUpdate] = []
    with untouched(model), torch.enable_grad():
        generator = method.steps(model, x_BCHW)
        while True:
            try:
                update = advance(generator, method.name)
            except StopIteration:
                break
            planned.append(_examine(model, update, planned))
    changed = sorted(name for name, value in _plain_state(method).items() if plain.get(name) != value)
    if changed:
        raise PluginError(
            f"{method.name}: steps() changed the attribute {', '.join(changed)}",
            hint="keep state in a buffer, so that a checkpoint holds it, and anneal with model.progress",
        )
    if not planned:
        raise PluginError(
            f"{method.name}: steps() yielded no update", hint="yield at least one regbench.Update"
        )
    return tuple(planned)


def advance(generator: Iterator[Update], name: str) -> Update:
    """The generator's next update; fails if grad mode or autocast differ after it. Raises StopIteration at its end."""
    before = _modes()
    try:
        update = next(generator)
    finally:
        after = _modes()
        torch.set_grad_enabled(before[0])
    if after != before:
        raise PluginError(
            f"{name}: grad mode or autocast was changed and still is at a yield in steps()",
            hint="close every `with torch.no_grad():` or `with torch.autocast(...):` before the yield",
        )
    if not isinstance(update, Update):
        raise PluginError(f"{name}: steps() yielded {type(update).__name__}, expected regbench.Update")
    return update


@contextmanager
def untouched(model: Model, optimizers: Iterable[torch.optim.Optimizer] = ()) -> Iterator[None]:
    """Weights, buffers, gradients, moments of Adam and random streams of the block are rolled back.

    In place: a tensor stays where it is. Moments that the block has created are left as zeros, which is what
    Adam begins with.
    """
    device = model.progress.device
    saved = {name: tensor.detach().clone() for name, tensor in _tensors(model)}
    moments = {place: tensor.clone() for place, tensor in _moments(optimizers)}
    with forked(device):
        try:
            yield
        finally:
            with torch.no_grad():
                for name, tensor in _tensors(model):
                    tensor.copy_(saved[name])
                for place, tensor in _moments(optimizers):
                    if place in moments:
                        tensor.copy_(moments[place])
                    else:
                        tensor.zero_()
            model.zero_grad(set_to_none=True)


def _tensors(model: Model) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, also those that are in no state_dict."""
    yield from model.named_parameters()
    yield from model.named_buffers()


def _moments(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[tuple[tuple[int, int, str], Tensor]]:
    """Each state tensor of each optimizer, by optimizer, parameter and name."""
    for number, optimizer in enumerate(optimizers):
        for parameter, state in optimizer.state.items():
            for name, tensor in state.items():
                yield (number, id(parameter), name), tensor


def _modes() -> tuple[Any, ...]:
    kinds = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    return (
        torch.is_grad_enabled(),
        *((torch.is_autocast_enabled(k), torch.get_autocast_dtype(k)) for k in kinds),
    )


def _examine(model: Model, update: Update, earlier: Sequence[PlannedUpdate]) -> PlannedUpdate:
    name = f"{model.regularizer.name}: update {update.name!r}"
    if update.name in [other.name for other in earlier]:
        raise PluginError(f"{name} appears twice", hint="name each update of steps() differently")
    if update.loss.ndim != 0:
        raise PluginError(f"{name} has a loss of shape {tuple(update.loss.shape)}; expected a 0-d tensor")
    logged: dict[str, Any] = {**update.log, **update.log_max}
    for key, value in logged.items():
        if not isinstance(value, Tensor) or value.ndim != 0:
            raise PluginError(f"{name} logs {key!r} as {type(value).__name__}; expected a 0-d tensor")
    parameters = parameters_of(update.updates)
    if not parameters:
        raise PluginError(f"{name} moves no parameter", hint="list modules or parameters in its `updates`")
    try:
        gradients: Sequence[Tensor | None] = torch.autograd.grad(update.loss, parameters, allow_unused=True)
    except RuntimeError as error:
        # A graph from before an update: its weights have moved, or its own update has used it up.
        if "modified by an inplace operation" in str(error) or "graph a second time" in str(error):
            raise PluginError(
                f"{name} uses a tensor from before an earlier update",
                hint="an update changes the weights: call model.encode(x) again after each yield",
            ) from error
        raise PluginError(f"{name}: its loss has no gradient: {error}") from error
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    unused = [names.get(id(p), "?") for p, g in zip(parameters, gradients, strict=True) if g is None]
    if unused:
        raise PluginError(
            f"{name} lists {', '.join(unused)}, which its loss does not depend on",
            hint="list in `updates` only what this loss trains",
        )
    with torch.no_grad():
        for parameter in parameters:
            parameter.add_(0)  # changes nothing but the version, so that a stale graph is noticed
    return PlannedUpdate(
        update.name, update.optimizer or update.name, parameters, (*update.log, *update.log_max)
    )


def _plain_state(method: nn.Module) -> dict[str, Any]:
    """Python values among the attributes of a method and its submodules."""
    return {
        f"{prefix}.{key}".lstrip("."): _frozen(value)
        for prefix, module in method.named_modules()
        for key, value in vars(module).items()
        if key not in _OWN and isinstance(value, _PLAIN)
    }


def _frozen(value: Any) -> Any:
    """A copy that is equal as long as nothing has changed; containers may hold tensors, as those of ``nn.GRU`` do."""
    if isinstance(value, dict):
        return {key: _frozen(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_frozen(item) for item in value]
    if isinstance(value, set):
        return set(value)
    return value if isinstance(value, _PLAIN) else _Itself(value)


@dataclass(frozen=True, slots=True, eq=False)
class _Itself:
    """Equal to nothing but the same object: tensors are not compared by value."""

    thing: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.thing is other.thing
