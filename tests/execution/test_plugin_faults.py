"""Whatever a plugin does, its own cell ends with a reason, and no other cell is another for it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import regbench
from regbench.errors import CellsFailed
from regbench.store.records import Run
from tests.execution.suites import AE, write_suite

PLUGIN = '''
import os, random, signal, sys, warnings
import numpy as np
import torch
import regbench

print("printed at import")


class Evil(regbench.Regularizer):
    """Does what it is asked to."""

    name = "evil"

    class Options(regbench.Options):
        how: str = regbench.Field("", description="what to do")

    def build(self, dims):
        if self.options.how == "build":
            raise RuntimeError("I fell in build")

    def forward(self, code_BD, h_BF):
        how = self.options.how
        if how == "exit":
            sys.exit(0)
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "recursion":
            return self.forward(code_BD, h_BF)
        if how == "state":
            print("printed in a step")
            torch.set_default_dtype(torch.float64)
            torch.use_deterministic_algorithms(True, warn_only=True)
            torch.set_num_threads(2)
            np.seterr(all="raise")
            warnings.simplefilter("error")
            os.chdir("/")
        return code_BD, {"size": code_BD.pow(2).sum(1).mean()}

    def warnings(self, history):
        if self.options.how == "warnings":
            raise RuntimeError("I fell in warnings")
        return []


@regbench.hookimpl
def regbench_regularizers():
    print("printed in a hook")
    return [Evil]
'''
HOWS = ("state", "build", "exit", "interrupt", "recursion", "warnings")
EVIL = """
[[regularizers]]
name = "evil"
label = "{how}"
options = {{ how = "{how}" }}
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the bad ones, then AE; and one of AE alone."""
    place = tmp_path_factory.mktemp("faults")
    plugin = place / "evil.py"
    plugin.write_text(PLUGIN)
    evil = "".join(EVIL.format(how=how) for how in HOWS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(place)
        suite = write_suite(place, evil + AE)
        with pytest.raises(CellsFailed, match="5 of 7 cells failed"):
            regbench.run(suite, device="cpu", runs_dir=Path("evil"), plugins=[plugin])
        assert Path.cwd() == place
        regbench.run(write_suite(place, AE), device="cpu", runs_dir=Path("alone"))
    return place


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("build", "RuntimeError: I fell in build"),
        ("exit", "SystemExit: 0"),
        ("interrupt", "KeyboardInterrupt: "),
        ("recursion", "RecursionError: maximum recursion depth exceeded"),
        ("warnings", "RuntimeError: I fell in warnings"),
    ],
)
def test_each_ends_its_own_cell_with_its_traceback(runs: Path, how: str, reason: str) -> None:
    (cell,) = Run.open(runs / "evil" / "tiny").select(method=how)
    assert cell.status == "failed"
    assert cell.outcome["reason"].startswith(reason)
    assert "evil.py" in cell.outcome["traceback"]
    (log,) = cell.directory.glob("attempts/*/log.txt")
    assert "Traceback" in log.read_text()


def test_what_one_changes_of_the_process_reaches_no_other(runs: Path) -> None:
    (after,) = Run.open(runs / "evil" / "tiny").select(method="AE")
    (alone,) = Run.open(runs / "alone" / "tiny").select(method="AE")
    assert after.id == alone.id
    assert after.verified("weights.pt") == alone.verified("weights.pt")
    assert after.result["metrics"] == alone.result["metrics"]


def test_the_log_says_what_was_put_back(runs: Path) -> None:
    (cell,) = Run.open(runs / "evil" / "tiny").select(method="state")
    assert cell.status == "done", "its results lie where they should, though it changed the directory"
    (log,) = cell.directory.glob("attempts/*/log.txt")
    for part in ("the working directory", "default dtype", "deterministic", "numpy's handling"):
        assert part in log.read_text()


def test_prints_of_a_plugin_do_not_reach_json(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from regbench.cli.app import main

    monkeypatch.chdir(tmp_path)
    Path("evil.py").write_text(PLUGIN)
    write_suite(tmp_path, EVIL.format(how="state"))
    monkeypatch.setattr("sys.argv", ["regbench", "run", "tiny.toml", "--json", "--plugin", "evil.py"])
    assert main() == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["event"] for line in out.splitlines()][-1] == "SuiteFinished"
    for place in ("at import", "in a hook", "in a step"):
        assert f"printed {place}" in err
