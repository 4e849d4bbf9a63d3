"""The operations as kernels that torch.compile fuses: off, until a training loop asks for them."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from types import FunctionType
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

_enabled: ContextVar[bool] = ContextVar("regbench_ops_compiled", default=False)


@contextmanager
def compiled(enabled: bool = True) -> Iterator[None]:
    """Inside the block, operations that consist of many small kernels run as torch.compile fuses them.

    Each is compiled once per process for the shapes, types and options it meets, whoever asks; results are equal to
    rounding, and random numbers are the same. Gradients cannot be differentiated again: PyTorch raises a
    RuntimeError that speaks of double backward. A kernel of one's own, which need not be traceable, keeps its
    operation as it is. torch.compile needs a C++ compiler on a CPU, and Triton on a GPU.
    """
    token = _enabled.set(enabled)
    try:
        yield
    finally:
        _enabled.reset(token)


def compilable(*constants: type) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Decorator of a function of tensors, booleans and hashable ``constants`` that :func:`compiled` speeds up.

    It must be traceable into one graph, draw no random numbers and raise no errors. A constant may say by its
    attribute ``compiled_as`` what of it the code depends on, as a net does whose weights are the code's arguments.
    """
    known = (Tensor, bool, *constants)

    def decorate(function: Callable[P, R]) -> Callable[P, R]:
        variants: dict[Hashable, Callable[P, R]] = {}

        @wraps(function)
        def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
            if torch.compiler.is_compiling() or not _enabled.get():
                return function(*args, **kwargs)
            values = (*args, *kwargs.values())
            if not all(isinstance(value, known) for value in values):
                return function(*args, **kwargs)
            key = (torch.is_grad_enabled(), tuple(kwargs), *map(_specialized, values))
            if key not in variants:
                variants[key] = torch.compile(_copy(function), fullgraph=True, dynamic=False)
            return variants[key](*args, **kwargs)

        return wrapper

    return decorate


def _specialized(value: Any) -> Hashable:
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device, value.requires_grad
    return type(value), getattr(value, "compiled_as", value)


def _copy(function: Callable[P, R]) -> Callable[P, R]:
    """The function with code of its own: torch.compile counts how often one code object has been compiled."""
    assert isinstance(function, FunctionType)
    copy = FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    copy.__defaults__, copy.__kwdefaults__ = function.__defaults__, function.__kwdefaults__
    return copy
