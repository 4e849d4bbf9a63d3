from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from regbench import ops

Operation = Callable[[Tensor], Tensor]

V_KD = torch.randn(5, 7, generator=torch.Generator().manual_seed(1))


def _assignments(z_BD: Tensor) -> Tensor:
    return torch.arange(len(z_BD), device=z_BD.device) % len(V_KD)


OPERATIONS: dict[str, Operation] = {
    "mmd": lambda z: ops.mmd(z, V_KD.to(z.device)),
    "biased mmd": lambda z: ops.mmd(z, V_KD.to(z.device), ops.kernel("imq"), biased=True),
    "standard normal": ops.mmd_to_standard_normal,
    "per prototype": lambda z: ops.per_prototype_mmd(z, V_KD.to(z.device), _assignments(z)),
    "per prototype, median": lambda z: ops.per_prototype_mmd(
        z, V_KD.to(z.device), _assignments(z), ops.kernel("gaussian", "median"), biased=True
    ),
    "closed form": lambda z: ops.per_prototype_mmd(z, V_KD.to(z.device), _assignments(z), closed_form=True),
    "squared distances": ops.squared_distances,
    "kl": lambda z: ops.kl_to_standard_normal(z, 0.5 * z),
    "log densities": lambda z: ops.normal_log_densities(z, V_KD.to(z.device), 0.5 * V_KD.to(z.device)),
    "reparameterize": lambda z: ops.reparameterize(z, 0.5 * z),
    "mass": lambda z: ops.prototype_mass_deviation(z.softmax(1)),
}


class Compiler:
    """torch.compile without the code generation, and the graphs it was given."""

    def __init__(self) -> None:
        self.graphs = 0
        self.compile = torch.compile

    def __call__(self, function: Any, **options: Any) -> Any:
        return self.compile(function, **options, backend=self.backend)

    def backend(self, graph: torch.fx.GraphModule, inputs: list[Tensor]) -> Any:
        self.graphs += 1
        return torch._dynamo.lookup_backend("aot_eager")(graph, inputs)


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> Iterator[Compiler]:
    compiler = Compiler()
    monkeypatch.setattr(torch, "compile", compiler)
    yield compiler
    torch._dynamo.reset()


def _codes(seed: int, batch: int = 11) -> Tensor:
    return torch.randn(batch, V_KD.shape[1], generator=torch.Generator().manual_seed(seed))


def _value_and_gradient(operation: Operation, z: Tensor) -> tuple[Tensor, ...]:
    z = z.clone().requires_grad_()
    torch.manual_seed(0)
    value = operation(z)
    return (value, *torch.autograd.grad(value.square().sum(), z)) if value.requires_grad else (value,)


@pytest.mark.parametrize("name", OPERATIONS)
def test_results_are_the_same_and_new_values_compile_nothing(name: str, compiler: Compiler) -> None:
    # A batch size of its own: other tests have left what they compiled.
    inputs = [_codes(seed, batch=12) for seed in range(3)]
    expected = [_value_and_gradient(OPERATIONS[name], z) for z in inputs]
    assert compiler.graphs == 0
    with ops.compiled(), torch._dynamo.config.patch(error_on_recompile=True):
        found = [_value_and_gradient(OPERATIONS[name], z) for z in inputs]
    torch.testing.assert_close(found, expected)
    assert compiler.graphs == 1


def test_it_is_off_outside_the_block_and_can_be_switched_off_inside(compiler: Compiler) -> None:
    z = _codes(0, batch=13)
    with ops.compiled(), ops.compiled(False):
        ops.kl_to_standard_normal(z, z)
    ops.kl_to_standard_normal(z, z)
    assert compiler.graphs == 0
    with ops.compiled():
        ops.kl_to_standard_normal(z, z)
    assert compiler.graphs == 1


def test_shapes_types_and_options_are_compiled_once_each_and_without_limit(compiler: Compiler) -> None:
    limit = torch._dynamo.config.recompile_limit
    for _ in range(2):
        with ops.compiled():
            for batch in range(20, 22 + limit):
                assert ops.kl_to_standard_normal(_codes(0, batch), _codes(1, batch)).isfinite()
            for kernel in (
                ops.GaussianKernel(1.0),
                ops.GaussianKernel(2.0),
                ops.InverseMultiquadraticKernel(),
            ):
                ops.mmd(_codes(0, 20), _codes(1, 21), kernel)
            ops.mmd(_codes(0, 20).double(), _codes(1, 21).double())
    assert compiler.graphs == limit + 2 + 4


def test_a_kernel_of_ones_own_keeps_its_operation_as_it_is(compiler: Compiler) -> None:
    class Laplace:
        calls = 0

        def __call__(self, squares_PP: Tensor, dim: int) -> Tensor:
            self.calls += int(squares_PP.max().item() > 0)  # no graph could hold this
            return torch.exp(-squares_PP.sqrt())

    kernel = Laplace()
    with ops.compiled():
        found = ops.mmd(_codes(0), _codes(1), kernel)
    assert torch.equal(found, ops.mmd(_codes(0), _codes(1), kernel))
    assert kernel.calls == 2


def test_errors_stay_what_they_are(compiler: Compiler) -> None:
    with ops.compiled():
        with pytest.raises(ValueError, match="at least 2"):
            ops.mmd(_codes(0, 1), _codes(1))
        with pytest.raises(ValueError, match="closed_form"):
            ops.mmd_to_standard_normal(_codes(0), ops.kernel("imq"), closed_form=True)
    assert compiler.graphs == 0


def test_half_precision_and_autocast_change_nothing(compiler: Compiler) -> None:
    z = _codes(0, batch=14)
    operation = partial(ops.mmd, V_KD)
    with ops.compiled(), torch.autocast("cpu", torch.bfloat16):
        found = operation(z)
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, operation(z))


def test_gradients_cannot_be_differentiated_again(compiler: Compiler) -> None:
    z = _codes(0, batch=15).requires_grad_()
    with ops.compiled():
        value = ops.kl_to_standard_normal(z, z)
    (gradient,) = torch.autograd.grad(value, z, create_graph=True)
    with pytest.raises(RuntimeError, match="double backward"):
        gradient.sum().backward()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", OPERATIONS)
def test_on_a_gpu_results_are_the_same(name: str) -> None:
    expected = _value_and_gradient(OPERATIONS[name], _codes(0).cuda())
    with ops.compiled():
        found = _value_and_gradient(OPERATIONS[name], _codes(0).cuda())
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
