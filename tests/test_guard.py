"""What a plugin changes of the process is put back for the next cell, and said."""

from __future__ import annotations

import os
import random
import signal
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regbench.guard import _STATE, guarded

CHANGES: dict[str, Callable[[], Any]] = {
    "the working directory": lambda: os.chdir("/"),
    "torch's default dtype": lambda: torch.set_default_dtype(torch.float64),
    "torch's default device": lambda: torch.set_default_device("meta"),
    "whether gradients are recorded": lambda: torch.set_grad_enabled(False),
    "torch's CPU threads": lambda: torch.set_num_threads(torch.get_num_threads() + 1),
    "torch's deterministic algorithms": lambda: torch.use_deterministic_algorithms(True, warn_only=True),
    "torch's anomaly detection": lambda: torch.autograd.set_detect_anomaly(True),
    "autocast on the CPU": lambda: torch.set_autocast_enabled("cpu", True),
    "cuDNN's settings": lambda: setattr(torch.backends.cudnn, "benchmark", True),
    "numpy's handling of errors": lambda: np.seterr(all="raise"),
    "sys.stdout": lambda: setattr(sys, "stdout", sys.stderr),
    "sys.stderr": lambda: setattr(sys, "stderr", sys.__stdout__),
}


def state() -> list[Any]:
    return [read() for _, read, _ in _STATE]


@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("ends", ["well", "badly"])
def test_a_change_is_put_back_and_said(
    name: str, ends: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before, said = state(), []
    try:
        with guarded(said.append):
            CHANGES[name]()
            if ends == "badly":
                raise SystemExit
    except SystemExit:
        pass
    assert state() == before
    if name == "sys.stdout":  # what is printed goes to stderr anyway
        assert said == []
    else:
        assert said == [f"a plugin has changed {name}; put back for the next cell"]


def test_every_part_of_the_state_has_been_tried() -> None:
    assert CHANGES.keys() == {name for name, _, _ in _STATE}


def test_what_has_not_been_changed_is_not_mentioned() -> None:
    said: list[str] = []
    with guarded(said.append):
        random.random()
        np.random.random()
        warnings.simplefilter("ignore")
    assert said == []


def test_random_numbers_warnings_and_handlers_are_as_before() -> None:
    random.seed(3)
    np.random.seed(3)
    filters, handler = warnings.filters[:], signal.getsignal(signal.SIGTERM)
    with guarded(print):
        random.seed(0)
        np.random.seed(0)
        warnings.simplefilter("error")
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    assert random.random() == random.Random(3).random()
    assert np.random.random() == np.random.RandomState(3).random_sample()
    assert warnings.filters == filters
    assert signal.getsignal(signal.SIGTERM) is handler


def test_prints_go_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with guarded(print):
        print("from a plugin")
    assert capsys.readouterr() == ("", "from a plugin\n")


def test_a_working_directory_that_is_gone_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said: list[str] = []
    with guarded(said.append):
        (tmp_path / "x").mkdir()
        os.chdir(tmp_path / "x")
        (tmp_path / "x").rmdir()
    assert Path.cwd() == tmp_path
    assert said == ["a plugin has changed the working directory; put back for the next cell"]


def test_a_log_that_cannot_be_written_is_no_further_fault() -> None:
    def full(text: str) -> None:
        raise OSError("No space left on device")

    with guarded(full):
        torch.set_default_dtype(torch.float64)
    assert torch.get_default_dtype() == torch.float32
