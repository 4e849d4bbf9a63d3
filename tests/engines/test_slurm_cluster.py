"""The Slurm engine on a real Slurm of one node, started for these tests: ``nox -s slurm``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from regbench.engines import slurm as slurm_module
from regbench.engines import slurm_commands as commands
from regbench.engines.base import Happening, Lost, Resources, Returned, Setting, Started, Submission, Waiting
from regbench.engines.slurm import Slurm
from regbench.engines.slurm_options import SlurmOptions
from regbench.errors import EnvironmentFault
from tests.engines import start_slurm

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0

pytestmark = pytest.mark.slow


@dataclass
class Opened:
    """An engine that places the functions of ``slurm_jobs``, and what it has told."""

    engine: Slurm
    directory: Path
    told: list[Happening] = field(default_factory=list)

    def submit(self, *names: str) -> list[str]:
        jobs = [json.dumps({"file": str(self.directory / name), "name": name}) for name in names]
        return self.engine.submit([Submission(job, "a test's job", Resources()) for job in jobs])

    def runs(self, name: str) -> list[list[int]]:
        """Process and restart count of each time that a job has begun."""
        file = self.directory / name
        return (
            [[int(word) for word in line.split()] for line in file.read_text().splitlines()]
            if file.exists()
            else []
        )

    def go(self, name: str) -> None:
        (self.directory / name).with_suffix(".go").touch()

    def until(self, ready: Callable[[], object], seconds: float = PATIENCE_S) -> None:
        deadline = time.monotonic() + seconds
        while not ready():
            assert time.monotonic() < deadline, f"{self.told}\n{commands.queue()}"
            self.told += self.engine.poll(0.2)

    def ends(self, *handles: str, seconds: float = PATIENCE_S) -> list[Lost | Returned]:
        """How these jobs have ended."""

        def found() -> dict[str, Lost | Returned]:
            return {h.handle: h for h in self.told if isinstance(h, Lost | Returned)}

        self.until(lambda: set(handles) <= set(found()), seconds)
        assert sum(isinstance(h, Lost | Returned) and h.handle in handles for h in self.told) == len(handles)
        return [found()[handle] for handle in handles]


@pytest.fixture
def opened(cluster: start_slurm.Slurm, tmp_path: Path) -> Iterator[Callable[..., Opened]]:
    """Opens engines in ``tmp_path/run``; ``opened("wait", minutes=1)``."""
    engines = []

    def open_one(function: str, run: str = "run", jobs: int = 2, **options: object) -> Opened:
        class Placed(Slurm):
            target = f"tests.engines.slurm_jobs:{function}"

        given = SlurmOptions.model_validate({"poll_seconds": 0.5, **options})
        environment = {"PYTHONPATH": str(ROOT), "GIVEN": "it's $HOME"}
        engine = Placed(given, Setting(tmp_path / run, jobs, "cpu", environment))
        engines.append(engine)
        engine.open()
        return Opened(engine, tmp_path)

    yield open_one
    for engine in engines:
        engine.close()


def test_an_array_runs_each_job_once(opened: Callable[..., Opened]) -> None:
    it = opened("tell", setup="export FROM_SETUP=yes")
    names = ["a", "b", "c"]
    handles = it.submit(*names)
    ends = it.ends(*handles)
    assert len(set(handles)) == 3
    assert len({handle.partition("_")[0] for handle in handles}) == 1, "one array"
    answers = [json.loads(end.answer) for end in ends if isinstance(end, Returned)]
    assert [answer["job"]["name"] for answer in answers] == names
    found = {"GIVEN": "it's $HOME", "FROM_SETUP": "yes", "SLURM_CPUS_PER_TASK": "1"}
    assert all(answer["found"] == found for answer in answers)
    assert all(len(it.runs(name)) == 1 for name in names)
    [script] = it.engine._folder.glob("*_submission.sh")
    assert "#SBATCH --array=0-2%2\n" in script.read_text(), "at most two at a time"


def test_a_job_of_its_own_is_a_job_too(
    opened: Callable[..., Opened], monkeypatch: pytest.MonkeyPatch
) -> None:
    # As where regbench itself runs in a job of an array.
    for name in ("SLURM_JOB_ID", "SLURM_ARRAY_JOB_ID", "SLURM_ARRAY_TASK_ID"):
        monkeypatch.setenv(name, "999")
    it = opened("tell")
    [end] = it.ends(*it.submit("a"))
    assert isinstance(end, Returned)
    started = [h for h in it.told if isinstance(h, Started)]
    assert all(end.handle in h.where for h in started)


def test_killed_processes_are_lost(opened: Callable[..., Opened]) -> None:
    it = opened("wait")
    killed, by_slurm = it.submit("a", "b")
    it.until(lambda: it.runs("a") and it.runs("b"))
    os.kill(it.runs("a")[0][0], signal.SIGKILL)
    subprocess.run(["scancel", "--batch", "--signal=KILL", by_slurm], check=True)
    first, second = it.ends(killed, by_slurm)
    assert first == Lost(killed, "its process was killed by signal 9", 9)
    assert isinstance(second, Lost)
    assert second.cells_own
    assert len(it.runs("a")) == len(it.runs("b")) == 1


def test_a_requeued_job_runs_again_and_answers_once(opened: Callable[..., Opened]) -> None:
    it = opened("wait")
    [handle] = it.submit("a")
    it.until(lambda: len(it.runs("a")) == 1)
    it.until(lambda: any(isinstance(h, Started) for h in it.told))
    subprocess.run(["scontrol", "requeue", handle], check=True)
    # The first run is told to stop and answers, but Slurm has not done with the job.
    it.until(lambda: len(it.runs("a")) == 2)
    assert not any(isinstance(h, Lost | Returned) for h in it.told)
    it.go("a")
    assert it.ends(handle) == [Returned(handle, "finished")]
    assert [restarts for _, restarts in it.runs("a")] == [0, 1]
    assert [type(h) for h in it.told] == [Started, Waiting, Started, Returned]


def test_a_preempted_job_runs_again(opened: Callable[..., Opened]) -> None:
    it = opened("wait", sbatch="--exclusive")
    [handle] = it.submit("a")
    it.until(lambda: len(it.runs("a")) == 1)
    urgent = [
        "sbatch",
        "--parsable",
        "--partition=urgent",
        "--exclusive",
        "--output=/dev/null",
        "--wrap=sleep 1",
    ]
    subprocess.run(urgent, check=True, capture_output=True)
    it.until(lambda: len(it.runs("a")) == 2)
    it.go("a")
    assert it.ends(handle) == [Returned(handle, "finished")]


def test_cancelled_jobs_stop_are_killed_or_never_begin(opened: Callable[..., Opened]) -> None:
    it, other = opened("wait", jobs=1), opened("stubborn", run="other")
    runs, waits = it.submit("runs", "waits")
    [stubborn] = other.submit("stubborn")
    it.until(lambda: it.runs("runs") and other.runs("stubborn"))
    it.engine.cancel(waits, 30.0)
    it.engine.cancel(runs, 30.0)
    other.engine.cancel(stubborn, 1.0)
    assert it.ends(runs, waits) == [
        Returned(runs, "stopped"),
        Lost(waits, "it was cancelled before it began"),
    ]
    [killed] = other.ends(stubborn)
    assert isinstance(killed, Lost)
    assert killed.reason == "it was cancelled"
    assert not it.runs("waits")


def test_a_time_limit_is_announced(opened: Callable[..., Opened]) -> None:
    it = opened("wait", minutes=1, warn_seconds=58)
    [handle] = it.submit("a")
    assert it.ends(handle) == [Returned(handle, "stopped")]


def test_what_slurm_holds_after_a_requeue_is_lost(opened: Callable[..., Opened]) -> None:
    it = opened("wait")
    [handle] = it.submit("a")
    it.until(lambda: it.runs("a"))
    subprocess.run(["scontrol", "requeuehold", handle], check=True)
    [end] = it.ends(handle)
    assert isinstance(end, Lost)
    assert not end.cells_own
    it.until(lambda: handle not in commands.queue())


def test_a_function_that_raises_is_lost_with_its_reason(opened: Callable[..., Opened]) -> None:
    it = opened("broken")
    [end] = it.ends(*it.submit("a"))
    assert isinstance(end, Lost)
    assert "ZeroDivisionError: by the test's zero" in end.reason
    log = Path(end.reason.rpartition("; see ")[2])
    assert "by the test's zero" in log.read_text()


def test_no_python_there_is_lost_with_its_code(opened: Callable[..., Opened]) -> None:
    it = opened("tell", python="/no/such/python")
    [end] = it.ends(*it.submit("a"))
    assert isinstance(end, Lost)
    assert "exit code 127" in end.reason
    assert "/no/such/python" in Path(end.reason.rpartition("; see ")[2]).read_text()


def test_jobs_that_slurm_refuses(opened: Callable[..., Opened], capfd: pytest.CaptureFixture[str]) -> None:
    it = opened("tell", partition="nowhere")
    with pytest.raises(EnvironmentFault, match="invalid partition") as refused:
        it.submit("a")
    assert "--engine-option" in str(refused.value.hint)
    assert capfd.readouterr().err == ""


def test_what_a_dead_process_has_left_is_cancelled_by_the_next(opened: Callable[..., Opened]) -> None:
    """Only in the same run directory."""
    dead, elsewhere = opened("wait", jobs=1), opened("wait", run="elsewhere", jobs=1)
    left = set(dead.submit("a", "b"))
    others = set(elsewhere.submit("c"))
    assert left | others <= set(commands.queue())
    opened("wait")
    dead.until(lambda: not left & set(commands.queue()))
    assert others <= set(commands.queue())


def test_leaving_cancels_what_is_left(opened: Callable[..., Opened]) -> None:
    it = opened("wait", jobs=1)
    handles = set(it.submit("a", "b"))
    assert handles <= set(commands.queue())
    it.engine.close()
    it.until(lambda: not handles & set(commands.queue()))
    it.engine.close()


def test_a_silent_slurm_is_waited_for(
    opened: Callable[..., Opened],
    cluster: start_slurm.Slurm,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    it, left = opened("tell"), opened("wait", run="other")
    [handle], [waits] = it.submit("a"), left.submit("b")
    with cluster.frozen_controller(), monkeypatch.context() as impatient:
        impatient.setattr(commands, "TIMEOUT_S", 1.0)
        assert it.engine.poll(1.0) == []
        impatient.setattr(slurm_module, "PATIENCE_S", 0.0)
        with pytest.raises(EnvironmentFault, match="Slurm has not answered") as fault:
            it.engine.poll(5.0)
        assert "continues from the store" in str(fault.value.hint)
        left.engine.cancel(waits, 1.0)
        left.engine.close()
    assert "1 Slurm jobs could not be cancelled, the next run will" in caplog.text
    [end] = it.ends(handle)
    assert isinstance(end, Returned)
    opened("wait", run="other")
    it.until(lambda: waits not in commands.queue())


def test_a_node_that_dies(opened: Callable[..., Opened], cluster: start_slurm.Slurm) -> None:
    """Its jobs run again on another node, here on the same one come back, or are lost by no fault of their own."""
    again, lost = opened("wait"), opened("wait", run="other", requeue=False)
    [handle], [other] = again.submit("again"), lost.submit("lost")
    again.until(lambda: again.runs("again") and lost.runs("lost"))
    cluster.kill_node()
    try:
        assert lost.ends(other) == [Lost(other, f"its node {start_slurm.host()} failed", cells_own=False)]
    finally:
        cluster.start_node()
    again.until(lambda: len(again.runs("again")) == 2)
    again.go("again")
    assert again.ends(handle) == [Returned(handle, "finished")]
