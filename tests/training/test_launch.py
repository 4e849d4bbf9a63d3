"""What is decided of graphs and compilation, and what is said of it."""

from __future__ import annotations

import pytest
import torch

from regbench.errors import DeviceError
from regbench.training import launch as module
from regbench.training.launch import Launch, LaunchWishes, resolve_launch

CPU, CUDA, MPS = torch.device("cpu"), torch.device("cuda"), torch.device("mps")
LONG = 1e18


@pytest.fixture(autouse=True)
def compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "compiler_fault", lambda device: None)


@pytest.mark.parametrize(
    ("wishes", "choice", "device", "operations", "compilable", "title", "why"),
    [
        (LaunchWishes(), "auto", CPU, LONG, True, "compiled", "the cell is long"),
        (LaunchWishes(), "auto", CPU, 1e13, True, "eager", "the cell is short: 1e+13 operations"),
        (LaunchWishes(), "auto", CUDA, LONG, True, "graphs + compiled", "the cell is long"),
        (LaunchWishes(), "auto", CUDA, 1e14, True, "graphs", "it pays from 1e+15 on"),
        (LaunchWishes(), "auto", MPS, LONG, True, "eager", "not tried on mps"),
        (LaunchWishes(), "on", CPU, 1.0, True, "compiled", 'compile = "on"'),
        (LaunchWishes(), "off", CUDA, LONG, True, "graphs", 'compile = "off"'),
        (LaunchWishes(), "on", CUDA, LONG, False, "graphs", "declares compilable = False"),
        (LaunchWishes(eager=True), "on", CUDA, LONG, True, "eager", "--eager"),
        (LaunchWishes(deterministic=True), "auto", CUDA, LONG, True, "graphs + deterministic", "--determ"),
        (LaunchWishes(deterministic=True), "on", CPU, 1.0, True, "compiled + deterministic", '"on"'),
    ],
)
def test_what_is_decided(
    wishes: LaunchWishes,
    choice: module.Compile,
    device: torch.device,
    operations: float,
    compilable: bool,
    title: str,
    why: str,
) -> None:
    launch = resolve_launch(wishes, choice, device, operations, compilable=compilable)
    assert launch.title == title
    assert why in launch.compile_why


def test_without_a_compiler_auto_says_so_and_on_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        module, "compiler_fault", lambda device: "InvalidCxxCompiler: No working C++ compiler"
    )
    launch = resolve_launch(LaunchWishes(), "auto", CPU, LONG)
    assert launch == Launch(
        compile_why="torch.compile fails here: InvalidCxxCompiler: No working C++ compiler"
    )
    with pytest.raises(
        DeviceError, match=r'compile = "on", but torch.compile fails on cpu: Invalid'
    ) as raised:
        resolve_launch(LaunchWishes(), "on", CPU, LONG)
    assert "g++" in str(raised.value.hint)
