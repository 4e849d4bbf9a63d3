"""Full precision inside mixed-precision training: float32 products that neither autocast nor TF32 shortens.

A kernel of squared distances, or exp(score / 0.05), turns a relative error of 1e-3 (TF32) or 4e-3 (bfloat16)
into a wrong result. So the operations of this package compute in float32 whatever surrounds them.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor, library

from regbench.modes import full_float32

P = ParamSpec("P")
R = TypeVar("R")


def _widened(value: Any) -> Any:
    half = isinstance(value, Tensor) and value.dtype in (torch.float16, torch.bfloat16)
    return value.float() if half else value


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator: half-precision tensor arguments become float32 and autocast is off inside; float64 stays."""

    @wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        tensors = [value for value in (*args, *kwargs.values()) if isinstance(value, Tensor)]
        device_type = tensors[0].device.type if tensors else "cpu"
        with torch.autocast(device_type, enabled=False):
            return function(
                *(_widened(value) for value in args),
                **{name: _widened(value) for name, value in kwargs.items()},
            )

    return wrapper


# A custom operator is opaque to torch.compile, which could not trace the switching of the flags, and its
# backward pass goes through the same door.
@library.custom_op("regbench::ieee_matmul", mutates_args=())
def _ieee_matmul(a_NM: Tensor, b_MP: Tensor) -> Tensor:
    with full_float32(), torch.autocast(a_NM.device.type, enabled=False):
        return a_NM @ b_MP


@_ieee_matmul.register_fake
def _(a_NM: Tensor, b_MP: Tensor) -> Tensor:
    return a_NM.new_empty(a_NM.shape[0], b_MP.shape[1])


def _save_factors(ctx: Any, inputs: tuple[Tensor, Tensor], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad_NP: Tensor) -> tuple[Tensor | None, Tensor | None]:
    a_NM, b_MP = ctx.saved_tensors
    for_a, for_b = ctx.needs_input_grad
    return (
        _ieee_matmul(grad_NP, b_MP.T) if for_a else None,
        _ieee_matmul(a_NM.T, grad_NP) if for_b else None,
    )


_ieee_matmul.register_autograd(_backward, setup_context=_save_factors)


@full_precision
def matmul(a_NM: Tensor, b_MP: Tensor) -> Tensor:
    """The matrix product in float32, never shortened to TF32 or bfloat16, forward and backward.

    Args:
        a_NM, b_MP: two matrices; half precision is widened to float32, float64 stays.
    """
    product_NP: Tensor = _ieee_matmul(a_NM, b_MP)
    return product_NP
