"""The Slurm engine where there is no Slurm: its options, what it asks for, and what it makes of Slurm's words."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from regbench.engines import slurm_commands as commands
from regbench.engines.base import Lost, Resources, Setting
from regbench.engines.slurm import Slurm
from regbench.engines.slurm_options import SlurmOptions, parameters
from regbench.errors import EnvironmentFault
from regbench.suite.faults import validate_texts

SETTING = Setting(Path("/runs/x"), jobs=4, device="cpu", environment={"NAME": "it's $HOME"})


def asked_for(needs: Resources, **options: str) -> dict[str, object]:
    given, faults = validate_texts(SlurmOptions, options, "--engine-option")
    assert given is not None, faults
    return parameters(given, SETTING, needs, "digits / AE / seed 0", "regbench:x")


def test_what_cells_need_is_what_jobs_ask_for() -> None:
    asked = asked_for(
        Resources(cpus=3, gpus=1, seconds=600), mem_gb="1.5", partition="gpu", setup="module load x"
    )
    assert (asked["cpus_per_task"], asked["gres"], asked["mem"]) == (3, "gpu:1", "1536M")
    assert asked["time"] == 15, "after the worker's own limit, with time to start and a warning"
    assert asked["partition"] == "gpu"
    assert asked["array_parallelism"] == 4
    assert asked["setup"] == ["export NAME='it'\"'\"'s $HOME'", "module load x"]


def test_what_nobody_asked_for_is_the_clusters_choice() -> None:
    asked = asked_for(Resources())
    # submitit would ask for five minutes and for a wckey of its own.
    for name in ("time", "wckey", "mem", "gres", "account", "qos", "constraint", "partition"):
        assert asked[name] is None, name
    assert asked["additional_parameters"] == {"signal": "B:TERM@90", "requeue": True}


def test_further_options_of_sbatch_are_passed_on() -> None:
    asked = asked_for(
        Resources(), sbatch="--reservation='the night' --exclusive", requeue="false", warn_seconds="30"
    )
    assert asked["additional_parameters"] == {
        "signal": "B:TERM@30",
        "no-requeue": True,
        "reservation": "the night",
        "exclusive": True,
    }


def test_a_time_limit_without_time_to_work_is_refused() -> None:
    given, faults = validate_texts(SlurmOptions, {"minutes": "1"}, "--engine-option")
    assert given is None
    assert "told to stop as it begins" in faults[0].expected


@pytest.mark.parametrize("text", ["-p gpu", "exclusive", "--=1", "--x='"])
def test_options_of_sbatch_that_cannot_be_read_are_refused(text: str) -> None:
    given, faults = validate_texts(SlurmOptions, {"sbatch": text}, "--engine-option")
    assert given is None
    assert faults[0].where.endswith("sbatch")


def test_a_share_of_a_gpu_is_refused_unless_the_cluster_has_a_name_for_it() -> None:
    with pytest.raises(EnvironmentFault, match=r"0\.5 of one") as refused:
        asked_for(Resources(gpus=0.5))
    assert "gres=shard:1" in str(refused.value.hint)
    assert asked_for(Resources(gpus=0.5), gres="shard:1")["gres"] == "shard:1"


def test_without_slurm_it_says_what_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    problems = Slurm.check(SlurmOptions())
    assert "sbatch, squeue, sacct, scancel" in problems[-1]
    assert "login node" in problems[-1]
    with pytest.raises(EnvironmentFault, match="Slurm cannot be used here"):
        Slurm(SlurmOptions(), Setting(tmp_path / "run", 1, "cpu")).open()


def test_without_submitit_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "submitit", None)  # how Python itself notes "not importable"
    assert "pip install 'regbench[slurm]'" in Slurm.check(SlurmOptions())[0]


def record(state: str, code: str = "0:0", nodes: str = "n1") -> dict[str, str]:
    return {"JobID": "7_1", "State": state, "ExitCode": code, "NodeList": nodes}


@pytest.mark.parametrize(
    ("found", "expected"),
    [
        (record("NODE_FAIL"), Lost("7_1", "its node n1 failed", cells_own=False)),
        (record("PREEMPTED", "0:15"), Lost("7_1", "Slurm pre-empted it", cells_own=False)),
        (record("BOOT_FAIL"), Lost("7_1", "its node n1 did not boot", cells_own=False)),
        (
            record("OUT_OF_MEMORY", "0:125"),
            Lost("7_1", "Slurm ended it, for it used more memory than its job may", 9),
        ),
        (record("TIMEOUT"), Lost("7_1", "Slurm ended it when its job's time was over")),
        (record("FAILED", "0:9"), Lost("7_1", "its process was killed by signal 9", 9)),
        (record("FAILED", "0:15"), Lost("7_1", "its process was killed by signal 15", 15, cells_own=False)),
        (record("FAILED", "2:0"), Lost("7_1", "its process ended with exit code 2 (FAILED)")),
        (record("CANCELLED by 12"), Lost("7_1", "somebody else cancelled it (CANCELLED by 12)")),
        (record("RUNNING"), None),
        (record("REQUEUED"), None),
    ],
)
def test_what_the_accounts_say_becomes_a_reason(found: dict[str, str], expected: Lost | None) -> None:
    assert commands.lost("7_1", found, cancelled=False) == expected


@pytest.mark.parametrize(
    ("state", "reason", "stuck"),
    [
        ("PENDING", "Priority", False),
        ("PENDING", "JobHeldUser", False),
        ("PENDING", "launch failed requeued held", True),
        ("PENDING", "launch_failed_requeued_held", True),
        ("PENDING", "job requeued in held state", True),
        ("SPECIAL_EXIT", "None", True),
        ("RUNNING", "None", False),
    ],
)
def test_a_job_that_will_never_begin_is_recognised(state: str, reason: str, stuck: bool) -> None:
    assert commands.Queued(state, "", "", reason, "").stuck is stuck


def test_jobs_do_not_inherit_the_job_that_submits_them(monkeypatch: pytest.MonkeyPatch) -> None:
    inherited = {"SLURM_JOB_ID": "3", "SLURM_ARRAY_TASK_ID": "1", "SUBMITIT_EXECUTOR": "slurm"}
    for name, value in {**inherited, "SLURM_CONF": "/etc/x", "SBATCH_ACCOUNT": "mine"}.items():
        monkeypatch.setenv(name, value)
    with commands.outside_job():
        assert not set(inherited) & set(os.environ)
        assert (os.environ["SLURM_CONF"], os.environ["SBATCH_ACCOUNT"]) == ("/etc/x", "mine")
    assert os.environ["SLURM_JOB_ID"] == "3"


@pytest.mark.parametrize("threads", [0, 1], ids=["alone", "beside another thread"])
def test_ctrl_c_does_not_reach_sbatch(threads: int) -> None:
    heard: list[int] = []
    done = threading.Event()
    others = [threading.Thread(target=done.wait, args=(30,)) for _ in range(threads)]
    for other in others:
        other.start()
    before = signal.signal(signal.SIGINT, lambda number, frame: heard.append(number))
    try:
        with commands.uninterrupted():
            os.kill(os.getpid(), signal.SIGINT)
            told = subprocess.run(["sh", "-c", "kill -INT $$; echo alive"], capture_output=True, text=True)
            assert not heard
    finally:
        signal.signal(signal.SIGINT, before)
        done.set()
    assert told.stdout == "alive\n"
    assert heard == [signal.SIGINT]


def test_what_is_over_can_be_cancelled_and_closed_again(tmp_path: Path) -> None:
    engine = Slurm(SlurmOptions(), Setting(tmp_path, 1, "cpu"))
    engine.cancel("7_1", 5.0)  # over, or never ours
    engine.close()
    engine.close()
    assert engine.poll(0.0) == []
    assert engine.submit([]) == []


def test_with_no_job_to_ask_for_it_sleeps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine, sleep, slept = Slurm(SlurmOptions(), Setting(tmp_path, 1, "cpu")), time.sleep, []

    def note(seconds: float) -> None:
        slept.append(seconds)
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", note)
    assert engine.poll(0.05) == []
    assert len(slept) < 10
