"""The process's global state: what a block changes, and that it is put back."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from regbench.modes import (
    deterministic_algorithms,
    deterministic_convolutions,
    fastest_convolutions,
    retained_memory,
)

CPU = torch.device("cpu")
FAULTS = """
import resource, sys, torch
from contextlib import nullcontext
from regbench.modes import retained_memory

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

with retained_memory(torch.device("cpu")) if sys.argv[1] == "retained" else nullcontext():
    for _ in range(20):
        torch.ones(2**24)  # 64 MiB; it takes a few until they lie where the next ones fit
    before = faults()
    for _ in range(5):
        torch.ones(2**24)
    print(faults() - before)
with open("/proc/self/statm") as statm:
    print(int(statm.read().split()[1]))
"""


def cudnn() -> tuple[bool, bool]:
    return torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark


def test_convolutions_are_chosen_inside_the_block_only() -> None:
    before = cudnn()
    with fastest_convolutions():
        assert cudnn() == (False, True)
        with deterministic_convolutions():
            assert cudnn() == (True, False)
        assert cudnn() == (False, True)
    assert cudnn() == before


def test_deterministic_algorithms_inside_the_block_only() -> None:
    with deterministic_algorithms():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="counts pages as Linux does")
def test_large_tensors_are_not_asked_of_the_system_again_and_given_back_at_the_end() -> None:
    def pages(kind: str) -> tuple[int, int]:
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, kind], check=True, capture_output=True, text=True, timeout=120
        )
        faults, resident = done.stdout.split()
        return int(faults), int(resident)

    plain, retained = pages("plain"), pages("retained")
    if plain[0] < 1000:
        pytest.skip("this system hands out large pages, or its C library is not glibc")
    assert retained[0] < plain[0] / 20
    assert abs(retained[1] - plain[1]) < 4096  # 16 MiB of pages of 4 KiB


def test_other_devices_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("regbench.modes._glibc", lambda: pytest.fail("was asked"))
    with retained_memory(torch.device("cuda")):
        pass
