"""The local engine with real processes: each job ends once, a dead worker is replaced, nothing is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from regbench.engines.base import Happening, Lost, Resources, Returned, Setting, Started, Submission
from regbench.engines.local import VISIBLE, Local, LocalOptions, visible_gpus
from regbench.errors import EnvironmentFault, StoreError

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0

pytestmark = pytest.mark.skipif(os.name != "posix", reason="worker processes need POSIX")


@pytest.fixture(autouse=True)
def found_by_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)


def make(place: Path, jobs: int = 1, device: str = "cpu", **environment: str) -> Local:
    engine = Local(LocalOptions(), Setting(place, jobs, device, environment))
    engine.entry = "tests.engines.local_jobs:act"
    return engine


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[Local]:
    with make(tmp_path) as engine:
        assert isinstance(engine, Local)
        yield engine


def submit(engine: Local, *acts: str, **more: Any) -> list[str]:
    return engine.submit([Submission(json.dumps({"do": act, **more}), act, Resources()) for act in acts])


def ends(engine: Local, count: int) -> dict[str, Lost | Returned]:
    """Polls until so many jobs have ended, and a little longer: none ends twice."""
    found: list[Happening] = []
    deadline = time.monotonic() + PATIENCE_S
    while sum(not isinstance(each, Started) for each in found) < count:
        assert time.monotonic() < deadline, found
        found += engine.poll(0.5)
    found += engine.poll(0.0)
    over = [each for each in found if not isinstance(each, Started)]
    assert len(over) == count
    return {each.handle: each for each in over}


def answer(end: Lost | Returned) -> dict[str, Any]:
    assert isinstance(end, Returned), end
    content: dict[str, Any] = json.loads(end.answer)
    return content


def gone(number: int) -> bool:
    """Whether a process has ended, or does at once."""
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        try:
            if psutil.Process(number).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.02)
    return False


def written(file: Path) -> int:
    deadline = time.monotonic() + PATIENCE_S
    while not (file.exists() and file.read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return int(file.read_text())


def test_a_worker_takes_job_after_job_and_its_pipes_are_its_own(engine: Local, tmp_path: Path) -> None:
    handles = submit(engine, "say", "say")
    found = ends(engine, 2)
    first, second = (answer(found[handle]) for handle in handles)
    assert first["process"] == second["process"]
    assert first["read"] == "", "a plugin that reads gets nothing, and no job"
    assert "printed" in (tmp_path / "workers" / "worker-0.log").read_text()


@pytest.mark.parametrize(
    ("act", "reason", "number"),
    [
        ("kill", "its process was killed by signal 9 (SIGKILL)", 9),
        ("exit", "its process ended with exit code 3", None),
        ("crash", "its process was killed by signal 11 (SIGSEGV)", 11),
    ],
)
def test_a_process_that_dies_is_replaced(engine: Local, act: str, reason: str, number: int | None) -> None:
    dies, lives = submit(engine, act, "say")
    found = ends(engine, 2)
    assert found[dies] == Lost(dies, reason, number, cells_own=True)
    assert answer(found[lives])["read"] == ""


def test_a_process_that_retires_is_replaced(engine: Local) -> None:
    first, second = submit(engine, "retire", "say")
    found = ends(engine, 2)
    assert answer(found[first])["process"] != answer(found[second])["process"]
    assert gone(answer(found[first])["process"])


@pytest.mark.parametrize("act", ["fork", "start"])
def test_what_a_dead_worker_has_started_is_ended_and_does_not_hide_its_death(
    engine: Local, act: str, tmp_path: Path
) -> None:
    (handle,) = submit(engine, act, file=str(tmp_path / "child"))
    assert ends(engine, 1)[handle] == Lost(handle, "its process ended with exit code 3", None)
    assert gone(written(tmp_path / "child"))


def test_a_worker_that_dies_between_jobs_costs_no_job(engine: Local) -> None:
    (first,) = submit(engine, "say")
    number = answer(ends(engine, 1)[first])["process"]
    os.kill(number, signal.SIGKILL)
    assert gone(number)
    (second,) = submit(engine, "say")
    assert answer(ends(engine, 1)[second])["process"] != number


def test_cancelled_jobs_end_by_themselves_or_are_killed_after_their_grace(tmp_path: Path) -> None:
    with make(tmp_path, jobs=2) as engine:
        assert isinstance(engine, Local)
        (waits,) = submit(engine, "wait", file=str(tmp_path / "wait"))
        (hangs,) = submit(engine, "hang", file=str(tmp_path / "hang"))
        (queued,) = submit(engine, "say")
        written(tmp_path / "wait")
        number = written(tmp_path / "hang")
        engine.cancel(waits, PATIENCE_S)
        engine.cancel(hangs, 0.2)
        engine.cancel(queued, PATIENCE_S)
        found = ends(engine, 3)
        assert answer(found[waits])["stopped"] == signal.SIGTERM
        assert found[hangs] == Lost(hangs, "its process was killed by signal 9 (SIGKILL)", 9)
        assert found[queued] == Lost(queued, "it was cancelled before it began")
        assert gone(number)
        (frozen,) = submit(engine, "hang", file=str(tmp_path / "frozen"))
        os.kill(written(tmp_path / "frozen"), signal.SIGSTOP)
        engine.cancel(frozen, PATIENCE_S)
        engine.cancel(frozen, 0.0)
        assert ends(engine, 1)[frozen] == Lost(frozen, "its process was killed by signal 9 (SIGKILL)", 9)


def test_close_leaves_nothing_behind(tmp_path: Path) -> None:
    engine = make(tmp_path, jobs=2)
    with engine:
        (first,) = submit(engine, "say")
        idle = answer(ends(engine, 1)[first])["process"]
        submit(engine, "hang", "hang", file=str(tmp_path / "hang"))
        busy = written(tmp_path / "hang")
    engine.close()
    assert gone(idle)
    assert gone(busy)


def test_workers_whose_giver_is_killed_stop_what_they_do_and_end(tmp_path: Path) -> None:
    script = (
        "import sys, json\nfrom pathlib import Path\nfrom tests.engines.test_local import make, submit\n"
        f"engine = make(Path({str(tmp_path)!r}), jobs=2)\n"
        f"submit(engine, 'wait', file={str(tmp_path / 'wait')!r})\n"
        "submit(engine, 'say')\n"
        "while True: engine.poll(1.0)\n"
    )
    with subprocess.Popen([sys.executable, "-c", script], cwd=ROOT) as giver:
        number = written(tmp_path / "wait")
        giver.kill()
    assert gone(number)
    assert (tmp_path / "wait.stopped").exists(), "it was told, and could save"


def test_workers_that_do_not_start_end_the_run_with_their_reason(tmp_path: Path) -> None:
    with make(tmp_path, jobs=2, REGBENCH_TEST_BROKEN="1") as engine:
        assert isinstance(engine, Local)
        submit(engine, "say", "say")
        with pytest.raises(
            EnvironmentFault, match="do not start, 3 in a row: the last one ended with exit code 7"
        ) as raised:
            ends(engine, 2)
    log = tmp_path / "workers" / "worker-0.log"
    assert raised.value.hint is not None
    assert f"{log.parent}/worker-" in raised.value.hint
    assert "I cannot be imported" in log.read_text()


def test_a_directory_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "workers").write_text("in the way")
    engine = make(tmp_path)
    with engine, pytest.raises(StoreError, match=r"cannot write .*worker-0\.log"):
        submit(engine, "say")


def test_slots_share_the_gpus_in_turn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VISIBLE, "GPU-a, 3")
    assert visible_gpus() == ["GPU-a", "3"]
    assert visible_gpus({VISIBLE: "3"}) == ["3"]
    with make(tmp_path, jobs=3, device="cuda") as engine:
        assert isinstance(engine, Local)
        submit(engine, "say", "say", "say")
        gpus = sorted(answer(end)["gpu"] for end in ends(engine, 3).values())
    assert set(gpus) <= {"GPU-a", "3"}
    assert [engine._gpu(slot)[VISIBLE] for slot in range(3)] == ["GPU-a", "3", "GPU-a"]
    assert Local.default_jobs(LocalOptions(), "cuda") == 2
    assert Local.default_jobs(LocalOptions(), "cpu") == 1
