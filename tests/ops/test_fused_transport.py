"""The fused kernel of Sinkhorn: by Triton's interpreter on the CPU, by its compiler, and on a GPU."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
import torch

from regbench import ops
from regbench.ops import transport
from tests.ops import oracles

needs_triton = pytest.mark.skipif(find_spec("triton") is None, reason="Triton is not installed")
on_a_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

# Batch, prototypes, spread of the scores, epsilon, iterations.
CASES = {
    "reference": (64, 10, 6.0, 0.05, 40),
    "not powers of two": (97, 13, 2.0, 0.05, 31),
    "wide scores": (33, 9, 300.0, 0.05, 20),
    "wide scores, few iterations": (40, 60, 300.0, 0.05, 6),
    "one iteration": (37, 7, 1.0, 0.05, 1),
    "odd iterations": (16, 4, 1.0, 0.5, 3),
    "fewer samples than prototypes": (5, 12, 1.0, 0.05, 20),
    "one prototype": (33, 1, 10.0, 0.05, 4),
    "one sample": (1, 3, 1.0, 0.05, 4),
    "equal scores": (9, 5, 0.0, 0.05, 10),
    "several blocks": (300, 50, 6.0, 0.05, 12),
    "several blocks, wide scores": (150, 100, 300.0, 0.05, 4),
}


def _scores(name: str) -> torch.Tensor:
    batch, count, spread, _, _ = CASES[name]
    return spread * torch.randn(batch, count, generator=torch.Generator().manual_seed(len(name)))


def _tolerance(name: str) -> float:
    """What rounding scores to float32 does to exp(score / epsilon), with room for the iterations."""
    _, _, spread, epsilon, _ = CASES[name]
    return max(2e-5, 20 * 2**-24 * spread / epsilon)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[torch.Tensor, ...]]:
    folder = tmp_path_factory.mktemp("interpreted")
    torch.save([(_scores(name), *CASES[name][3:]) for name in CASES], folder / "cases.pt")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    program = [sys.executable, Path(__file__).with_name("interpreted.py"), folder]
    done = subprocess.run(program, env=environment, stderr=subprocess.PIPE, text=True, timeout=200)
    if "only 0-dimensional arrays can be converted" in done.stderr:
        pytest.skip("the interpreter of this version of Triton does not work with this version of NumPy")
    assert done.returncode == 0, done.stderr
    return dict(zip(CASES, torch.load(folder / "found.pt", weights_only=True), strict=True))


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_the_float64_loop(name: str, found: dict[str, tuple[torch.Tensor, ...]]) -> None:
    _, _, _, epsilon, iterations = CASES[name]
    codes, moved, plain = (value.double().numpy() for value in found[name])
    expected, expected_moved = oracles.equipartition(_scores(name).numpy(), epsilon, iterations)
    np.testing.assert_allclose(codes, expected, atol=_tolerance(name))
    assert moved == pytest.approx(expected_moved, abs=_tolerance(name))
    expected_plain = oracles.sinkhorn(_scores(name).numpy(), epsilon, iterations)
    np.testing.assert_allclose(plain, expected_plain, atol=_tolerance(name))


@needs_triton
@pytest.mark.parametrize("name", CASES)
def test_the_kernel_is_the_other_paths(name: str, found: dict[str, tuple[torch.Tensor, ...]]) -> None:
    _, _, _, epsilon, iterations = CASES[name]
    scores, tolerance = _scores(name), _tolerance(name)
    on_a_cpu, _ = ops.equipartition(scores, epsilon=epsilon, iterations=iterations)
    torch.testing.assert_close(found[name][0], on_a_cpu, rtol=0, atol=tolerance)
    potentials = transport._potentials(scores, epsilon, iterations)
    elsewhere, _ = transport._rounded(torch.softmax((scores + potentials) / epsilon, dim=1))
    torch.testing.assert_close(found[name][0], elsewhere, rtol=0, atol=tolerance)
    plain = ops.sinkhorn(scores, epsilon=epsilon, iterations=iterations)
    torch.testing.assert_close(found[name][2], plain, rtol=0, atol=tolerance)


@pytest.mark.skipif(
    not sys.platform.startswith("linux") or find_spec("triton") is None, reason="needs Triton"
)
@pytest.mark.parametrize(("batch", "count", "annealed"), [(256, 50, True), (300, 50, False)])
def test_the_compiler_takes_the_kernel_for_an_h100_and_keeps_it_in_registers(
    batch: int, count: int, annealed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from regbench.ops.fused_transport import _transport, block_sizes

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    sizes = block_sizes(batch, count)
    options = {name: sizes.pop(name) for name in ("num_warps", "num_stages")}
    constants = {"ANNEALED": annealed, **sizes}
    types = ["*fp32", "*fp32", "*fp32", "i32", "i32", "fp32", "i32", *["constexpr"] * len(constants)]
    signature = dict(zip(_transport.arg_names, types, strict=True))
    source = ASTSource(fn=_transport, signature=signature, constexprs=constants)
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)

    binary = tmp_path / "kernel.cubin"
    binary.write_bytes(compiled.asm["cubin"])
    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    usage = subprocess.run([tool, "-res-usage", binary], capture_output=True, text=True, check=True).stdout
    spilled = re.search(r"STACK:(\d+)", usage)
    assert spilled is not None
    assert int(spilled[1]) <= 64, usage
    assert compiled.metadata.shared <= 48 * 1024


@pytest.mark.parametrize(("shape", "fits"), [((2048, 64), True), ((1024, 65), True), ((2049, 64), False),
                                              ((8, 129), False), ((0, 4), False)])  # fmt: skip
def test_which_matrices_are_one_launch(
    shape: tuple[int, int], fits: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport, "_triton_runs", lambda device: True)

    class OnAGPU(torch.Tensor):
        is_cuda = True

    assert transport._fits_one_kernel(torch.zeros(shape).as_subclass(OnAGPU)) == fits
    assert not transport._fits_one_kernel(torch.zeros(shape, dtype=torch.float64).as_subclass(OnAGPU))
    assert not transport._fits_one_kernel(torch.zeros(shape))


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize("name", CASES)
def test_on_a_gpu_the_codes_are_the_cpus(name: str) -> None:
    _, _, _, epsilon, iterations = CASES[name]
    scores, tolerance = _scores(name), 5 * _tolerance(name)  # its exponentials are within 2 ulp
    assert transport._fits_one_kernel(scores.cuda())
    for operation in (ops.equipartition, ops.sinkhorn):
        expected = operation(scores, epsilon=epsilon, iterations=iterations)
        codes = operation(scores.cuda(), epsilon=epsilon, iterations=iterations)
        torch.testing.assert_close(codes, expected, rtol=0, atol=tolerance, check_device=False)


@pytest.mark.gpu
@on_a_gpu
@pytest.mark.parametrize(("batch", "count"), [(256, 50), (128, 10), (1024, 64), (100, 33)])
def test_on_a_gpu_all_iterations_are_one_launch_that_a_graph_replays(batch: int, count: int) -> None:
    scores = 6 * torch.randn(batch, count, device="cuda")
    ops.equipartition(scores)  # compiles the kernel
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        codes, moved = ops.equipartition(scores)
    for seed in range(3):
        torch.manual_seed(seed)
        scores.copy_(6 * torch.randn(batch, count, device="cuda"))
        codes.fill_(float("nan"))
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA]) as profile:
            graph.replay()
            torch.cuda.synchronize()
        kernels = [event.name for event in profile.events() if event.device_type.name == "CUDA"]
        # Some versions of torch set a graph's random seed with kernels of their own.
        own = [name for name in kernels if not name.startswith("Mem") and "FillFunctor" not in name]
        assert own == ["_transport"]
        expected, expected_moved = ops.equipartition(scores.cpu())
        torch.testing.assert_close(codes.cpu(), expected, rtol=0, atol=1e-4)
        assert moved.item() == pytest.approx(expected_moved.item(), abs=1e-5)


@pytest.mark.gpu
@on_a_gpu
def test_on_a_gpu_it_compiles_into_one_graph_and_nothing_waits() -> None:
    scores = 6 * torch.randn(256, 50, device="cuda")
    expected = ops.equipartition(scores)
    traced = torch.compile(lambda s: ops.equipartition(2 * s / 2), fullgraph=True)
    torch.testing.assert_close(traced(scores), expected)
    torch.cuda.set_sync_debug_mode("error")
    try:
        ops.equipartition(scores)
        ops.sinkhorn(scores)
    finally:
        torch.cuda.set_sync_debug_mode("default")
