"""From the options to an engine: numbers that make no sense are refused, threads and GPUs are shared as documented."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

import regbench
from regbench.engines.base import Engine, EngineOptions
from regbench.engines.local import VISIBLE
from regbench.errors import CellsFailed, EnvironmentFault, UsageError
from regbench.execution.events import CellFinished, CellRetried, CellStarted, EpochFinished
from regbench.execution.placement import Placement, opened, resources, threads_each
from regbench.plugins import registry
from regbench.store.records import Run
from tests.execution.suites import AE, FALLING, PLUGIN, write_plugin, write_suite
from tests.tuning import suites as tuned

CPU = torch.device("cpu")
FOUND = registry()


@contextmanager
def engine(place: Path, placement: Placement, device: torch.device = CPU) -> Iterator[Engine]:
    with opened(placement.checked(), FOUND, place, device) as found:
        assert found is not None
        yield found


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"jobs": 0}, "--jobs 0: expected 1 to 100,000"),
        ({"jobs": 10**9}, "--jobs 1000000000: expected"),
        ({"jobs": 2, "cpus": -1}, "--cpus-per-cell -1: expected 1 to 4,096"),
        ({"jobs": 2, "gpus": 0.0}, "--gpus-per-cell 0.0: expected a share"),
        ({"jobs": 2, "gpus": math.nan}, "--gpus-per-cell nan: expected a share"),
        ({"jobs": 2, "gpus": 3.0}, "--gpus-per-cell 3.0: expected a share"),
        ({"limit": -1.0}, "--time-limit -1.0: expected seconds, more than 0"),
        ({"cpus": 2}, "are for cells in worker processes"),
        ({"gpus": 0.5}, "are for cells in worker processes"),
    ],
)
def test_what_makes_no_sense_is_refused(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Placement(**asked).checked()


def test_nothing_asked_for_is_this_process(tmp_path: Path) -> None:
    with opened(Placement(), FOUND, tmp_path, CPU) as found:
        assert found is None
    for placement in (Placement("local"), Placement(jobs=1), Placement(limit=5.0)):
        with engine(tmp_path, placement) as local:
            assert (local.name, local.setting.jobs) == ("local", 1)
    with (
        pytest.raises(UsageError, match="does not take these options"),
        engine(tmp_path, Placement(options={"speed": "high"})),
    ):
        raise AssertionError


def test_threads_are_this_machines_shared_or_as_the_environment_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert [threads_each(jobs) for jobs in (1, 2, 3, 100)] == [8, 4, 2, 1]
    with engine(tmp_path, Placement(jobs=2, limit=60.0)) as local:
        assert resources(Placement(jobs=2, limit=60.0), local, CPU).cpus == 4
        assert resources(Placement(jobs=2, cpus=3), local, CPU).cpus == 3
        assert resources(Placement(jobs=2, limit=60.0), local, CPU).seconds == 60.0
    monkeypatch.setenv("OMP_NUM_THREADS", "8")
    assert threads_each(4) == 8


@pytest.mark.parametrize(
    ("device", "asked", "jobs", "share", "slots"),
    [
        ("cuda", {"jobs": 8}, 8, 0.5, ["0", "1", "2", "3", "0"]),
        ("cuda", {"engine": "local"}, 4, 1.0, ["0", "1", "2", "3"]),
        ("cuda", {"jobs": 8, "gpus": 1.0}, 4, 1.0, ["0", "1"]),
        ("cuda", {"jobs": 6}, 6, 0.5, ["0"]),
        ("cuda", {"engine": "local", "gpus": 0.5}, 8, 0.5, ["0"]),
        ("cuda:2", {"jobs": 2}, 2, 0.5, ["2", "2"]),
        ("cuda:2", {"jobs": 9, "gpus": 0.25}, 4, 0.25, ["2", "2", "2", "2"]),
    ],
)
def test_gpus_are_shared_as_asked(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    device: str,
    asked: dict[str, Any],
    jobs: int,
    share: float,
    slots: list[str],
) -> None:
    monkeypatch.setenv(VISIBLE, "0,1,2,3")
    placement, where = Placement(**asked), torch.device(device)
    with engine(tmp_path, placement, where) as local:
        assert local.setting.jobs == jobs
        assert resources(placement, local, where).gpus == share
        found = [local._gpu(slot)[VISIBLE] for slot in range(len(slots))]  # type: ignore[attr-defined]
        assert found == slots
    with (
        pytest.raises(UsageError, match="--gpus-per-cell: cells run on cpu"),
        engine(tmp_path, Placement(jobs=2, gpus=0.5)),
    ):
        raise AssertionError


class Unfit(Engine):
    name: ClassVar[str] = "unfit"

    @classmethod
    def check(cls, options: EngineOptions) -> list[str]:
        return ["no such queue: make one", "and more"]


def test_an_engine_that_cannot_work_here_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    placement = Placement(jobs=2)
    monkeypatch.setattr(Placement, "engine_class", lambda self, found: (Unfit, EngineOptions()))
    with (
        pytest.raises(EnvironmentFault, match="cannot be used here: no such queue: make one") as raised,
        opened(placement, FOUND, tmp_path, CPU),
    ):
        raise AssertionError
    assert raised.value.hint == "and more"


MEMORY = PLUGIN.replace('raise RuntimeError("I fell")', 'raise torch.OutOfMemoryError("not enough")')
ONCE = MEMORY.replace(
    "if self.options.fall:",
    'if self.options.fall and not Falling.__dict__.get("fell"):\n            Falling.fell = True',
)


def test_too_little_memory_in_this_process_is_tried_again_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = write_suite(
        tmp_path, FALLING.format(label="short", options="fall = true") + AE, metrics='["mse"]'
    )
    for text, status in ((MEMORY, "oom"), (ONCE, "done")):
        events: list[Any] = []
        plugin = write_plugin(tmp_path, text)
        try:
            regbench.run(suite, device="cpu", plugins=[plugin], listener=events.append)
        except CellsFailed as failed:
            assert "short seed 0: oom: OutOfMemoryError: not enough" in str(failed)  # noqa: PT017
            assert status == "oom"
        own = [event for event in events if getattr(event, "cell", "") == "digits short seed 0"]
        kinds = [type(event) for event in own if type(event).__name__ != "EpochFinished"]
        assert kinds == [CellStarted, CellRetried, CellFinished]
        assert own[-1].status == status
        short, other = Run.open(tmp_path / "runs" / "tiny").cells
        assert (short.status, other.status) == (status, "done")
        assert short.key["training"]["batch_size"] == 32, "never changed"


HEAVY = """
import regbench


class Heavy(regbench.Metric):
    \"""Finds too little memory, once, when it is asked about all test images.\"""

    name, label, better, definition = "heavy", "heavy", "lower", "made up"

    def per_image(self, x_BCHW, logits_BCHW):
        if len(x_BCHW) == 40 and not Heavy.__dict__.get("fell"):
            Heavy.fell = True
            raise MemoryError
        return (x_BCHW - logits_BCHW.sigmoid()).pow(2).flatten(1).mean(1)


@regbench.hookimpl
def regbench_metrics():
    return [Heavy]
"""


def test_a_forced_cell_that_is_tried_again_keeps_its_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    suite = write_suite(tmp_path, AE, metrics='["mse", "heavy"]')
    plugin = write_plugin(tmp_path, HEAVY)
    events: list[Any] = []
    run = regbench.run(suite, device="cpu", plugins=[plugin], force=["AE"], listener=events.append)
    assert [type(event) for event in events].count(CellRetried) == 1
    assert [event.epoch for event in events if isinstance(event, EpochFinished)] == [1, 2], "trained once"
    assert [entry["epoch"] for entry in run.cells[0].result["cost"]["resumed"]] == [2]


def test_a_trial_without_memory_counts_as_failed_in_the_next_run_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(tuned, "PLUGIN", tuned.PLUGIN.replace('RuntimeError("I fell")', "MemoryError"))
    first = tuned.run(tmp_path, tuned.FRAIL % "false, true")
    states = [trial["state"] for trial in first.suite["tuning"]["studies"][0]["trials"]]
    assert "failed" in states
    ready = tuned.plan(tmp_path)
    assert [study.pending for study in ready.studies] == [0]
    assert [cell.state for cell in ready.cells] == ["finished"]


def test_workers_share_the_cores_in_every_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 8)
    for placement, threads in ((Placement(jobs=4), "2"), (Placement(jobs=4, cpus=3), "3")):
        with opened(placement, FOUND, tmp_path, CPU) as found:
            assert found is not None
            assert found.setting.environment["OMP_NUM_THREADS"] == threads
    monkeypatch.setenv("OMP_NUM_THREADS", "5")  # the user's own word, which workers inherit
    with opened(Placement(jobs=4), FOUND, tmp_path, CPU) as found:
        assert found is not None
        assert "OMP_NUM_THREADS" not in found.setting.environment
