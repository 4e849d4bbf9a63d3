"""Suites in real worker processes: the bits are those of this process; a worker that dies or hangs costs its cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import psutil
import pytest

import regbench
from regbench.errors import CellsFailed
from regbench.execution.events import CellFinished, CellResumed, CellRetried, CellStarted, EpochFinished
from regbench.execution.placement import Placement
from regbench.store.records import CellRecord, Run
from tests.execution.resuming import SUITE, numbers
from tests.tuning import suites as tuned

ROOT = Path(__file__).parents[2]
PATIENCE_S = 120.0

PLUGIN = '''
import os
import signal
import sys
import time
from pathlib import Path

import regbench


class Harmful(regbench.Regularizer):
    """Does something to its process as its regularization begins."""

    name = "harmful"

    class Options(regbench.Options):
        do: str = regbench.Field("nothing", description="what")

    def on_regularization_start(self, model, batches):
        getattr(self, self.options.do)()

    def forward(self, code_BD, h_BF):
        return code_BD, {"size": code_BD.pow(2).sum(1).mean()}

    def nothing(self):
        pass

    def kill(self):
        os.kill(os.getpid(), signal.SIGKILL)

    def kill_once(self):
        if not Path("killed").exists():
            Path("killed").touch()
            self.kill()


class Endless(regbench.Dataset):
    """Its images never come."""

    name = "endless"

    class Options(regbench.DatasetOptions):
        do: str = regbench.Field("swallow", description="what")

    @property
    def shape(self):
        return regbench.ImageShape(1, 16)

    def sizes(self, root):
        return regbench.Sizes(100, 40)

    def fingerprint(self, root):
        return "sha256:endless"

    def check(self, root):
        return []

    def load(self, root):
        assert "regbench.engines.local_worker" in sys.orig_argv, "only a worker may come here"
        getattr(self, self.options.do)()

    def swallow(self):
        while True:
            try:
                while True:
                    time.sleep(0.1)
            except BaseException:
                pass

    def hold(self):
        sum(range(10**13))


@regbench.hookimpl
def regbench_regularizers():
    return [Harmful]


@regbench.hookimpl
def regbench_datasets():
    return [Endless]
'''
ENDLESS = """
[[datasets]]
name = "endless"
label = "{do}"
options = {{ do = "{do}" }}
"""
HARMFUL = """
[[regularizers]]
name = "harmful"
label = "{do}"
options = {{ do = "{do}" }}
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(600),
    pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX"),
]


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.delenv("REGBENCH_RUNS", raising=False)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "harmful.py").write_text(PLUGIN)
    return tmp_path


def write(place: Path, more: str = "", *, epochs: int = 4, precision: str = "fp32") -> Path:
    path = place / "suite.toml"
    path.write_text(SUITE.format(epochs=epochs, precision=precision) + more)
    return path


def run(place: Path, runs: str, events: list[Any] | None = None, **asked: Any) -> Run:
    listen = (events if events is not None else []).append
    suite, plugins = place / "suite.toml", [place / "harmful.py"]
    return regbench.run(suite, device="cpu", plugins=plugins, runs_dir=place / runs, listener=listen, **asked)


def told(events: list[Any], kind: type[Any], cell: CellRecord) -> list[Any]:
    title = f"{cell.dataset} {cell.method} seed {cell.seed}"
    return [event for event in events if isinstance(event, kind) and event.cell == title]


def workers() -> list[psutil.Process]:
    """Of this process, and of those that it started."""
    found = []
    for process in psutil.Process().children(recursive=True):
        try:
            if "regbench.engines.local_worker" in process.cmdline():
                found.append(process)
        except psutil.Error:
            continue
    return found


def test_worker_processes_give_the_same_bits_and_dying_ones_cost_only_their_own_cell(place: Path) -> None:
    write(place)
    here = run(place, "here")
    write(place, HARMFUL.format(do="kill_once") + HARMFUL.format(do="kill"))
    events: list[Any] = []
    with pytest.raises(CellsFailed, match=r"1 of 6 cells failed") as failed:
        run(place, "there", events, placement=Placement(jobs=2), checkpoints="1 epochs")
    reason = "kill seed 0: failed: its process was killed by signal 9 (SIGKILL), also with nothing beside it"
    assert reason in str(failed.value)
    there = Run.open(place / "there" / "resumed")
    assert [numbers(cell) for cell in there.cells[:4]] == [numbers(cell) for cell in here.cells]
    once, always = there.cells[4:]
    assert once.result["cost"]["resumed"][0]["epoch"] == 2, "it went on from its checkpoint"
    assert always.status == "failed"
    for cell in there.cells:
        assert len(told(events, CellStarted, cell)) == len(told(events, CellFinished, cell)) == 1
        epochs = [event.epoch for event in told(events, EpochFinished, cell)]
        assert epochs == ([1, 2] if cell is always else [1, 2, 3, 4])
    for cell in (once, always):
        assert [event.epoch for event in told(events, CellResumed, cell)] == [2]
        assert [event.reason for event in told(events, CellRetried, cell)] == [
            "its process was killed by signal 9 (SIGKILL)"
        ]
    assert Counter(type(event) for event in events)[CellRetried] == 2, "nobody else was disturbed"
    assert all(len(list(cell.directory.glob("attempts/*"))) == 1 for cell in there.cells[:4])
    assert workers() == []


def test_a_cell_that_hangs_ends_with_its_traceback(place: Path) -> None:
    """In Python that catches everything, and in C that lets no Python run."""
    write(place, ENDLESS.format(do="swallow") + ENDLESS.format(do="hold"))
    started = time.monotonic()
    with pytest.raises(CellsFailed) as failed:
        run(
            place,
            "runs",
            only=["swallow AE seed 0", "hold AE seed 0"],
            placement=Placement(jobs=2, limit=5.0, grace=1.0),
        )
    assert time.monotonic() - started < PATIENCE_S, "neither would end by itself"
    assert str(failed.value).count("timeout: it did not end after 5 s, its time limit") == 2
    for cell in Run.open(place / "runs" / "resumed").select(method="AE")[1:]:
        assert cell.status == "timeout"
        (log,) = cell.directory.glob("attempts/*/log.txt")
        assert f"in {cell.dataset}" in log.read_text()
    assert workers() == []


def test_tuning_side_by_side_selects_the_same(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    methods = tuned.AE + tuned.FRAIL % "false, true" + tuned.FIXED
    found = []
    for folder, placement in (("here", Placement()), ("there", Placement(jobs=2))):
        (place / folder).mkdir()
        monkeypatch.chdir(place / folder)
        tuned.write(place / folder, methods, seeds=1)
        events: list[Any] = []
        finished = regbench.run(
            **tuned.arguments(place / folder), listener=events.append, placement=placement
        )
        found.append((finished.suite["tuning"], [numbers(cell) for cell in finished.cells]))
    assert found[0] == found[1]
    starts = [event.cell for event in events if isinstance(event, CellStarted)]
    assert {*starts[:2]} == {"marked AE trial 0", "marked frail trial 0"}, "a trial of each study at a time"
    numbered = [event.number for event in events if isinstance(event, CellStarted)]
    assert sorted(numbered[:6]) == [1, 2, 3, 4, 5, 6]


class Command:
    """``regbench run`` as a process, with its events."""

    def __init__(self, place: Path, jobs: int) -> None:
        command = [sys.executable, "-m", "regbench", "run", "suite.toml", "--device", "cpu", "--json"]
        self.process = subprocess.Popen(
            [*command, "--jobs", str(jobs), "--only", "*VAE-*", "--runs-dir", "there"],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.events: list[dict[str, Any]] = []

    def until(self, kind: str, count: int = 1) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.events.append(json.loads(line))
            if sum(event["event"] == kind for event in self.events) == count:
                return
        raise AssertionError(self.process.communicate())

    def ends(self, number: int) -> tuple[int, str]:
        """Its exit code after a signal, and what it has said; its workers have ended, too."""
        busy = workers()
        assert busy
        self.process.send_signal(number)
        out, err = self.process.communicate(timeout=PATIENCE_S)
        self.events += [json.loads(line) for line in out.splitlines()]
        _, alive = psutil.wait_procs(busy, timeout=PATIENCE_S)
        assert alive == []
        assert "Traceback" not in err
        return self.process.returncode, err


def test_signals_to_a_run_with_workers_and_its_sudden_death_lose_nothing(place: Path) -> None:
    """Ctrl-C, SIGKILL of the command itself, SIGTERM: the fourth run comes to an undisturbed one's numbers."""
    write(place, epochs=50)
    here = run(place, "here", only=["*VAE-*"])
    command = Command(place, 2)
    command.until("EpochFinished", 2)
    code, err = command.ends(2)
    assert code == 130
    assert "hint: run the same command again to go on" in err
    stopped = Run.open(place / "there" / "resumed")
    begun = {event["cell"] for event in command.events if event["event"] == "CellStarted"}
    interrupted = [cell for cell in stopped.cells if cell.status == "interrupted"]
    assert interrupted
    assert any(cell.history for cell in interrupted)
    for cell in interrupted:
        assert f"{cell.dataset} {cell.method} seed 0" in begun
        names = [path.name for path in cell.directory.glob("attempts/*/checkpoints/*")]
        epochs = len(cell.history)
        assert names == ([f"{epochs:06d}-000000.ckpt"] if epochs else []), "at the end of its epoch"
    assert not list(stopped.select(method="AE")[0].directory.glob("*"))

    command = Command(place, 1)
    command.until("EpochFinished")
    assert [event["epoch"] for event in command.events if event["event"] == "CellResumed"] != [0]
    assert command.ends(9)[0] == -9, "its worker has ended with it"

    command = Command(place, 1)
    command.until("EpochFinished")
    code, err = command.ends(15)
    assert code == 143
    assert "hint: run the same command again to go on" in err

    finished = run(place, "there", only=["*VAE-*"])
    for again, once in zip(finished.cells[1:3], here.cells[1:3], strict=True):
        assert numbers(again) == numbers(once)
