"""The examination as a whole: libraries, machine, plugins, engines, a suite's data and space."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from packaging.requirements import Requirement

import regbench
from regbench.cli import app
from regbench.doctor import machine
from regbench.doctor import suite as suite_checks
from regbench.doctor.examination import examine
from regbench.doctor.finding import Finding
from regbench.errors import Interrupted, PluginError, UsageError
from regbench.execution.events import EpochFinished
from regbench.execution.placement import Placement
from regbench.plugins import registry
from tests.execution.suites import AE, write_plugin, write_suite

PROTO = """
[[regularizers]]
name = "proto-vae"
label = "Proto"
options = { prototypes = 3 }
"""
ENGINE = '''
import regbench
from regbench.engines.base import Engine


class Sulky(Engine):
    """Never works."""

    name = "sulky"

    @classmethod
    def check(cls, options):
        %s

    def open(self): ...
    def close(self): ...
    def submit(self, jobs): ...
    def poll(self, seconds): ...
    def cancel(self, handle, grace_seconds): ...


@regbench.hookimpl
def regbench_engines():
    return [Sulky]
'''


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    monkeypatch.setenv("REGBENCH_DATA", str(tmp_path / "data"))
    return tmp_path


def find(found: list[Finding], what: str) -> Finding:
    (one,) = (each for each in found if each.what == what)
    return one


def planned(suite: Path, **changes: Any) -> Any:
    ready, _ = suite_checks.planned(suite, **{"device": "cpu", **changes})
    assert ready is not None
    return ready


@pytest.mark.slow
def test_everything_is_looked_at_from_the_command_line_and_nothing_left_behind(place: Path) -> None:
    """With a compiler that never works, which a suite that must compile cannot do without."""
    suite = write_suite(place, AE.replace("AE", "must") + 'training = { compile = "on" }\n')
    before = sorted(place.rglob("*"))
    command = [sys.executable, "-m", "regbench", "doctor", str(suite), "--device", "cpu", "--json"]
    environment = {**os.environ, "CXX": "/bin/false", "TMPDIR": str(place / "tmp")}
    (place / "tmp").mkdir()
    result = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert result.returncode == 4, result.stderr
    found = [Finding(**each) for each in json.loads(result.stdout)]
    assert [each.what for each in found if each.level == "fault"] == ["compiler"]
    assert "torch.compile fails" in find(found, "compiler").said
    assert "g++" in find(found, "compiler").todo
    names = {each.what for each in found}
    assert names >= {
        *("libraries", "processors", "memory", "runs directory", "write and sync", "rename", "locks"),
        *("append", "clock", "plugins", "engine local", "suite", "data set digits", "space", "compiler"),
    }
    assert "tiny: 1 cells, 1 to run" in find(found, "suite").said
    assert sorted(set(place.rglob("*")) - {place / "tmp"}) == before


def test_lines_say_what_to_do_and_the_exit_code_is_4_for_faults_alone(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(machine, "compiler_fault", lambda device: None)  # compiling takes its time
    monkeypatch.setattr(sys, "argv", ["regbench", "doctor", "--device", "cpu"])
    assert app.main() == 0
    out = capsys.readouterr().out
    assert "ok       locks: " in out
    assert "fault" not in out
    monkeypatch.setattr(sys, "argv", ["regbench", "doctor", "nowhere.toml", "--device", "cuda:99"])
    assert app.main() == 4
    out = capsys.readouterr().out
    assert "fault    device: --device cuda:99" in out
    assert "fault    suite: " in out
    assert "ok       compiler" in out, "the rest is looked at all the same"


def test_requirements_that_are_not_met_are_named() -> None:
    assert machine.unmet(Requirement("numpy>=1.0")) is None
    assert machine.unmet(Requirement("no-such-library; extra == 'x'")) is None
    assert machine.unmet(Requirement("no-such-library; python_version < '3'")) is None
    old = machine.unmet(Requirement("numpy>=99"))
    assert old is not None
    assert old[0].startswith("numpy is ")
    assert machine.unmet(Requirement("numpy>=99; extra == 'x'")) is not None, "it is there, and too old"
    absent = machine.unmet(Requirement("no-such-library>=1"))
    assert absent == (
        "no-such-library is not installed; regbench needs no-such-library>=1",
        "no-such-library>=1",
    )
    assert [each.level for each in machine.check_libraries()] == ["ok"]


def test_more_workers_than_memory_is_a_fault_with_the_number_that_fits() -> None:
    found = machine.check_processors(100_000)
    assert find(found, "memory").level == "fault"
    assert "--jobs " in find(found, "memory").todo
    assert find(machine.check_processors(1), "memory").level == "ok"


def test_more_threads_than_cores_is_a_warning() -> None:
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(4096)
        assert find(machine.check_processors(1), "processors").level == "warning"
    finally:
        torch.set_num_threads(before)


def test_a_broken_plugin_is_a_warning(place: Path) -> None:
    plugin = write_plugin(place, "import no_such_module_anywhere")
    (found,) = machine.check_plugins(registry([plugin]))
    assert found.level == "warning"
    assert "no_such_module_anywhere" in found.said


@pytest.mark.parametrize(
    ("body", "said"),
    [("return ['no mood: come back tomorrow']", "no mood"), ("raise RuntimeError('no')", "its check failed")],
)
def test_an_engine_that_cannot_work_is_a_fault_only_where_it_is_asked_for(
    place: Path, body: str, said: str
) -> None:
    known = registry([write_plugin(place, ENGINE % body)])
    asked = find(machine.check_engines(known, Placement("sulky")), "engine sulky")
    assert (asked.level, said in asked.said) == ("fault", True)
    assert find(machine.check_engines(known, Placement()), "engine sulky").level == "note"
    assert find(machine.check_engines(known, Placement("sulky")), "engine local").level == "ok"
    with pytest.raises(PluginError, match="there is no engine 'sulki'; did you mean 'sulky'"):
        list(examine(plugins=[place / "falling.py"], placement=Placement("sulki")))


def test_an_engines_options_are_checked_and_given_to_it(place: Path) -> None:
    with pytest.raises(UsageError, match="does not take these options"):
        list(examine(placement=Placement("local", options={"mood": "good"})))
    nowhere = Placement("ray", options={"address": "127.0.0.1:1"})
    found = find(machine.check_engines(registry(), nowhere), "engine ray")
    assert found.level == "fault", "whether Ray is missing or nobody answers there"


def test_missing_data_is_a_fault_with_what_mends_it(place: Path) -> None:
    suite = write_suite(place, AE)
    suite.write_text(suite.read_text().replace('"digits"', '"mnist"'))
    found = suite_checks.check_data(planned(suite))
    assert {each.level for each in found} == {"fault"}
    assert found[0].what == "data set mnist"
    assert "regbench data fetch mnist" in found[0].todo


def test_too_little_space_is_a_fault(place: Path) -> None:
    ready = planned(write_suite(place, AE, seeds="1000", epochs=100_000))
    (found,) = suite_checks.check_space(ready, 1)
    assert (found.level, found.what) == ("fault", "space")
    assert "1000 cells to run take at most about 1" in found.said
    assert "--runs-dir" in found.todo


def test_space_is_no_less_than_what_cells_take_and_not_far_more(place: Path) -> None:
    suite = write_suite(place, AE + PROTO, epochs=3)
    ready = planned(suite)
    bound = {
        cell.spec.method: suite_checks.result_bytes(cell.spec, suite_checks.weights_bytes(ready, cell.spec))
        for cell in ready.cells
    }
    checkpoint = suite_checks.checkpoint_bytes(
        ready.cells[1].spec, suite_checks.weights_bytes(ready, ready.cells[1].spec)
    )

    def stop(event: object) -> None:
        if isinstance(event, EpochFinished) and "Proto" in event.cell and event.epoch == 2:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(Interrupted):
        regbench.run(suite, device="cpu", listener=stop)
    (kept,) = (place / "runs").rglob("*.ckpt")
    assert checkpoint / 20 < kept.stat().st_size <= checkpoint
    for cell in regbench.run(suite, device="cpu").cells:
        files = (path for path in cell.directory.rglob("*") if path.is_file())
        used = sum(path.stat().st_blocks * 512 for path in files)
        assert bound[cell.method] / 10 < used <= bound[cell.method]


def test_what_is_finished_needs_no_space(place: Path) -> None:
    suite = write_suite(place, AE)
    regbench.run(suite, device="cpu")
    (found,) = suite_checks.check_space(planned(suite), 4)
    assert found.level == "ok"
    assert "0 cells to run take at most about 0.0 MB" in found.said


@pytest.mark.gpu
def test_the_gpu_is_tried_out() -> None:
    found = machine.check_gpu(torch.device("cuda"))
    assert len(found) == torch.cuda.device_count()
    assert found[0].level in ("ok", "warning")
    assert "CUDA" in found[0].said
