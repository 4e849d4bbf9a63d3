"""One job in this process: what keeps it from beginning, what ends it, and what the store and the answer say then."""

from __future__ import annotations

import json
import resource
import signal
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import regbench
from regbench.execution import worker
from regbench.execution.job import Job, Site, code_of
from regbench.execution.worker import Answer, run_job
from regbench.store.records import CellRecord, read_json
from regbench.store.writer import RunWriter
from tests.execution.suites import write_suite

PLUGIN = '''
import os
import signal
import sys
import time
from pathlib import Path

import numpy as np
import torch
import regbench
from regbench.store.files import write_json


class Acting(regbench.Regularizer):
    """Does something to its process as its regularization begins."""

    name = "acting"

    class Options(regbench.Options):
        do: str = regbench.Field("nothing", description="what")
        place: str = regbench.Field("", description="a path")

    def on_regularization_start(self, model, batches):
        getattr(self, self.options.do)()

    def forward(self, code_BD, h_BF):
        return code_BD, {"size": code_BD.pow(2).sum(1).mean()}

    def nothing(self):
        pass

    def memory(self):
        raise torch.OutOfMemoryError("too little for me")

    def slow(self):
        time.sleep(60)

    def stop(self):
        os.kill(os.getpid(), signal.SIGTERM)

    def move(self):
        write_json(Path(self.options.place).resolve(), {"token": "another", "stop": ""})

    def ask(self):
        claim = Path(self.options.place).resolve()
        write_json(claim, {**regbench_json(claim), "stop": "batch"})
        time.sleep(1.1)


def regbench_json(path):
    import json

    return json.loads(path.read_text())


class Odd(regbench.Dataset):
    """Its images are not to be had."""

    name = "odd"

    class Options(regbench.DatasetOptions):
        do: str = regbench.Field("slow", description="what")

    @property
    def shape(self):
        return regbench.ImageShape(1, 16)

    def sizes(self, root):
        return regbench.Sizes(100, 40)

    def fingerprint(self, root):
        return "sha256:odd"

    def load(self, root):
        if self.options.do == "slow":
            time.sleep(60)
        if self.options.do == "memory":
            raise MemoryError
        sys.exit(4)


@regbench.hookimpl
def regbench_regularizers():
    return [Acting]


@regbench.hookimpl
def regbench_datasets():
    return [Odd]
'''
ACTING = """
[[regularizers]]
name = "acting"
options = {{ do = "{do}", place = '{place}' }}
"""


class Place:
    """A planned suite, and jobs for its one cell."""

    def __init__(self, path: Path, do: str = "nothing", *, odd: str = "", **site: Any) -> None:
        self.run = path / "runs" / "tiny"
        claim = ""
        for _ in range(2):  # the claim's path is one of the cell's options
            suite = write_suite(path, ACTING.format(do=do, place=claim))
            if odd:
                text = suite.read_text().replace(
                    'name = "digits"', f'name = "odd"\noptions = {{ do = "{odd}" }}'
                )
                suite.write_text(text)
            self.plugin = path / "acting.py"
            self.plugin.write_text(PLUGIN)
            ready = regbench.plan(suite, device="cpu", plugins=[self.plugin], runs_dir=path / "runs")
            self.cell = ready.cells[0]
            if do in ("move", "ask"):
                claim = str(path / "claim.json")
        self.registry = ready.registry
        fields: dict[str, Any] = {"checkpoints": "1 epochs", **site}
        self.site = Site(
            str(self.run),
            (str(self.plugin),),
            ("mse",),
            str(path),
            fields.pop("device", "cpu"),
            "test",
            **fields,
        )
        self.path = path

    def job(self, **changes: Any) -> Job:
        writer = RunWriter(self.run).cell(self.cell.slug)
        writer.claim.take()
        if not (self.path / "claim.json").exists():
            (self.path / "claim.json").symlink_to(writer.claim.path)
        code = code_of(self.cell.spec, self.site.metrics, self.registry)
        return replace(Job(self.site, self.cell.spec, self.cell.slug, writer.claim.token, code), **changes)

    def answer(self, job: Job | None = None) -> Answer:
        return Answer.from_json(run_job((job or self.job()).to_json()))

    @property
    def directory(self) -> Path:
        return self.run / "cells" / self.cell.slug

    @property
    def outcome(self) -> dict[str, Any]:
        spec = self.cell.spec
        return CellRecord(spec.id, spec.method, spec.dataset, spec.seed, {}, self.directory).outcome

    @property
    def log(self) -> str:
        (log,) = self.directory.glob("attempts/*/log.txt")
        return log.read_text()


def test_a_job_is_text_and_its_result_is_in_the_store(tmp_path: Path) -> None:
    place = Place(tmp_path)
    job = place.job()
    assert Job.from_json(job.to_json()) == job
    assert place.answer(job) == Answer("ended")
    assert place.outcome["status"] == "done"
    assert list((place.run / "workers").glob("hang-*")) == []
    runner = worker._runner
    place.answer(place.job(replace=True))
    assert worker._runner is runner, "kept for the next job, with its data set"


def test_other_code_is_refused_and_nothing_is_trained(tmp_path: Path) -> None:
    place = Place(tmp_path)
    job = place.job()
    place.plugin.write_text(PLUGIN + "# edited while the suite ran\n")
    assert place.answer(job).verdict == "ended"
    assert place.outcome["status"] == "failed"
    assert (
        "has other code than the suite was planned with: regularizer acting: source"
        in place.outcome["reason"]
    )
    assert "install the same versions everywhere; nothing was trained" in place.outcome["reason"]
    assert not list(place.directory.glob("attempts/*/metrics.jsonl"))
    place.plugin.write_text(PLUGIN)
    worker._runner = None
    for name in ("regbench", "metric mse"):
        code = {**job.code, name: {"source": "0" * 64}}
        place.answer(place.job(code=code))
        assert f"{name}: source" in place.outcome["reason"]
    place.plugin.unlink()
    worker._runner = None
    place.answer(place.job())
    assert "there is no such file" in place.outcome["reason"]


def test_a_job_of_another_version_of_regbench_is_refused_before_it_is_understood(tmp_path: Path) -> None:
    place = Place(tmp_path)
    for change in ({"version": "0.0.7", "unheard_of": 1}, {"version": None}):
        text = json.dumps({**json.loads(place.job().to_json()), **change})
        answer = Answer.from_json(run_job(text))
        assert answer.verdict == "refused"
        assert f"has regbench {regbench.__version__}, the suite was planned with" in answer.reason
    assert not (place.directory / "attempts").exists()


def test_a_device_that_is_not_here_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    place = Place(tmp_path, device="cuda")
    place.answer()
    assert place.outcome["reason"].startswith("DeviceError: --device cuda: this torch ")


def test_data_that_cannot_be_loaded_end_the_attempt(tmp_path: Path) -> None:
    place = Place(tmp_path, odd="exit")
    assert place.answer().verdict == "ended"
    assert place.outcome["status"] == "failed"
    assert "SystemExit" in place.outcome["reason"]
    assert "sys.exit(4)" in place.log
    (tmp_path / "more").mkdir()
    short = Place(tmp_path / "more", odd="memory")
    assert short.answer().retire
    assert short.outcome["status"] == "oom"


def test_too_little_memory_is_named_and_ends_the_process(tmp_path: Path) -> None:
    place = Place(tmp_path, "memory")
    assert place.answer() == Answer("ended", "OutOfMemoryError: too little for me", retire=True)
    assert place.outcome["status"] == "oom"


def test_a_time_limit_ends_a_cell_with_its_traceback(tmp_path: Path) -> None:
    Place(tmp_path).answer()  # the data set's classifier is trained
    place = Place(tmp_path, "slow", limit=2.0, grace=30.0)
    before = signal.getsignal(signal.SIGALRM)
    answer = place.answer()
    assert answer == Answer("ended", "it was not finished after 2 s, its time limit", retire=True)
    assert place.outcome["status"] == "timeout"
    assert "time.sleep(60)" in place.log
    assert signal.getitimer(signal.ITIMER_REAL) == (0.0, 0.0)
    assert signal.getsignal(signal.SIGALRM) == before


def test_a_time_limit_covers_loading_the_data_too(tmp_path: Path) -> None:
    place = Place(tmp_path, odd="slow", limit=0.5, grace=30.0)
    assert place.answer().verdict == "ended"
    assert place.outcome["status"] == "timeout"
    assert "time.sleep(60)" in place.log


def test_a_claim_that_moves_on_during_the_training_ends_it_without_a_result(tmp_path: Path) -> None:
    place = Place(tmp_path, "move")
    answer = place.answer()
    assert answer.verdict == "superseded"
    assert "another attempt has taken this cell over" in answer.reason
    assert not (place.directory / "result").exists()
    assert not list(place.directory.glob("attempts/*/outcome.json")), "its end is another's to say"


@pytest.mark.parametrize("do", ["ask", "stop"])
def test_a_wish_to_stop_reaches_a_training_through_the_store_and_as_a_signal(tmp_path: Path, do: str) -> None:
    place = Place(tmp_path, do)
    assert place.answer() == Answer("stopped", "stopped by a signal")
    assert place.outcome["status"] == "interrupted"
    assert list(place.directory.glob("attempts/*/checkpoints/*.ckpt"))


def test_a_full_disk_is_the_environments_and_earlier_files_stay(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.answer()
    result = (place.directory / "result" / "manifest.json").read_bytes()
    job = place.job(replace=True)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))  # too little for a checkpoint
    try:
        answer = place.answer(job)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert answer.verdict == "environment"
    assert "File too large" in answer.reason
    assert answer.hint is not None
    assert "ulimit" in answer.hint
    assert (place.directory / "result" / "manifest.json").read_bytes() == result
    assert not list(place.directory.rglob("*.tmp"))


def test_a_run_directory_that_cannot_be_made_is_the_environments(tmp_path: Path) -> None:
    place = Place(tmp_path)
    job = place.job()
    (tmp_path / "file").touch()
    answer = place.answer(replace(job, site=replace(job.site, run=str(tmp_path / "file" / "run"))))
    assert answer.verdict == "environment"


def test_a_job_runs_outside_the_main_thread_too(tmp_path: Path) -> None:
    """Some engines call it there; signals are theirs then."""
    place = Place(tmp_path, limit=300.0)
    thread = threading.Thread(target=place.answer)
    thread.start()
    thread.join()
    assert place.outcome["status"] == "done"


def test_a_job_that_is_placed_again_leaves_the_end_of_its_first_attempt(tmp_path: Path) -> None:
    place = Place(tmp_path, odd="exit")
    job = place.job()
    RunWriter(place.run).cell(job.slug, job.token).begin(job.spec.key(), {}).end("interrupted", "requeued")
    place.answer(job)
    ends = [read_json(path)["status"] for path in sorted(place.directory.glob("attempts/*/outcome.json"))]
    assert ends == ["interrupted", "failed"]
