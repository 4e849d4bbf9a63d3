"""The Ray engine on one machine, with real Ray processes. Several nodes: ``test_ray_cluster.py``."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
import pytest

from regbench.engines.base import Happening, Lost, Resources, Returned, Setting, Started, Submission
from regbench.engines.ray import Ray
from regbench.engines.ray_cluster import RayOptions
from regbench.errors import EnvironmentFault
from regbench.suite.faults import validate_texts
from tests.engines.ray_nodes import ROOT, free_port

if find_spec("ray") is None:
    pytest.skip("Ray is not installed", allow_module_level=True)
WAIT_S = 60.0


class Engine:
    """An engine that is open, with what it has told so far."""

    def __init__(self, engine: Ray) -> None:
        self.engine = engine
        self.told: list[Happening] = []

    @property
    def run(self) -> Path:
        return self.engine.setting.run

    def submit(self, *jobs: dict[str, Any], needs: Resources = Resources()) -> list[str]:  # noqa: B008
        folder = {"folder": str(self.run)}
        return self.engine.submit([Submission(json.dumps({**folder, **job}), "a job", needs) for job in jobs])

    def until(self, enough: Callable[[], object], seconds: float = WAIT_S) -> None:
        deadline = time.monotonic() + seconds
        while not enough():
            assert time.monotonic() < deadline, self.told
            self.told += self.engine.poll(0.2)

    def ends(self, handles: Sequence[str], seconds: float = WAIT_S) -> list[Returned | Lost]:
        """How these ended, in the order of the handles."""
        self.until(lambda: all(self.of(handle, Returned, Lost) for handle in handles), seconds)
        found = [self.of(handle, Returned, Lost) for handle in handles]
        assert all(len(each) == 1 for each in found), f"each ends once: {self.told}"
        return [each[0] for each in found]

    def started(self, handles: Sequence[str]) -> list[Started]:
        self.until(lambda: all(self.of(handle, Started) for handle in handles))
        return [self.of(handle, Started)[0] for handle in handles]

    def of(self, handle: str, *kinds: type) -> list[Any]:
        return [each for each in self.told if each.handle == handle and isinstance(each, kinds)]

    def until_file(self, name: str) -> None:
        self.until((self.run / name).exists)


def opened(run: Path, jobs: int = 2, **options: str) -> Iterator[Engine]:
    setting = Setting(run, jobs, "cpu", {"REGBENCH_TEST_COLOUR": "red"})
    engine = Ray(RayOptions(**options), setting)
    engine.entry = "tests.engines.ray_jobs:act"
    with engine:
        yield Engine(engine)


def answer(end: Returned | Lost) -> dict[str, Any]:
    assert isinstance(end, Returned), end
    found: dict[str, Any] = json.loads(end.answer)
    return found


def lost(end: Returned | Lost) -> Lost:
    assert isinstance(end, Lost), end
    return end


@pytest.fixture(scope="module")
def workers_find_tests() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT))
        yield


@pytest.fixture(scope="module")
def box(tmp_path_factory: pytest.TempPathFactory, workers_find_tests: None) -> Iterator[Engine]:
    """Two jobs at a time on a cluster of its own."""
    before = signal.getsignal(signal.SIGTERM)
    for engine in opened(tmp_path_factory.mktemp("run")):
        assert signal.getsignal(signal.SIGTERM) == before, "Ray has taken our handler away"
        yield engine


@pytest.mark.slow
def test_jobs_begin_and_return(box: Engine) -> None:
    handles = box.submit(*({"do": "say", "text": f"job {number}"} for number in range(6)))
    assert len(set(handles)) == 6
    answers = [answer(end) for end in box.ends(handles)]
    assert [each["said"] for each in answers] == [f"job {number}" for number in range(6)]
    assert all(each["main"] for each in answers), "run_job handles signals, which only the main thread can"
    assert {each["colour"] for each in answers} == {"red"}
    processes = {each["process"] for each in answers}
    assert len(processes) <= 2, "workers are used again: each imports torch once"
    for handle in handles:
        kinds = [type(each) for each in box.told if each.handle == handle]
        assert kinds == [Started, Returned]
    logs = "".join(log.read_text() for log in (box.run / "workers").glob("ray-*.log"))
    assert "job 0" in logs
    assert "job 5" in logs


@pytest.mark.slow
def test_no_more_at_a_time_than_was_asked_for(box: Engine) -> None:
    handles = box.submit(*({"do": "nap", "seconds": 0.4} for _ in range(5)))
    spans = [(each["began"], each["ended"]) for each in map(answer, box.ends(handles))]
    together = [sum(began <= moment < ended for began, ended in spans) for moment, _ in spans]
    assert max(together) == 2


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_process_that_dies_is_told_of_and_replaced(
    box: Engine, number: signal.Signals, capfd: pytest.CaptureFixture[str]
) -> None:
    bad, good = box.submit({"do": "signal", "number": int(number)}, {"do": "say", "text": "still here"})
    ends = box.ends([bad, good])
    assert lost(ends[0]).cells_own
    assert lost(ends[0]).reason.startswith("its process died")
    assert answer(ends[1])["said"] == "still here"
    time.sleep(1.5)  # Ray would say so in a thread of its own
    assert capfd.readouterr() == ("", ""), "Ray's own words do not come between ours"


@pytest.mark.slow
def test_an_exception_is_an_end_like_others(box: Engine) -> None:
    (end,) = box.ends(box.submit({"do": "raise"}))
    assert lost(end).reason == "its worker raised ValueError: these are not my digits"


@pytest.mark.slow
def test_a_worker_that_retires_takes_no_other_job_and_its_answer_comes(box: Engine) -> None:
    for _ in range(3):
        first = answer(box.ends(box.submit({"do": "retire"}))[0])
        others = box.ends(box.submit(*({"do": "say", "text": "next"} for _ in range(3))))
        assert first["process"] not in {answer(end)["process"] for end in others}
        psutil.wait_procs(
            [psutil.Process(first["process"])] if psutil.pid_exists(first["process"]) else [], 10
        )
        assert not psutil.pid_exists(first["process"])


@pytest.mark.slow
def test_cancelled_with_a_grace_a_job_may_end_by_itself(box: Engine) -> None:
    stops, hangs, waits = box.submit(
        {"do": "wait", "name": "stops"}, {"do": "hang", "name": "hangs"}, {"do": "say", "text": "never"}
    )
    box.until_file("stops-began")
    box.until_file("hangs-began")
    for handle in (waits, stops, hangs):
        box.engine.cancel(handle, 2.0)
        box.engine.cancel(handle, 2.0)
    ends = box.ends([stops, hangs, waits])
    assert answer(ends[0])["began"], "a job that ends in its grace says how"
    assert (box.run / "stops-ended").exists()
    assert (box.run / "hangs-asked").exists()
    assert not (box.run / "hangs-ended").exists()
    assert lost(ends[1]).reason == "it was cancelled"
    assert lost(ends[2]).reason == "it was cancelled before it began"
    assert not box.of(waits, Started)
    assert not list((box.run / "workers").glob("cancel-*"))
    box.engine.cancel(stops, 0.0)
    box.engine.cancel("what nobody took", 0.0)


@pytest.mark.slow
def test_what_hangs_in_a_library_or_is_frozen_is_killed(box: Engine) -> None:
    holds, freezes = box.submit({"do": "hold", "name": "holds"}, {"do": "nap", "seconds": 100})
    frozen = psutil.Process(int(box.started([holds, freezes])[1].where.split()[-1]))
    box.until_file("holds-began")
    frozen.suspend()
    for handle in (holds, freezes):
        box.engine.cancel(handle, 0.0)
    assert [lost(end).reason for end in box.ends([holds, freezes])] == ["it was cancelled"] * 2
    assert frozen.wait(10) != 0
    assert not (box.run / "holds-ended").exists()


@pytest.mark.slow
def test_a_second_cluster_in_one_process_is_refused(box: Engine) -> None:
    with pytest.raises(EnvironmentFault, match="connected to a Ray cluster already"):
        Ray(RayOptions(), box.engine.setting).open()
    assert answer(box.ends(box.submit({"do": "say", "text": "untouched"}))[0])["said"] == "untouched"


DRIVER = """
import json, sys, time
from pathlib import Path
from regbench.engines.base import Resources, Setting, Started, Submission
from regbench.engines.ray import Ray, RayOptions

engine = Ray(RayOptions(), Setting(Path(sys.argv[1]), 1, "cpu"))
engine.entry = "tests.engines.ray_jobs:act"
with engine:
    engine.submit([Submission(json.dumps({"do": "nap", "seconds": 100}), "a nap", Resources())])
    while not any(isinstance(each, Started) for each in engine.poll(1)):
        pass
    import ray
    print(len(ray.nodes()), flush=True)
    time.sleep(100)
"""


@pytest.mark.slow
def test_a_cluster_of_its_own_joins_no_other_leaves_no_token_and_ends_with_its_run(
    tmp_path: Path, workers_find_tests: None
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    elsewhere = f"127.0.0.1:{free_port()}"  # of a cluster that a run must not be led to
    process = subprocess.Popen(
        [sys.executable, "-c", DRIVER, str(tmp_path)],
        env={**environment, "HOME": str(home), "RAY_ADDRESS": elsewhere},
        stdout=subprocess.PIPE,
    )
    family: list[psutil.Process] = []
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"1\n"
        family = psutil.Process(process.pid).children(recursive=True)
        assert {"raylet", "gcs_server"} <= {each.name() for each in family}
        assert list(home.iterdir()) == [], "Ray has written a token into the home directory"
        workers = [each for each in family if each.name().startswith("ray::") and "Agent" not in each.name()]
        assert "ray::a nap" in [each.name() for each in workers]
        process.kill()
        daemons = [each for each in family if each.name() in ("raylet", "gcs_server")]
        _, left = psutil.wait_procs([*workers, *daemons], timeout=WAIT_S)
        assert left == [], "what a killed run has started goes on"
    finally:
        process.kill()
        process.wait()
        for each in family:
            if each.is_running():
                each.kill()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    (problem,) = Ray.check(RayOptions())
    assert "pip install 'regbench[ray]'" in problem
    with pytest.raises(EnvironmentFault, match="not installed") as caught:
        Ray(RayOptions(), Setting(tmp_path, 1, "cpu")).open()
    assert caught.value.hint == "pip install 'regbench[ray]'"


def test_where_no_cluster_is_it_says_so_at_once(tmp_path: Path) -> None:
    options = RayOptions(address=f"127.0.0.1:{free_port()}")
    (problem,) = Ray.check(options)
    assert "ray start --head" in problem
    engine = Ray(options, Setting(tmp_path, 1, "cpu"))
    with pytest.raises(EnvironmentFault, match="nothing answers at 127"):
        engine.open()
    engine.close()
    engine.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("address", "ray://head:10001"),
        ("address", "head"),
        ("address", ""),
        ("labels", "gpu"),
        ("labels", "=x"),
    ],
)
def test_options_that_mean_nothing_are_refused(name: str, value: str) -> None:
    options, faults = validate_texts(RayOptions, {name: value}, "--engine-option")
    assert options is None
    assert "expected" in str(faults[0])


def test_labels_and_addresses_are_read() -> None:
    options = RayOptions(address="head:6379", labels="gpu=h100,zone=a")
    assert options.selector == {"gpu": "h100", "zone": "a"}
    assert RayOptions().selector == {}
    assert Ray.elsewhere(options)
    assert not Ray.elsewhere(RayOptions())
    assert Ray.default_jobs(RayOptions(), "cpu") == 1
    assert Ray.default_jobs(options, "cuda") == 1000
