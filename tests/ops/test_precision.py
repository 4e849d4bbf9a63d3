"""What holds for every operation: float32 under autocast and TF32, no wait for the device, traceable."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from regbench import ops
from regbench.conformance.bench import HostSyncFinder

Operation = Callable[[Tensor], Tensor]
NAMES = (
    "matmul",
    "squared_distances",
    "kl",
    "log densities",
    "sinkhorn",
    "mass",
    "mmd",
    "mmd imq",
    "mmd median",
    "per prototype",
    "closed form",
    "standard normal",
)
every_operation = pytest.mark.parametrize("name", NAMES)


def _draw(seed: int, rows: int) -> Tensor:
    return torch.randn(rows, 16, generator=torch.Generator().manual_seed(seed))


def _codes() -> Tensor:
    return _draw(7, 24)


def _operation(name: str, device: str = "cpu") -> Operation:
    """A function of the codes alone; all else lies on the device before it runs."""
    noise_BD, v_KD = _draw(9, 24).to(device), _draw(8, 5).to(device)
    c_B = (torch.arange(24) % 5).to(device)
    operations: dict[str, Operation] = {
        "matmul": lambda z: ops.matmul(z, z.T),
        "squared_distances": ops.squared_distances,
        "kl": lambda z: ops.kl_to_standard_normal(z, 0.5 * z),
        "log densities": lambda z: ops.normal_log_densities(z, v_KD, 0.5 * v_KD),
        "sinkhorn": lambda z: ops.sinkhorn(z, iterations=5),
        "mass": lambda z: ops.prototype_mass_deviation(z.softmax(1)),
        "mmd": lambda z: ops.mmd(z, noise_BD),
        "mmd imq": lambda z: ops.mmd(z, noise_BD, ops.kernel("imq"), biased=True),
        "mmd median": lambda z: ops.mmd(z, noise_BD, ops.kernel("gaussian", "median")),
        "per prototype": lambda z: ops.per_prototype_mmd(z, v_KD, c_B, noise_BD=noise_BD),
        "closed form": lambda z: ops.per_prototype_mmd(z, v_KD, c_B, closed_form=True),
        "standard normal": lambda z: ops.mmd_to_standard_normal(z, closed_form=True),
    }
    return operations[name]


def _value_and_gradient(operation: Operation, z: Tensor) -> tuple[Tensor, Tensor | None]:
    z = z.clone().requires_grad_()
    value = operation(z)
    return value, torch.autograd.grad(value.sum(), z)[0] if value.requires_grad else None


@every_operation
def test_autocast_changes_nothing(name: str) -> None:
    operation = _operation(name)
    plain, plain_gradient = _value_and_gradient(operation, _codes())
    with torch.autocast("cpu", torch.bfloat16):
        value, gradient = _value_and_gradient(operation, _codes())
        half = operation(_codes().bfloat16())
    assert value.dtype == half.dtype == torch.float32
    assert torch.equal(value, plain)
    assert (gradient is None) == (plain_gradient is None)
    assert gradient is None or torch.equal(gradient, plain_gradient)


@every_operation
def test_nothing_waits_for_the_device(name: str) -> None:
    operation = _operation(name)
    z = _codes().requires_grad_()
    with HostSyncFinder() as finder:
        value = operation(z)
        if value.requires_grad:
            value.sum().backward()
    assert finder.found == []


def _one_dnn_matmul() -> object:
    return torch.backends.mkldnn.matmul  # type: ignore[attr-defined]


@pytest.mark.parametrize("precision", ["high", "medium"])
def test_short_products_are_switched_off_inside_and_back_on_after(
    precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, str]] = []
    multiply = Tensor.__matmul__

    def spy(a: Tensor, b: Tensor) -> Tensor:
        seen.append((torch.backends.cuda.matmul.fp32_precision, _one_dnn_matmul().fp32_precision))
        return multiply(a, b)

    monkeypatch.setattr(Tensor, "__matmul__", spy)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision(precision)
    try:
        set_by_user = torch.backends.cuda.matmul.fp32_precision, _one_dnn_matmul().fp32_precision
        _value_and_gradient(_operation("mmd"), _codes())
        after = torch.backends.cuda.matmul.fp32_precision, _one_dnn_matmul().fp32_precision
        assert torch.get_float32_matmul_precision() == precision
    finally:
        torch.set_float32_matmul_precision(before)
    # One product forward, two backward (both factors are the pooled sample).
    assert seen == [("ieee", "ieee")] * 3
    assert after == set_by_user != ("ieee", "ieee")


@pytest.mark.gpu
@every_operation
def test_on_a_gpu_the_results_are_the_cpus_and_nothing_waits(name: str) -> None:
    expected, expected_gradient = _value_and_gradient(_operation(name), _codes())
    operation, z = _operation(name, "cuda"), _codes().cuda()
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    try:
        _value_and_gradient(operation, z)  # the first call may load libraries
        torch.cuda.set_sync_debug_mode("error")
        value, gradient = _value_and_gradient(operation, z)
    finally:
        torch.cuda.set_sync_debug_mode("default")
        torch.set_float32_matmul_precision(before)
    torch.testing.assert_close(value.cpu(), expected, rtol=1e-4, atol=1e-5)
    if expected_gradient is not None:
        assert gradient is not None
        torch.testing.assert_close(gradient.cpu(), expected_gradient, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("name", ["per prototype", "sinkhorn", "closed form"])
def test_operations_trace_into_one_graph(name: str) -> None:
    operation = _operation(name)
    traced = torch.compile(operation, backend="aot_eager", fullgraph=True)
    expected, expected_gradient = _value_and_gradient(operation, _codes())
    value, gradient = _value_and_gradient(traced, _codes())
    torch.testing.assert_close(value, expected)
    torch.testing.assert_close(gradient, expected_gradient)


def test_full_precision_widens_arguments_and_leaves_autocast() -> None:
    @ops.full_precision
    def product(a: Tensor, *, b: Tensor) -> Tensor:
        return a @ b

    a, b = _draw(1, 16), _draw(2, 16)
    with torch.autocast("cpu", torch.bfloat16):
        found = product(a, b=b)
        widened = product(a.bfloat16(), b=b.bfloat16())
    assert torch.equal(found, a @ b)
    assert torch.equal(widened, a.bfloat16().float() @ b.bfloat16().float())
    assert product(a.double(), b=b.double()).dtype == torch.float64
